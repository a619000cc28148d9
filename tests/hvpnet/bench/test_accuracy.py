"""F1 beside speed: the same scores as `hvpnet evaluate` and `hvpnet.evaluation.eager`, and every difference counted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from hvpnet import HVPNeT
from hvpnet.bench.accuracy import Accuracy, assess
from hvpnet.bench.candidates import BASELINE, Candidate
from hvpnet.data import Sizes, load_split, write_picture_tweets
from hvpnet.errors import DataError
from hvpnet.evaluation.eager import evaluate
from hvpnet.modeling.checkpoint import save_checkpoint
from hvpnet.modeling.config import Task
from hvpnet_runtime.backends import BACKENDS
from hvpnet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from hvpnet_runtime.bundle import Bundle

pytestmark = pytest.mark.heavy

RUNTIME = Candidate("onnxruntime-cpu", "fp32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Task], Path]:
    folder = tmp_path_factory.mktemp("data")
    for task in ("ner", "re"):
        write_picture_tweets(folder / task, task, Sizes(train=2, dev=1, test=5))
    return lambda task: folder / task


def run(task: Task, data: Path, bundle: Path, model: HVPNeT, folder: Path, *candidates: Candidate) -> list[Accuracy]:
    checkpoint = save_checkpoint(model, folder / "checkpoint")
    return list(assess(Bundle.load(bundle), checkpoint, load_split(data, "test"), candidates, lambda _: None))


@pytest.mark.parametrize("task", ["ner", "re"])
def test_scores_are_those_of_the_eager_model(
    task: Task,
    data: Callable[[Task], Path],
    make_model: Callable[..., HVPNeT],
    bundle_of: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder, bundle, model = data(task), bundle_of(task), make_model(task)
    eager, reduced, runtime = run(task, folder, bundle, model, tmp_path, Candidate("eager", "bf16"), RUNTIME)
    assert [each.candidate for each in (eager, reduced, runtime)] == [BASELINE, Candidate("eager", "bf16"), RUNTIME]
    split = load_split(folder, "test")
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    assert eager.scores == runtime.scores == evaluate(model, tokenizer, split.examples)
    assert (eager.differing, runtime.differing, runtime.margins, runtime.agreement, runtime.change) == (0, 0, (), 1, 0)
    pieces = sum(len(tokenizer.encode(list(each.tweet.words), is_pretokenized=True).ids) for each in split.examples)
    assert eager.decisions == reduced.decisions == (pieces if task == "ner" else 5)


def test_disagreements_are_counted_with_their_margins(
    data: Callable[[Task], Path],
    re_model: HVPNeT,
    re_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backend that negates its logits picks the worst relation: the margin is the whole range of the logits."""
    seen: list[np.ndarray] = []

    class Negated(OnnxRuntimeBackend):
        def encode_text(self, text, prefixes):
            seen.append(super().encode_text(text, prefixes))
            return -seen[-1]

    monkeypatch.setitem(BACKENDS, "onnxruntime-cpu", lambda bundle, *_: Negated(bundle))
    _, runtime = run("re", data("re"), re_bundle, re_model, tmp_path, RUNTIME)
    assert (runtime.decisions, runtime.differing, runtime.agreement) == (5, 5, 0)
    assert runtime.margin == runtime.margins[0]
    ranges = np.concatenate(seen).max(1) - np.concatenate(seen).min(1)
    np.testing.assert_allclose(runtime.margins, sorted(ranges, reverse=True), atol=5e-3)


def test_data_of_the_other_task(
    data: Callable[[Task], Path], re_model: HVPNeT, re_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="the data are for task ner, the bundle is for re"):
        run("ner", data("ner"), re_bundle, re_model, tmp_path)
