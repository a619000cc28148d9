"""PyTorch in the published way gives the answers that it is timed for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from hvpnet import HVPNeT
from hvpnet.bench.candidates import BASELINE
from hvpnet.bench.eager import EagerBackend, EagerPipeline, reduced_precision
from hvpnet.bench.stopwatch import STAGES, Stopwatch
from hvpnet.bench.workload import Case, Workload
from hvpnet.modeling.checkpoint import save_checkpoint
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.errors import PictureError
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.types import Tweet

pytestmark = pytest.mark.heavy


@pytest.fixture
def tweets(ner_bundle: Path) -> list[Tweet]:
    return Workload(ner_bundle).tweets(Case(2, 12), 0)


def answer(pipeline: EagerPipeline, tweets: list[Tweet]) -> list[list[int]]:
    return pipeline.run([pipeline.prepare(tweet) for tweet in tweets])


class Recorder:
    """Remembers what goes through a backend."""

    def __init__(self, backend) -> None:
        self.backend, self.images, self.outputs = backend, [], []

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def encode_pictures(self, images):
        self.images.append(images)
        return self.backend.encode_pictures(images)

    def encode_text(self, text, prefixes):
        self.outputs.append(self.backend.encode_text(text, prefixes))
        return self.outputs[-1]


@pytest.mark.parametrize(
    ("task", "variant"), [("ner", "full"), ("re", "full"), ("ner", "only_obj"), ("ner", "text_only")]
)
def test_the_published_way_and_the_runtime_answer_alike(
    task: str, variant: str, make_model: Callable[..., HVPNeT], bundle_of: Callable[..., Path]
) -> None:
    """The same pixels to the bit, and the same emissions."""
    path = bundle_of(task, variant)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    shown = Workload(path).tweets(Case(2, 14, "one new, no objects" if variant == "full" else "all new"), 1)
    eager = Recorder(EagerBackend(make_model(task, variant)))
    stages = Stopwatch(EagerPipeline(eager, tokenizer, PictureSpec())).measure(shown)
    assert set(stages) == set(STAGES)
    with Pipeline.load(path) as pipeline:
        pipeline.backend = runtime = Recorder(pipeline.backend)
        pipeline(shown)
    np.testing.assert_allclose(runtime.outputs[0], eager.outputs[0], atol=2e-3)
    if variant == "text_only":
        assert not eager.images
    else:
        distinct = {image.numpy().tobytes() for image in eager.images[0] if image.any()}
        assert distinct == {image.numpy().tobytes() for image in normalise(torch.from_numpy(runtime.images[0]))}


def test_loaded_from_the_disk(ner_model: HVPNeT, ner_bundle: Path, tweets: list[Tweet], tmp_path: Path) -> None:
    checkpoint = save_checkpoint(ner_model, tmp_path / "checkpoint")
    stages = Stopwatch(EagerPipeline.load(BASELINE, ner_bundle, checkpoint)).measure(tweets)
    assert all(stages[stage] > 0 for stage in ("vision", "text"))


def test_reduced_precision_is_near(make_model: Callable[..., HVPNeT], ner_bundle: Path, tweets: list[Tweet]) -> None:
    """bf16 carries 8 bits; the CRF keeps its own precision."""
    tokenizer = Tokenizer.from_file(str(ner_bundle / "tokenizer.json"))
    full, reduced = (
        Recorder(EagerBackend(make_model("ner", spread=1), precision)) for precision in ("fp32", reduced_precision())
    )
    for backend in (full, reduced):
        answer(EagerPipeline(backend, tokenizer, PictureSpec()), tweets)
    assert reduced.model.bert.embeddings.word_embeddings.weight.dtype in (torch.bfloat16, torch.float16)
    assert reduced.model.crf.transitions.dtype == torch.float32
    error = np.abs(full.outputs[0] - reduced.outputs[0]).max()
    assert 0 < error < 0.2


def test_compiled_for_any_shape(make_model: Callable[..., HVPNeT], monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda call, dynamic: compiled.append((call.__name__, dynamic)) or call)
    EagerBackend(make_model("ner"), compiled=True)
    assert compiled == [("encode_pictures", True), ("forward", True)]


def test_the_published_loaders_read_files(ner_model: HVPNeT, ner_bundle: Path) -> None:
    tokenizer = Tokenizer.from_file(str(ner_bundle / "tokenizer.json"))
    pipeline = EagerPipeline(EagerBackend(ner_model), tokenizer, PictureSpec())
    with pytest.raises(PictureError, match="path or bytes"):
        pipeline.prepare(Tweet(words=["a"], image=np.zeros((4, 4, 3), np.uint8)))
