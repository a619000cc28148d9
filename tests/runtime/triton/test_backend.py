"""The pipeline over models of a server: what they are asked, and that its answers are its own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvpnet_runtime import BackendError, Pipeline, Tweet
from hvpnet_runtime.backends import TextInputs
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import RepositoryError
from hvpnet_runtime.prefix_cache import PrefixCache
from hvpnet_runtime.preprocessing.prepare import Preparer
from hvpnet_runtime.triton.backend import TritonBackend
from hvpnet_runtime.triton.settings import TRITON, Settings

pytestmark = pytest.mark.heavy

LENGTHS = (8, 16, 32, 64)
SETTINGS = Settings(TRITON, precision="fp32", lengths=LENGTHS)
WORDS = ("Anna", "saw", "Rome", "and", "nobody")


class Models:
    """Runs the graphs as the server would, and keeps the shapes that it was asked for."""

    def __init__(self, bundle: Bundle) -> None:
        self.asked: list[tuple[str, dict[str, tuple[int, ...]]]] = []
        graphs = ("vision", "text") if bundle.sizes.pictures else ("text",)
        self.sessions = {f"m_{graph}": ort.InferenceSession(bundle.onnx(graph)) for graph in graphs}

    def __call__(self, model: str, inputs: Mapping[str, Any], output: str) -> Any:
        self.asked.append((model, {name: array.shape for name, array in inputs.items()}))
        feeds = {
            name: array.reshape(len(array)) if name.endswith("_index") else array for name, array in inputs.items()
        }
        (array,) = self.sessions[model].run([output], feeds)
        return array


def pipeline_over(bundle: Bundle, settings: Settings, models: Models) -> Pipeline:
    """Models that take four texts at most."""
    return Pipeline(bundle, TritonBackend(bundle, "m", 4, settings, models), Preparer(bundle), PrefixCache(2**20))


@pytest.fixture(
    scope="module", params=[("ner", "full", "markers"), ("re", "full", "markers"), ("ner", "text_only", "markers")]
)
def both(request: pytest.FixtureRequest, bundle_of: Callable[..., Path]) -> tuple[Pipeline, Pipeline, Models]:
    """The pipeline itself, and over the models of a server."""
    bundle = Bundle.load(bundle_of(*request.param))
    models = Models(bundle)
    over = pipeline_over(bundle, SETTINGS, models)
    return Pipeline.load(bundle.path, "onnxruntime-cpu"), over, models


TWEETS = st.builds(
    Tweet,
    words=st.lists(st.sampled_from(WORDS), min_size=2, max_size=16),
    image=st.sampled_from([None, *np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), np.uint8)]),
    head=st.just((0, 1)),
    tail=st.just((1, 2)),
)


@settings(max_examples=20, deadline=None)
@given(tweets=st.lists(TWEETS, min_size=1, max_size=9))
def test_answers_are_the_pipelines(both: Any, tweets: list[Tweet]) -> None:
    pipeline, over, models = both
    models.asked.clear()
    prepared = [pipeline.prepare(tweet) for tweet in tweets]
    expected, found = pipeline.run(prepared), over.run(prepared)
    for mine, theirs in zip(found, expected, strict=True):
        if hasattr(mine, "tags"):
            assert (mine.tags, mine.cut_words) == (theirs.tags, theirs.cut_words)
            assert [each.score for each in mine.entities] == pytest.approx(
                [each.score for each in theirs.entities], abs=1e-4
            )
        else:
            assert (mine.relation, mine.score) == (theirs.relation, pytest.approx(theirs.score, abs=1e-4))
    texts = [shapes["input_ids"] for model, shapes in models.asked if model == "m_text"]
    longest = max(len(encoding.input_ids) for each in prepared for encoding in each.encodings)
    bucket = next(length for length in LENGTHS if length >= longest)
    assert {length for _, length in texts} == {bucket}
    assert [rows for rows, _ in texts] == [min(4, len(tweets) - start) for start in range(0, len(tweets), 4)]


def test_padding_is_masked(bundle_of: Callable[..., Path]) -> None:
    bundle = Bundle.load(bundle_of("ner", "text_only"))
    seen: dict[str, Any] = {}

    def infer(model: str, inputs: Mapping[str, Any], output: str) -> Any:
        seen.update(inputs)
        return np.zeros((*inputs["input_ids"].shape, len(bundle.labels)), np.float32)

    ids = np.array([[5, 6, 7], [5, 7, 0]])
    mask = np.array([[1, 1, 1], [1, 1, 0]])
    output = TritonBackend(bundle, "m", 4, SETTINGS, infer).encode_text(TextInputs(ids, mask), [[], []])
    assert output.shape == (2, 3, len(bundle.labels))
    assert seen["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]
    assert seen["input_ids"].tolist() == [[5, 6, 7, 0, 0, 0, 0, 0], [5, 7, 0, 0, 0, 0, 0, 0]]


def test_a_text_beyond_the_longest_bucket(bundle_of: Callable[..., Path]) -> None:
    bundle = Bundle.load(bundle_of("ner", "text_only"))
    short = Settings(TRITON, precision="fp32", lengths=(4, 8))
    pipeline = pipeline_over(bundle, short, Models(bundle))
    with pytest.raises(BackendError, match=r"m_text takes up to 8 pieces, not 42: .*--max-seq"):
        pipeline([Tweet(words=["Anna"] * 10)])


@pytest.mark.parametrize(
    "settings", [Settings(), Settings("onnxruntime-cpu", window=True, cache_mib=0), SETTINGS], ids=lambda s: s.backend
)
def test_settings_survive_the_configuration(settings: Settings) -> None:
    assert Settings.from_parameters(settings.to_parameters()) == settings


@pytest.mark.parametrize(
    "changed",
    [
        {"window": "yes"},
        {"cache_mib": "many"},
        {"windows": "true"},
        {"backend": TRITON, "precision": "fp32", "lengths": ""},
        {"backend": TRITON, "precision": "fp32", "lengths": "8,a"},
        {"backend": TRITON, "precision": "fp32", "lengths": "16,8"},
        {"lengths": "8"},
    ],
)
def test_settings_that_were_edited_wrongly(changed: dict[str, str]) -> None:
    with pytest.raises(RepositoryError, match=r"config\.pbtxt"):
        Settings.from_parameters(Settings().to_parameters() | changed)
