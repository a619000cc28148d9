"""OWL-ViT as a grounder, from any checkpoint folder of transformers.

Source: "Simple Open-Vocabulary Object Detection with Vision Transformers" (ECCV 2022), and `OwlViTForObjectDetection`
of transformers. It fuses text late: every patch of the picture proposes one box, whoever asks, and a query is compared
with the patches' embeddings at the very end. So the picture's part never sees text.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import hvpnet.modeling.torchvision_compat  # noqa: F401  first, because transformers imports torchvision too

# isort: split

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    CLIPTokenizer,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTTextConfig,
    OwlViTVisionConfig,
)
from transformers.masking_utils import eager_mask
from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil

from hvpnet.errors import CheckpointError, ConfigError
from hvpnet.files import CONFIGURATION, read_json
from hvpnet.modeling.checkpoint import check_finite, matching_state, read_pickle, read_safetensors
from hvpnet.modeling.grounding.base import Grounder
from hvpnet_runtime.errors import brief, one_line

logger = logging.getLogger(__name__)

_UNUSED = re.compile(r".*\.position_ids$|box_bias$")
"""Tensors that older checkpoints carry and the model computes itself."""

_VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"))

_EPSILON = 1e-6
"""Added to norms, as the published class head does."""


class OwlVit(Grounder):
    """OWL-ViT of transformers behind the contract of grounders; a score is the sigmoid of a patch's logit.

    Args:
        model: in evaluation mode; its attention becomes `attend_plainly`.
        tokenizer: CLIP's, of the model's vocabulary.
        mean: of the pixels by channel, in [0, 1].
        std: deviation of the pixels by channel.

    Raises:
        ConfigError: the tokeniser has pieces that the model does not know, or the model does not read square pictures.
    """

    kind = "owl-vit"
    oracle = torch.float64  # of a real size, scores in float32 are off by up to 3e-3

    def __init__(
        self, model: OwlViTForObjectDetection, tokenizer: Tokenizer, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        text = cast("OwlViTTextConfig", model.config.text_config)
        pieces = max(tokenizer.get_vocab().values(), default=0) + 1
        if pieces > text.vocab_size:
            raise ConfigError(
                f"the grounder's tokenizer has {pieces} pieces, its text encoder {text.vocab_size}: name its own"
            )
        model.set_attn_implementation(_PLAIN)
        self.model, self.tokenizer = model, tokenizer
        self.size, self.query_size = _side(model.config), model.config.projection_dim
        self.max_length = text.max_position_embeddings
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)  # [3, 1, 1]
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def encode_queries(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See the base class; vectors have length 1.

        The state at the piece of the largest number, which is CLIP's end of text, is projected. What pads a query does
        not matter.
        """
        pieces = input_ids * attention_mask  # [Q, L]: no padding has a larger number than the end of text
        states = self.model.owlvit.text_model(input_ids=pieces, attention_mask=attention_mask)
        queries = _wide(self.model.owlvit.text_projection(states.pooler_output))  # [Q, D]
        vectors: Tensor = queries / torch.linalg.norm(queries, dim=-1, keepdim=True)
        return vectors

    def forward(self, images: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class; the best patch is that of the largest logit, as many a score is rounded to 1."""
        boxes, logits = self.proposals(images, queries)  # [N, A, 4], [N, Q, A]
        best = logits.argmax(dim=-1, keepdim=True)  # [N, Q, 1]
        return boxes.gather(1, best.expand(-1, -1, 4)), torch.sigmoid(logits.gather(-1, best)[..., 0])

    def candidates(self, images: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class: the A boxes are those of the patches, row by row, the same for every query."""
        boxes, logits = self.proposals(images, queries)
        return boxes[:, None], torch.sigmoid(logits)

    def proposals(self, images: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """What every patch proposes.

        Args:
            images: uint8 [N, S, S, 3], RGB.
            queries: [N, Q, D], of `encode_queries`.

        Returns:
            boxes [N, A, 4] as (x0, y0, x1, y1) in shares of S; logits [N, Q, A].
        """
        pixels = (images.permute(0, 3, 1, 2).to(self.mean.dtype) / 255 - self.mean) / self.std  # [N, 3, S, S]
        grid = self.model.image_embedder(pixels)[0]  # [N, rows, columns, hidden]
        patches = grid.flatten(1, 2)  # [N, A, hidden]
        edges = torch.sigmoid(_wide(self.model.box_head(patches)) + self.model.box_bias)  # [N, A, 4]
        centre, extent = edges.split(2, dim=-1)  # [N, A, 2]
        boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=-1)
        return boxes, self._logits(patches, queries)

    def _logits(self, patches: Tensor, queries: Tensor) -> Tensor:
        """[N, A, hidden], [N, Q, D] -> [N, Q, A], as the class head has it, but patches last."""
        head = self.model.class_head
        queries, patterns = (
            each / (torch.linalg.norm(each, dim=-1, keepdim=True) + _EPSILON)
            for each in (_wide(queries), _wide(head.dense0(patches)))  # [N, Q, D], [N, A, D]
        )
        shift, scale = (_wide(each(patches)).transpose(1, 2) for each in (head.logit_shift, head.logit_scale))
        logits: Tensor = (queries @ patterns.transpose(1, 2) + shift) * (head.elu(scale) + 1)  # the two [N, 1, A]
        return logits


def attend_plainly(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_options: object,
) -> tuple[Tensor, None]:
    """[B, heads, T, size] three times, additive mask [B, 1, T, T] -> [B, T, heads, size], as transformers calls it.

    Plain products and a softmax are what TensorRT fuses best; the softmax is of float32 at least, also where products
    are of FP16.
    """
    scores = _wide((query * scaling) @ key.transpose(2, 3))  # [B, heads, T, T]
    if attention_mask is not None:
        scores = scores + attention_mask
    return (torch.softmax(scores, dim=-1).to(value.dtype) @ value).transpose(1, 2), None


_PLAIN = "hvpnet_plain"
AttentionInterface.register(_PLAIN, attend_plainly)
AttentionMaskInterface.register(_PLAIN, eager_mask)


def _wide(tensor: Tensor) -> Tensor:
    """A tensor of FP16 as float32, any other as it is."""
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def load_owl_vit(folder: Path, tokenizer: Path | None = None) -> OwlVit:
    """Loads an OWL-ViT in evaluation mode from files alone; no code of them is run.

    Args:
        folder: `config.json` with `model.safetensors` or `pytorch_model.bin`, as transformers' `save_pretrained` writes
            them; also `preprocessor_config.json` or `processor_config.json`, without which pixels are normalised as
            for CLIP.
        tokenizer: a folder with CLIP's tokeniser, by default the same.

    Raises:
        CheckpointError: a file is missing or damaged, or its tensors are not those of an OWL-ViT; they are named.
        ConfigError: the tokeniser is missing or another, or pictures are prepared as for no OWL-ViT.
    """
    model = OwlViTForObjectDetection(_config(folder))
    weights = folder / "model.safetensors"
    state = read_safetensors(weights) if weights.is_file() else read_pickle(folder / "pytorch_model.bin")
    state = matching_state(model, state, _UNUSED, f"{folder} does not hold the weights of its OWL-ViT")
    check_finite(state, str(folder))
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
    mean, std = _normalisation(folder, _side(model.config))
    grounder = OwlVit(model, _tokenizer(tokenizer or folder), mean, std)
    return grounder.requires_grad_(requires_grad=False).eval()


def _side(config: OwlViTConfig) -> int:
    """Side of the pictures in pixels."""
    size = cast("OwlViTVisionConfig", config.vision_config).image_size
    if not isinstance(size, int):
        raise ConfigError(f"the grounder reads pictures of {brief(size)} pixels: only square ones are supported")
    return size


def _config(folder: Path) -> OwlViTConfig:
    path = folder / "config.json"
    try:
        values = read_json(path, CONFIGURATION)
        kind = values.get("model_type") if isinstance(values, dict) else None
        if isinstance(values, dict) and kind == "owlvit":
            return OwlViTConfig.from_dict(values)
    except Exception as error:  # transformers checks values with many classes of exceptions
        raise CheckpointError(f"{path} is no configuration of an OWL-ViT: {one_line(error)}") from error
    raise CheckpointError(f"{path} has model_type {brief(kind)}: of transformers' models, owlvit is a grounder here")


def _tokenizer(folder: Path) -> Tokenizer:
    if not any(all((folder / name).is_file() for name in names) for names in _VOCABULARIES):
        # transformers makes a tokeniser of three pieces where there is nothing.
        raise ConfigError(
            f"{folder} has no tokenizer of CLIP, neither tokenizer.json nor vocab.json and merges.txt: name the folder"
            " that has it"
        )
    try:
        found = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer = Tokenizer.from_str(found.backend_tokenizer.to_str())
    except Exception as error:  # whatever a file makes of it
        raise ConfigError(f"{folder} has no tokenizer of CLIP that can be read: {one_line(error)}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _normalisation(folder: Path, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the pixels, if pictures are prepared as the runtime prepares them."""
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        logger.info("%s has no preprocessor_config.json: pixels are normalised as for CLIP", folder)
        processor = OwlViTImageProcessorPil(size={"height": size, "width": size})
    else:
        try:
            processor = OwlViTImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # as above
            raise ConfigError(f"{folder} does not describe how pictures are prepared: {one_line(error)}") from error
    wanted = {
        "size": {"height": size, "width": size}, "resample": 3, "do_resize": True, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "do_center_crop": False,
    }  # fmt: skip
    for name, value in wanted.items():
        found = getattr(processor, name)
        found = dict(found) if name == "size" else found
        if found != value:
            raise ConfigError(
                f"{folder} prepares pictures with {name} {brief(found)}, and OWL-ViT needs {brief(value)}: correct its"
                " preprocessor_config.json"
            )
    return tuple(processor.image_mean), tuple(processor.image_std)
