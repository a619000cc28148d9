"""PyTorch, as the published code runs it: the baseline, and the reference for what backends decide."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import cast

import hvpnet.modeling.torchvision_compat  # noqa: F401  before torchvision itself

# isort: split
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torchvision import transforms

from hvpnet.bench.subjects import COMPILED, Stopwatch, Variant
from hvpnet.data.examples import EntityExample
from hvpnet.modeling.checkpoint import load_checkpoint
from hvpnet.modeling.infer_config import Hints
from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.text_batches import encode, stack_texts, text_encoder
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_runtime import PictureError, Tweet
from hvpnet_runtime.backends import Prefix, TextInputs
from hvpnet_runtime.backends.base import Pixels
from hvpnet_runtime.bundle import MAX_OBJECTS, Manifest, PictureSpec

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def reduced_precision() -> str:
    """What one takes here to make PyTorch faster: FP16 on a GPU, bf16 on a CPU."""
    return "fp16" if torch.cuda.is_available() else "bf16"


def load_backend(variant: Variant, manifest: Manifest, checkpoint: Path) -> "EagerBackend":
    """The checkpoint of a bundle with this manifest; raises CheckpointError if it cannot be read, or is another's."""
    model = load_checkpoint(checkpoint, Hints.of_bundle(manifest))
    return EagerBackend(model, variant.precision, compiled=variant.backend == COMPILED)


def load_subject(variant: Variant, bundle: Path, checkpoint: Path) -> "EagerSubject":
    """As `load_backend`, with tokeniser and pixels as the bundle has them, whose files are not checked here."""
    manifest = Manifest.from_dict(json.loads((bundle / "manifest.json").read_text("utf-8")))
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    return EagerSubject(load_backend(variant, manifest, checkpoint), tokenizer, manifest.preprocessing)


class EagerBackend:
    """A model in evaluation mode as a backend, on the GPU if there is one; see `hvpnet_runtime.backends.Backend`.

    It is converted in place, all but its CRF, and `compiled` for any batch and length if asked. Prefixes are tensors.
    """

    name = "eager"
    max_length: int | None = None

    def __init__(self, model: HVPNeT, precision: str = "fp32", *, compiled: bool = False) -> None:
        self.precision, self.model = precision, model
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for name, module in model.named_children():
            if name != "crf":  # decoding is on the CPU, and needs its scores as they are
                module.to(self._device, _DTYPES[precision])
        self._pictures, self._text = model.encode_pictures, model.forward
        if compiled:
            self._pictures, self._text = (torch.compile(each, dynamic=True) for each in (self._pictures, self._text))

    def encode_pictures(self, pixels: Pixels) -> list[Tensor]:
        """See `Backend`."""
        return self.encode_normalised(normalise(torch.from_numpy(pixels)))

    def place_prefix(self, prefix: npt.NDArray[np.float32]) -> Tensor:
        """See `Backend`."""
        return torch.from_numpy(prefix).to(self._device, _DTYPES[self.precision])

    @torch.inference_mode()
    def encode_normalised(self, images: Tensor) -> list[Tensor]:
        """Normalised images [N, 3, side, side] -> N prefixes [layers, 2, prefix_length * hidden]."""
        prefixes = self._pictures(images.to(self._device, _DTYPES[self.precision]))
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return list(prefixes)

    @torch.inference_mode()
    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        inputs = {name: torch.from_numpy(array).to(self._device) for name, array in text.arrays().items()}
        prefix = torch.stack([torch.stack(list(row)) for row in prefixes]) if prefixes[0] else None  # type: ignore[arg-type]
        outputs: npt.NDArray[np.float32] = self._text(**inputs, prefix=prefix).float().cpu().numpy()
        return outputs

    def close(self) -> None:
        """See `Backend`."""


class EagerSubject:
    """From tweets to tags in PyTorch with the published transforms and pytorch-crf's decoding.

    Every picture is computed, blank ones and those seen before included, as published.
    """

    def __init__(self, backend: EagerBackend, tokenizer: Tokenizer, spec: PictureSpec) -> None:
        self._backend, self._model = backend, backend.model
        self._encoder = text_encoder(tokenizer, self._model.config)
        self._crop = transforms.Compose([transforms.Resize(spec.resize), transforms.CenterCrop(spec.crop)])
        self._scale = transforms.Compose([transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])
        self._blank = torch.zeros(3, spec.crop, spec.crop)

    def measure(self, tweets: list[Tweet]) -> dict[str, float]:
        """Answer the tweets as one batch; returns seconds by stage, which add up to the whole answer."""
        watch, slots = Stopwatch(), self._model.config.pictures
        encodings = [encode(self._encoder, EntityExample(tweet, ())) for tweet in tweets]  # gold tags are not read
        batch = stack_texts(self._encoder, encodings, torch.device("cpu"))
        text = TextInputs(**{name: tensor.numpy() for name, tensor in batch.items()})
        pictures = [self._open(picture) for tweet in tweets for picture in _slots(tweet, slots)]
        watch.lap("prepare")
        prefixes: list[list[Tensor]] = [[] for _ in tweets]
        if slots:
            images = torch.stack([self._blank if each is None else self._scale(each) for each in pictures])
            watch.lap("normalise")
            flat = self._backend.encode_normalised(images)  # of [B * pictures, 3, crop, crop]
            prefixes = [flat[start : start + slots] for start in range(0, len(flat), slots)]
            watch.lap("vision")
        outputs = self._backend.encode_text(text, prefixes)
        watch.lap("text")
        self._model.decode(torch.from_numpy(outputs), torch.from_numpy(text.attention_mask))
        watch.lap("decode")
        return watch.stages

    def _open(self, picture: object) -> Image.Image | None:
        if picture is None:
            return None
        if not isinstance(picture, str | Path | bytes):
            raise PictureError(f"the published loaders read files, not {type(picture).__name__}: give a path or bytes")
        with Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            return cast("Image.Image", self._crop(image.convert("RGB")))


def _slots(tweet: Tweet, count: int) -> Sequence[object]:
    """The pictures that the model reads of a tweet, None for blanks."""
    return [*([tweet.image] if count > MAX_OBJECTS else []), *tweet.objects, *[None] * count][:count]
