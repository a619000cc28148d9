"""PyTorch, as the published code runs it: the baseline, and the reference for what other engines decide."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import hvpnet.modeling.torchvision_compat  # noqa: F401  before torchvision itself

# isort: split
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torchvision import transforms

from hvpnet.bench.stopwatch import Stopwatch
from hvpnet.modeling.checkpoint import load_checkpoint
from hvpnet.modeling.config import MAX_OBJECTS
from hvpnet.modeling.infer_config import Hints
from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.text_batches import text_encoder
from hvpnet_runtime.backends import Prefix, TextInputs
from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.errors import PictureError, TextError
from hvpnet_runtime.types import Picture, Span, Tweet

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def reduced_precision() -> str:
    """What one takes here to make PyTorch faster: FP16 on a GPU, bf16 on a CPU."""
    return "fp16" if torch.cuda.is_available() else "bf16"


def load_subject(bundle: Path, checkpoint: Path, precision: str, *, compiled: bool = False) -> "EagerSubject":
    """The checkpoint as a subject; tokeniser and pixels as the bundle has them, whose files are not checked here.

    Raises:
        CheckpointError: the checkpoint cannot be read, or is not the bundle's.
    """
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    backend = EagerBackend(load_checkpoint(checkpoint, Hints.of_bundle(manifest)), precision, compiled=compiled)
    spec = PictureSpec(**manifest["preprocessing"])
    return EagerSubject(backend, Tokenizer.from_file(str(bundle / "tokenizer.json")), spec)


class EagerBackend:
    """The checkpoint's model as an engine, on the GPU if there is one; see `hvpnet_runtime.backends.Backend`.

    Prefixes are tensors on the device.

    Args:
        model: in evaluation mode; converted in place, all but its CRF.
        precision: of its weights.
        compiled: through torch.compile, for any batch and length.
    """

    name = "eager"
    max_length: int | None = None

    def __init__(self, model: HVPNeT, precision: str = "fp32", *, compiled: bool = False) -> None:
        self.precision = precision
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model
        for name, module in self.model.named_children():
            if name != "crf":  # decoding is on the CPU, and needs its scores as they are
                module.to(self._device, _DTYPES[precision])
        self._pictures, self._text = self.model.encode_pictures, self.model.forward
        if compiled:
            self._pictures = torch.compile(self._pictures, dynamic=True)
            self._text = torch.compile(self._text, dynamic=True)

    @torch.inference_mode()
    def encode_pictures(self, images: npt.NDArray[np.float32]) -> list[Tensor]:
        """See `Backend`."""
        pixels = torch.from_numpy(images).to(self._device, _DTYPES[self.precision])  # [N, 3, side, side]
        prefixes = self._pictures(pixels)  # [N, layers, 2, P * hidden]
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
    """From tweets to tags in PyTorch with the published transforms and pytorch-crf's decoding; see `Subject`.

    Every picture is computed, blank ones and those seen before included, as published.

    Args:
        backend: the model.
        tokenizer: of the model, with markers if it classifies relations.
        spec: how pictures become pixels.
    """

    def __init__(self, backend: EagerBackend, tokenizer: Tokenizer, spec: PictureSpec) -> None:
        self._backend, self._model = backend, backend.model
        self._encoder = text_encoder(tokenizer, self._model.config)
        self._crop = transforms.Compose([transforms.Resize(spec.resize), transforms.CenterCrop(spec.crop)])
        self._scale = transforms.Compose([transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])
        self._blank = torch.zeros(3, spec.crop, spec.crop)
        self._watch = Stopwatch()

    def measure(self, tweets: list[Tweet]) -> dict[str, float]:
        """See `Subject`."""
        watch, slots = self._watch, self._model.config.pictures
        watch.restart()
        text = self._text_inputs(tweets)
        pictures = [[self._open(picture) for picture in _slots(tweet, slots)] for tweet in tweets]
        watch.lap("prepare")
        prefixes: list[list[Tensor]] = [[] for _ in tweets]
        if slots:
            pixels = [self._blank if each is None else self._scale(each) for row in pictures for each in row]
            images = torch.stack(pixels).numpy()  # [B * pictures, 3, crop, crop]
            watch.lap("normalise")
            flat = self._backend.encode_pictures(images)
            prefixes = [flat[start : start + slots] for start in range(0, len(flat), slots)]
            watch.lap("vision")
        outputs = self._backend.encode_text(text, prefixes)
        watch.lap("text")
        self._model.decode(torch.from_numpy(outputs), torch.from_numpy(text.attention_mask))
        watch.lap("decode")
        return watch.stages

    def close(self) -> None:
        """See `Subject`."""

    def _text_inputs(self, tweets: Sequence[Tweet]) -> TextInputs:
        config, encoder = self._model.config, self._encoder
        if config.task == "ner":
            return TextInputs(*encoder.pad([encoder.encode_entities(tweet.words or ()) for tweet in tweets]))
        encodings = [encoder.encode_relation(tweet.words or (), *_pair(tweet)) for tweet in tweets]
        markers = [
            np.array(positions, np.int64) if config.head == "markers" else None  # [B]
            for positions in ([each.head_index for each in encodings], [each.tail_index for each in encodings])
        ]
        return TextInputs(*encoder.pad(encodings), *markers)

    def _open(self, picture: Picture | None) -> Image.Image | None:
        if picture is None:
            return None
        if not isinstance(picture, str | Path | bytes):
            raise PictureError(f"the published loaders read files, not {type(picture).__name__}: give a path or bytes")
        with Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            cropped: Image.Image = self._crop(image.convert("RGB"))
        return cropped


def _slots(tweet: Tweet, count: int) -> list[Picture | None]:
    """The pictures that the model reads of a tweet, None for blanks."""
    given = [tweet.image] if count > MAX_OBJECTS else []
    pictures = [*given, *tweet.objects][:count]
    return [*pictures, *[None] * (count - len(pictures))]


def _pair(tweet: Tweet) -> tuple[Span, Span]:
    if tweet.head is None or tweet.tail is None:
        raise TextError("relation extraction needs head and tail")
    return tweet.head, tweet.tail
