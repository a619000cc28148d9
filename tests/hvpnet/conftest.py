"""The published model once more, in plain loops: what the tensors of a checkpoint mean, whatever our code does."""

import copy
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from hvpnet import HVPNeT

Array: TypeAlias = npt.NDArray[np.float64]


class Reference:
    """Slow, float64, one tweet, head, position and picture at a time; reads nothing of a model but its tensors."""

    def __init__(self, model: HVPNeT) -> None:
        self.config = model.config
        self.resnet = copy.deepcopy(model.image_model.resnet).double() if model.config.resnet else None
        self.tensors = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def linear(self, name: str, x: Array) -> Array:
        return np.asarray(self.tensors[f"{name}.weight"] @ x + self.tensors[f"{name}.bias"])

    def pyramid(self, image: Tensor) -> list[Array]:
        """[3, side, side] -> every stage, pooled to [channels, 2, 2]."""
        x, stages = image[None].double(), []
        assert self.resnet is not None
        with torch.no_grad():
            for name, layer in self.resnet.named_children():
                if name in ("avgpool", "fc"):
                    continue
                x = layer(x)
                if name.startswith("layer"):
                    stages.append(pool(x[0].numpy()))
        return stages

    def features(self, image: Tensor) -> Array:
        """[3, side, side] -> [channels, 2, 2]."""
        stages = self.pyramid(image)
        return stages[-1] if self.config.variant == "flat" else np.concatenate(stages)

    def prefix(self, features: Array) -> Array:
        """One picture's features [channels, 2, 2] -> [layers, 2, prefix_length * hidden]."""
        layers = self.config.bert.num_hidden_layers
        if self.config.variant == "1t3":
            return np.stack([self.stage_prefix(features, layer * 4 // layers) for layer in range(layers)])
        splits = self.splits(features)  # [P, splits, 2 * hidden]
        mean = [np.mean(list(position), axis=0) for position in splits]  # P times [2 * hidden]
        return np.stack([self.gated(splits, np.concatenate(mean), layer) for layer in range(layers)])

    def project(self, name: str, row: Array) -> Array:
        return self.linear(f"{name}.2", np.tanh(self.linear(f"{name}.0", row)))

    def splits(self, features: Array) -> Array:
        flat, positions = features.reshape(-1), self.config.prefix_length
        width, pair = flat.size // positions, 2 * self.config.bert.hidden_size
        rows = [self.project("encoder_conv", flat[p * width : (p + 1) * width]) for p in range(positions)]
        return np.stack([[row[s * pair : (s + 1) * pair] for s in range(self.config.splits)] for row in rows])

    def gated(self, splits: Array, mean: Array, layer: int) -> Array:
        logits = [x if x > 0 else 0.01 * x for x in self.linear(f"gates.{layer}", mean)]
        weights = [math.exp(x) / sum(math.exp(y) for y in logits) for x in logits]
        pairs = sum(weight * splits[:, split] for split, weight in enumerate(weights))  # [P, 2 * hidden]
        return self.halves(np.asarray(pairs))

    def stage_prefix(self, features: Array, stage: int) -> Array:
        assert self.config.resnet is not None
        channels = self.config.resnet.stage_channels
        flat = features[sum(channels[:stage]) : sum(channels[: stage + 1])].reshape(-1)
        rows = flat.reshape(self.config.prefix_length, -1)
        return self.halves(np.stack([self.project(f"encoder_conv.{stage}", row) for row in rows]))

    def halves(self, pairs: Array) -> Array:
        """[P, 2 * hidden] -> [2, P * hidden]: first the keys, then the values."""
        hidden = self.config.bert.hidden_size
        keys, values = ([row[half : half + hidden] for row in pairs] for half in (0, hidden))
        return np.stack([np.concatenate(keys), np.concatenate(values)])

    def encode(self, ids: list[int], mask: list[int], prefix: Array | None) -> Array:
        """One tweet: [T], [T], [pictures, layers, 2, P * hidden] -> [T, hidden]."""
        embeddings = "bert.embeddings"
        words, positions, types = (
            self.tensors[f"{embeddings}.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")
        )
        hidden = np.stack([words[piece] + positions[place] + types[0] for place, piece in enumerate(ids)])
        hidden = self.norm(f"{embeddings}.LayerNorm", hidden)
        for layer in range(self.config.bert.num_hidden_layers):
            own = None if prefix is None else prefix[:, layer]  # [pictures, 2, P * hidden]
            hidden = self.layer(f"bert.encoder.layer.{layer}", hidden, mask, own)
        return hidden

    def layer(self, name: str, hidden: Array, mask: list[int], prefix: Array | None) -> Array:
        attended = self.attention(f"{name}.attention.self", hidden, mask, prefix)
        dense = np.stack([self.linear(f"{name}.attention.output.dense", row) for row in attended])
        hidden = self.norm(f"{name}.attention.output.LayerNorm", dense + hidden)
        inner = [gelu(self.linear(f"{name}.intermediate.dense", row)) for row in hidden]
        outer = np.stack([self.linear(f"{name}.output.dense", row) for row in inner])
        return self.norm(f"{name}.output.LayerNorm", outer + hidden)

    def attention(self, name: str, hidden: Array, mask: list[int], prefix: Array | None) -> Array:
        bert = self.config.bert
        size = bert.hidden_size // bert.num_attention_heads
        query, key, value = (
            np.stack([self.linear(f"{name}.{kind}", row) for row in hidden]) for kind in ("query", "key", "value")
        )
        contexts = []
        for head in range(bert.num_attention_heads):
            own = slice(head * size, (head + 1) * size)
            keys, values, lowered = list(key[:, own]), list(value[:, own]), [-10000.0 * (1 - seen) for seen in mask]
            if prefix is not None:
                flat_keys, flat_values = np.concatenate(list(prefix[:, 0])), np.concatenate(list(prefix[:, 1]))
                share = flat_keys.size // bert.num_attention_heads // size  # prefix positions that this head reads
                places = [range((head * share + j) * size, (head * share + j + 1) * size) for j in range(share)]
                keys = [flat_keys[place] for place in places] + keys
                values = [flat_values[place] for place in places] + values
                lowered = [0.0] * share + lowered
            contexts.append([attend(row[own], keys, values, lowered) for row in query])
        return np.concatenate(contexts, axis=1)

    def norm(self, name: str, rows: Array) -> Array:
        scale, shift, eps = (
            self.tensors[f"{name}.weight"],
            self.tensors[f"{name}.bias"],
            self.config.bert.layer_norm_eps,
        )
        return np.stack([scale * (row - row.mean()) / math.sqrt(row.var() + eps) + shift for row in rows])

    def outputs(self, hidden: Array, head_index: int, tail_index: int) -> Array:
        """[T, hidden] -> emissions [T, labels] or logits [relations]."""
        if self.config.task == "ner":
            return np.stack([self.linear("fc", row) for row in hidden])
        if self.config.head == "cls":
            return self.linear("classifier", hidden[0])
        return self.linear("classifier", np.concatenate([hidden[head_index], hidden[tail_index]]))


def pool(stage: Array) -> Array:
    """[channels, side, side] -> [channels, 2, 2]; an odd side loses its last row and column."""
    k = stage.shape[-1] // 2
    corners = [[stage[:, k * i : k * (i + 1), k * j : k * (j + 1)].mean((1, 2)) for j in (0, 1)] for i in (0, 1)]
    return np.moveaxis(np.asarray(corners), -1, 0)


def gelu(x: Array) -> Array:
    return np.asarray([value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x])


def attend(query: Array, keys: list[Array], values: list[Array], lowered: list[float]) -> Array:
    scores = [float(query @ key) / math.sqrt(len(query)) + low for key, low in zip(keys, lowered, strict=True)]
    weights = [math.exp(score - max(scores)) for score in scores]
    return np.asarray(sum(w / sum(weights) * value for w, value in zip(weights, values, strict=True)))


@pytest.fixture(scope="session")
def reference() -> Callable[[HVPNeT], Reference]:
    """Wraps a model."""
    return Reference


@pytest.fixture(scope="session")
def double() -> Callable[[HVPNeT], HVPNeT]:
    """Copies a model to float64, in which it must agree with the reference to the last digits."""
    return lambda model: copy.deepcopy(model).double()
