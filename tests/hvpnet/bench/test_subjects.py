"""What is timed gives the answers that it is timed for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from hvpnet import HVPNeT
from hvpnet.bench.eager import EagerBackend, EagerSubject, load_subject, reduced_precision
from hvpnet.bench.runtime import RuntimeSubject
from hvpnet.bench.runtime import load_subject as load_runtime
from hvpnet.bench.subjects import BASELINE, STAGES, Variant, find_variants
from hvpnet.bench.workload import Case, Workload
from hvpnet.modeling.checkpoint import save_checkpoint
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_runtime.bundle import Bundle, PictureSpec
from hvpnet_runtime.errors import BundleError, PictureError
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.types import Tweet

pytestmark = pytest.mark.heavy

RUNTIME = Variant("onnxruntime-cpu", "fp32")


@pytest.fixture
def tweets(ner_bundle: Path) -> list[Tweet]:
    return Workload(ner_bundle).tweets(Case(2, 12), 0)


class Recorder:
    """Remembers what goes through a backend."""

    def __init__(self, backend) -> None:
        self.backend, self.images, self.outputs = backend, [], []

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def encode_pictures(self, images):
        self.images.append(images)
        return self.backend.encode_pictures(images)

    def encode_normalised(self, images):
        self.images.append(images)
        return self.backend.encode_normalised(images)

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
    stages = EagerSubject(eager, tokenizer, PictureSpec()).measure(shown)
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


def test_a_runtime_subject_passes_every_stage(ner_bundle: Path, tweets: list[Tweet]) -> None:
    subject = load_runtime(RUNTIME, ner_bundle, Path("no-checkpoint"))
    first = subject.measure(tweets)
    assert all(first[stage] > 0 for stage in STAGES)
    again = subject.measure(tweets)
    assert again["vision"] == 0  # every picture was in the cache
    assert all(again[stage] > 0 for stage in STAGES if stage != "vision")


def test_a_watched_pipeline_answers_as_before(ner_bundle: Path, tweets: list[Tweet]) -> None:
    with Pipeline.load(ner_bundle) as pipeline:
        answers = pipeline(tweets)
        subject = RuntimeSubject(pipeline)
        subject.measure(tweets)
        assert pipeline(tweets) == answers


def test_a_subject_loaded_from_the_disk(
    ner_model: HVPNeT, ner_bundle: Path, tweets: list[Tweet], tmp_path: Path
) -> None:
    checkpoint = save_checkpoint(ner_model, tmp_path / "checkpoint")
    stages = load_subject(BASELINE, ner_bundle, checkpoint).measure(tweets)
    assert all(stages[stage] > 0 for stage in ("vision", "text"))


def test_reduced_precision_is_near(make_model: Callable[..., HVPNeT], ner_bundle: Path, tweets: list[Tweet]) -> None:
    """bf16 carries 8 bits; the CRF keeps its own precision."""
    tokenizer = Tokenizer.from_file(str(ner_bundle / "tokenizer.json"))
    full, reduced = (
        Recorder(EagerBackend(make_model("ner", spread=1), precision)) for precision in ("fp32", reduced_precision())
    )
    for backend in (full, reduced):
        EagerSubject(backend, tokenizer, PictureSpec()).measure(tweets)
    assert reduced.model.bert.embeddings.word_embeddings.weight.dtype in (torch.bfloat16, torch.float16)
    assert reduced.model.crf.transitions.dtype == torch.float32
    error = np.abs(full.outputs[0] - reduced.outputs[0]).max()
    assert 0 < error < 0.2


def test_compiled_for_any_shape(make_model: Callable[..., HVPNeT], monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda call, dynamic: compiled.append((call.__name__, dynamic)) or call)
    EagerBackend(make_model("ner"), compiled=True)
    assert compiled == [("encode_pictures", True), ("forward", True)]


def test_only_the_precision_asked_for(bundle_of: Callable[..., Path]) -> None:
    path = bundle_of("ner", "full", "markers", ("fp32", "fp16"))
    for precision in ("fp32", "fp16"):
        subject = load_runtime(Variant("onnxruntime-cpu", precision), path, path)
        assert subject._pipeline.backend.precision == precision
    with pytest.raises(BundleError, match="int8"):
        load_runtime(Variant("onnxruntime-cpu", "int8"), path, path)


def test_the_published_loaders_read_files(ner_model: HVPNeT, ner_bundle: Path) -> None:
    tokenizer = Tokenizer.from_file(str(ner_bundle / "tokenizer.json"))
    subject = EagerSubject(EagerBackend(ner_model), tokenizer, PictureSpec())
    with pytest.raises(PictureError, match="path or bytes"):
        subject.measure([Tweet(words=["a"], image=np.zeros((4, 4, 3), np.uint8))])


def test_variants(bundle_of: Callable[..., Path]) -> None:
    bundle = Bundle.load(bundle_of("ner", "full", "markers", ("fp32", "fp16")))
    assert find_variants(bundle.manifest.precision, "bf16", ["a", "b"]) == [
        BASELINE,
        Variant("eager", "bf16"),
        Variant("torch.compile", "fp32"),
        *(Variant(backend, precision) for backend in "ab" for precision in ("fp32", "fp16")),
    ]
    assert Variant("openvino", "bf16") in find_variants(bundle.manifest.precision, "bf16", ["openvino"])
    assert [each.is_pytorch for each in find_variants(bundle.manifest.precision, "bf16", ["a"])] == [True] * 3 + [
        False
    ] * 2
