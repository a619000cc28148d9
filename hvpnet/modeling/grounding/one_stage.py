"""The published one-stage grounder: Darknet-53, BERT, and an anchor box for every cell of three grids.

Source: "A Fast and Accurate One-Stage Approach to Visual Grounding" (ICCV 2019) and its published code
(zyang-ur/onestage_grounding, `grounding_model`), whose module names these are. `light` is that code's smaller fusion:
one convolution before the output convolution instead of three and one more. It is read off the published code alone;
no golden case has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the field's name for it

from hvpnet.errors import ConfigError
from hvpnet.modeling.config import BertConfig
from hvpnet.modeling.grounding.base import Grounder
from hvpnet.modeling.grounding.darknet import STRIDES, WIDTH, Darknet
from hvpnet.modeling.text_encoder import build_bert, hidden_states, plain_attention
from hvpnet.modeling.visual_prefix import normalise

SIZE, MAX_LENGTH = 256, 20
"""Side of the input in pixels and pieces of a query in the published runs."""

FLICKR30K = (
    ((352.0, 294.0), (369.0, 169.0), (209.0, 263.0)),
    ((204.0, 132.0), (124.0, 205.0), (82.0, 121.0)),
    ((137.0, 71.0), (55.0, 58.0), (29.0, 26.0)),
)
"""Anchors of the published Flickr30K runs, coarse to fine, as (width, height) in pixels of a picture of 416."""
ANCHOR_SIZE = 416

LAST_LAYERS = 4
"""Layers of BERT whose [CLS] states are averaged."""
COORDINATES = 8
"""Maps that tell a cell where it is."""
VALUES = 5
"""Values of an anchor: x, y, width, height, confidence."""

Anchors = Sequence[Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class OneStageSizes:
    """Sizes of the model; the defaults are the published ones.

    Attributes:
        bert: the text encoder.
        embedding: channels of features and queries where they meet (`emb_size`).
        width: channels of Darknet's first layer.
        light: whether the fusion is the smaller one.
    """

    bert: BertConfig
    embedding: int = 512
    width: int = WIDTH
    light: bool = False


class ConvBatchNorm(nn.Module):
    """Convolution, batch norm, ReLU; the sides stay."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, side, side] -> [N, outputs, side, side]."""
        return F.relu(self.bn(self.conv(x)))


class Fusion(nn.Module):
    """The first convolution over features, query and coordinates, as published over their concatenation.

    A 1x1 convolution of a concatenation is the sum of one over each part. So features are convolved once a picture
    whatever the number of queries, and a query once instead of in every cell.
    """

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.parts = (embedding, embedding, COORDINATES)
        self.conv = nn.Conv2d(sum(self.parts), embedding, 1, bias=False)
        self.bn = nn.BatchNorm2d(embedding)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """Features [N, E, side, side], queries [N, Q, E] -> [N * Q, E, side, side]."""
        weight, bias = self.conv.weight, self.conv.bias
        of_features, of_queries, of_place = weight.split(self.parts, dim=1)  # [E, E, 1, 1] twice, [E, 8, 1, 1]
        places = coordinates(features.shape[-1]).to(wide(weight))  # [1, 8, side, side]
        # A constant of the graph, which ONNX Runtime can work out beforehand in FP32 only.
        here = F.conv2d(places, wide(of_place), None if bias is None else wide(bias))  # [1, E, side, side]
        there = F.conv2d(features.to(weight.dtype), of_features) + here.to(weight.dtype)  # [N, E, side, side]
        asked = F.linear(queries.to(weight.dtype), of_queries[:, :, 0, 0])  # [N, Q, E]
        both = there[:, None] + asked[..., None, None]  # [N, Q, E, side, side]
        return F.relu(self.bn(both.flatten(0, 1)))


class OneStageGrounder(Grounder):
    """Boxes of the anchors of three grids; the score of one is the softmax over all their confidences.

    Args:
        sizes: of the model.
        tokenizer: BERT's, lower-casing.
        size: side of the input, a multiple of 32.
        anchors: as many for each grid, coarse to fine; no tensor tells them.

    Raises:
        ConfigError: the size is no multiple of 32, or the grids have no anchors or not as many.
    """

    kind = "one-stage"

    def __init__(
        self, sizes: OneStageSizes, tokenizer: Tokenizer, size: int = SIZE, anchors: Anchors = FLICKR30K
    ) -> None:
        super().__init__()
        _check(size, anchors)
        self.sizes, self.tokenizer = sizes, tokenizer
        self.size, self.query_size = size, sizes.embedding
        self.max_length = min(MAX_LENGTH, sizes.bert.max_position_embeddings)
        width, hidden = sizes.embedding, sizes.bert.hidden_size
        self.visumodel = Darknet(sizes.width)
        self.textmodel = build_bert(sizes.bert)
        self.mapping_visu = nn.ModuleList(ConvBatchNorm(channels, width) for channels in self.visumodel.channels)
        self.mapping_lang = nn.Sequential(
            nn.Linear(hidden, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        )
        outputs = VALUES * len(anchors[0])
        self.fcn_emb = nn.ModuleList(self._fusion(sizes) for _ in STRIDES)
        self.fcn_out = nn.ModuleList(self._output(sizes, outputs) for _ in STRIDES)
        with torch.device("cpu"):  # also where the rest is made without its numbers
            self.register_buffer("grid", anchor_grid(size, anchors), persistent=False)

    @staticmethod
    def _fusion(sizes: OneStageSizes) -> nn.ModuleList:
        width = sizes.embedding
        more = [] if sizes.light else [ConvBatchNorm(width, width, 3), ConvBatchNorm(width, width)]
        return nn.ModuleList([Fusion(width), *more])

    @staticmethod
    def _output(sizes: OneStageSizes, outputs: int) -> nn.Sequential:
        width = sizes.embedding
        if sizes.light:
            return nn.Sequential(nn.Conv2d(width, outputs, 1))
        return nn.Sequential(ConvBatchNorm(width, width // 2), nn.Conv2d(width // 2, outputs, 1))

    def encode_queries(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Int64 [Q, L] twice -> [Q, D] of length 1: the mean of the [CLS] states of BERT's last four layers, mapped."""
        states = hidden_states(self.textmodel, input_ids, attention_mask, None, plain_attention)
        first = torch.stack([state[:, 0] for state in states[-LAST_LAYERS:]]).mean(0)  # [Q, hidden]
        return unit(self.mapping_lang(first), dim=1)

    def raw(self, images: Tensor, queries: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the last convolutions, coarse to fine.

        Args:
            images: uint8 [N, S, S, 3].
            queries: [N, Q, D].

        Returns:
            Three of [N * Q, 3 anchors * 5, side, side]: x, y, width, height and confidence, as they come.
        """
        dtype = next(self.visumodel.parameters()).dtype
        outputs = []
        for features, mapping, fusion, output in zip(
            self.visumodel(normalise(images).to(dtype)), self.mapping_visu, self.fcn_emb, self.fcn_out, strict=True
        ):
            first, *more = cast("nn.ModuleList", fusion)
            x = first(unit(mapping(features), dim=1), queries)  # [N * Q, E, side, side]
            for layer in more:
                x = layer(x)
            outputs.append(output(x))
        return tuple(outputs)

    def candidates(self, images: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """See `Grounder`; anchors A in the order of `raw`: grid, anchor, row, column."""
        flat = [each.unflatten(1, (-1, VALUES)).transpose(2, 3).transpose(3, 4) for each in self.raw(images, queries)]
        values = torch.cat([each.flatten(1, 3) for each in flat], dim=1)  # [N * Q, A, 5]
        values = wide(values).unflatten(0, queries.shape[:2])  # [N, Q, A, 5]
        place, side, confidence = values.split((2, 2, 1), dim=-1)  # [N, Q, A, 2] twice, [N, Q, A, 1]
        corner, cell, anchor = cast("Tensor", self.grid).split(2, dim=1)  # [A, 2] each
        centre = corner + torch.sigmoid(place) * cell  # [N, Q, A, 2]
        half = torch.exp(side) * anchor / 2  # [N, Q, A, 2]
        return torch.cat([centre - half, centre + half], dim=-1), confidence.squeeze(-1).softmax(-1)


def _check(size: int, anchors: Anchors) -> None:
    if size < STRIDES[0] or size % STRIDES[0]:
        raise ConfigError(f"the side of a grounder's input must be a multiple of {STRIDES[0]} pixels, not {size}")
    counts = [len(shapes) for shapes in anchors]
    if len(counts) != len(STRIDES) or len(set(counts)) > 1 or not counts[0]:
        raise ConfigError(f"anchors must be as many for each of {len(STRIDES)} grids, not {counts}")


def wide(x: Tensor) -> Tensor:
    """A tensor of any type in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit(x: Tensor, dim: int) -> Tensor:
    """Vectors along a dimension, divided by their lengths in float32 at least."""
    return F.normalize(wide(x), dim=dim)


def coordinates(side: int) -> Tensor:
    """Where a cell of a grid is, [1, 8, side, side]: begin, end and middle from -1 to 1, and the share of a side.

    As published, the first of each pair counts rows and the second columns.
    """
    begin = torch.arange(side) * (2 / side) - 1  # [side]
    ends = torch.stack([begin, begin + 2 / side, begin + 1 / side])  # [3, side]
    rows, columns = ends[:, :, None].expand(-1, -1, side), ends[:, None, :].expand(-1, side, -1)  # [3, side, side]
    pairs = torch.stack([rows, columns], dim=1).flatten(0, 1)  # [6, side, side]
    return torch.cat([pairs, torch.full((2, side, side), 1 / side)])[None]


def anchor_grid(size: int, anchors: Anchors) -> Tensor:
    """Anchors of all grids, [A, 6] in shares of `size`: corner of the cell, its sides, sides of the anchor.

    The published code scales anchors with the input, so that their shares are those of a picture of `ANCHOR_SIZE`.
    """
    grids = []
    for stride, shapes in zip(STRIDES, anchors, strict=True):
        side = size // stride
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")  # [side, side]
        corners = torch.stack([columns, rows], dim=-1).flatten(0, 1) / side  # [side * side, 2]
        cells = torch.full_like(corners, 1 / side)
        for shape in shapes:
            shares = torch.tensor(shape) / ANCHOR_SIZE  # [2]
            grids.append(torch.cat([corners, cells, shares.expand_as(corners)], dim=1))  # [side * side, 6]
    return torch.cat(grids)
