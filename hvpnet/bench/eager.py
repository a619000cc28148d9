"""PyTorch, as the published code runs it: the baseline, and the reference for what backends decide."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Self, cast

import hvpnet.modeling.torchvision_compat  # noqa: F401  before torchvision itself

# isort: split
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torchvision import transforms

from hvpnet.bench.candidates import COMPILED, Candidate
from hvpnet.data.examples import EntityExample
from hvpnet.modeling.checkpoint import load_checkpoint
from hvpnet.modeling.infer_config import Hints
from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.text_batches import encode, stack_texts, text_encoder
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_runtime import PictureError, Tweet
from hvpnet_runtime.backends import Prefix, TextInputs, WarmUpShape
from hvpnet_runtime.backends.base import Pixels
from hvpnet_runtime.bundle import MAX_OBJECTS, Manifest, PictureSpec
from hvpnet_runtime.preprocessing.encode_text import Encoding

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def reduced_precision() -> str:
    """What one takes here to make PyTorch faster: FP16 on a GPU, bf16 on a CPU."""
    return "fp16" if torch.cuda.is_available() else "bf16"


class EagerBackend:
    """A model in evaluation mode as a backend; see `hvpnet_runtime.backends.Backend`.

    It runs on the GPU if there is one, and no other `device` is given.

    It is converted in place, all but its CRF, and `compiled` for any batch and length if asked. Prefixes are tensors.
    """

    name = "eager"
    max_length: int | None = None
    run_tokens: int | None = None
    lanes = 1

    def __init__(
        self, model: HVPNeT, precision: str = "fp32", *, compiled: bool = False, device: str | None = None
    ) -> None:
        self.precision, self.model = precision, model
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        for name, module in model.named_children():
            if name != "crf":  # decoding is on the CPU, and needs its scores as they are
                module.to(self._device, _DTYPES[precision])
        self._pictures, self._text = model.encode_pictures, model.forward
        if compiled:
            self._pictures, self._text = (torch.compile(each, dynamic=True) for each in (self._pictures, self._text))

    @classmethod
    def load(cls, candidate: Candidate, manifest: Manifest, checkpoint: Path) -> Self:
        """The checkpoint of a bundle with this manifest; raises CheckpointError if it is unreadable, or another's."""
        model = load_checkpoint(checkpoint, Hints.of_bundle(manifest))
        return cls(model, candidate.precision, compiled=candidate.backend == COMPILED)

    def place_prefix(self, prefix: npt.NDArray[np.float32]) -> Tensor:
        """See `Backend`."""
        return torch.from_numpy(prefix).to(self._device, _DTYPES[self.precision])

    @torch.inference_mode()
    def encode_pictures(self, pixels: Pixels | Tensor) -> list[Tensor]:
        """See `Backend`; a tensor [N, 3, crop, crop] is normalised already."""
        images = pixels if isinstance(pixels, Tensor) else normalise(torch.from_numpy(pixels))
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

    def warm_up(self, shapes: Sequence[WarmUpShape]) -> None:
        """See `Backend`. Nothing is done ahead: what is measured is warmed up by its own first runs."""

    def close(self) -> None:
        """See `Backend`."""


class EagerPipeline:
    """From tweets to tags in PyTorch with the published transforms and pytorch-crf's decoding; see `Pipeline`.

    Every picture is computed, blank ones and those seen before included, as published.
    """

    def __init__(self, backend: EagerBackend, tokenizer: Tokenizer, spec: PictureSpec) -> None:
        self.backend, self._model, self.finder = backend, backend.model, None
        self._encoder = text_encoder(tokenizer, self._model.config)
        self._crop = transforms.Compose([transforms.Resize(spec.resize), transforms.CenterCrop(spec.crop)])
        self._scale = transforms.Compose([transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])
        self._blank = torch.zeros(3, spec.crop, spec.crop)

    @classmethod
    def load(cls, candidate: Candidate, bundle: Path, checkpoint: Path) -> Self:
        """As `EagerBackend.load`, with tokeniser and pixels as the bundle has them, whose files are not checked."""
        manifest = Manifest.from_dict(json.loads((bundle / "manifest.json").read_text("utf-8")))
        tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
        return cls(EagerBackend.load(candidate, manifest, checkpoint), tokenizer, manifest.preprocessing)

    def prepare(self, tweet: Tweet) -> tuple[Encoding, list[Image.Image | None]]:
        """Tokenise a tweet, and decode and resize the pictures that the model reads of it, None for blanks."""
        encoding, slots = encode(self._encoder, EntityExample(tweet, ())), self._model.config.pictures  # no gold tags
        whole = [tweet.image] if slots > MAX_OBJECTS else []
        return encoding, [self._open(each) for each in [*whole, *(tweet.objects or ()), *[None] * slots][:slots]]

    def run(self, batch: Sequence[tuple[Encoding, list[Image.Image | None]]]) -> list[list[int]]:
        """Decide on prepared tweets as one batch; returns `HVPNeT.decode`'s indices."""
        encodings, pictures = zip(*batch, strict=True)
        text = stack_texts(self._encoder, encodings, torch.device("cpu"))
        prefixes: list[list[Tensor]] = [[] for _ in batch]
        if slots := self._model.config.pictures:
            scaled = [self._blank if each is None else self._scale(each) for row in pictures for each in row]
            flat = self.backend.encode_pictures(torch.stack(scaled))  # of [B * pictures, 3, crop, crop]
            prefixes = [flat[start : start + slots] for start in range(0, len(flat), slots)]
        inputs = TextInputs(**{name: tensor.numpy() for name, tensor in text.items()})
        outputs = torch.from_numpy(self.backend.encode_text(inputs, prefixes))
        return self._model.decode(outputs, text["attention_mask"])

    def _open(self, picture: object) -> Image.Image | None:
        if picture is None:
            return None
        if not isinstance(picture, str | Path | bytes):
            raise PictureError(f"the published loaders read files, not {type(picture).__name__}: give a path or bytes")
        with Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            return cast("Image.Image", self._crop(image.convert("RGB")))
