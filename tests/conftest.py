"""Tiny models of every kind, and bundles of them, made once per test session."""

import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from places import SHARED

from hvpnet import BertConfig, HVPNeT, HVPNeTConfig, ResNetConfig
from hvpnet.data import (
    NER_LABELS,
    Sizes,
    SplitFiles,
    load_split,
    read_split,
    write_picture_tweets,
    write_tokenizer,
)
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_runtime import Tweet
from hvpnet_runtime.backends.cuda import find_device
from hvpnet_runtime.bundle import QUANTISED, Head, Precision, Task, Variant

RELATIONS = ("/per/per/couple", "/per/per/peer", "/per/org/member_of", "/per/loc/place_of_residence", "None")


_HEAVY_MODULE = re.compile(r"^pytestmark = .*pytest\.mark\.heavy", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Heavy modules are not even imported where they are left out: half of the seconds of `make check` went there."""
    if config.option.markexpr != "not heavy" or collection_path.suffix != ".py":
        return None
    return bool(_HEAVY_MODULE.search(collection_path.read_text("utf-8"))) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Golden tests run wherever the golden cases are, GPU tests wherever a GPU is; only elsewhere they cannot."""
    missing = {} if SHARED.is_dir() else {"golden": f"no golden cases at {SHARED}"}
    if find_device() is None:
        missing["gpu"] = "no NVIDIA GPU"
    for item in items:
        for mark, reason in missing.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden cases and real tweets."""
    return SHARED


@pytest.fixture(scope="session")
def golden_tweets(shared: Path) -> Callable[[Task], list[Tweet]]:
    """The real tweets of the golden cases; a picture that cannot be read is inf.png, as published."""
    root = shared / "golden/tweets"
    pictures = (root / "images", root / "crops")
    files = {
        "ner": SplitFiles(root / "ner.txt", *pictures, root / "ner_dict.pth"),
        "re": SplitFiles(root / "mre.txt", *pictures, root / "mre_dict.pth", root / "rel2id.json"),
    }
    return lambda task: [example.tweet for example in read_split(files[task], "substitute").examples]


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a port of this machine at which nothing listens."""

    def find() -> int:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port: int = bound.getsockname()[1]
            return port

    return find


@pytest.fixture(scope="session")
def assert_equal() -> Callable[..., None]:
    """Answers as JSON: the same decisions, and scores that differ by the rounding of another batch at most."""

    def check(found: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]], atol: float = 1e-5) -> None:
        assert list(map(_without_scores, found)) == list(map(_without_scores, expected))
        scores = [[score for answer in answers for score in _scores(answer)] for answers in (found, expected)]
        np.testing.assert_allclose(*scores, rtol=0, atol=atol)

    return check


def _scored(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The entities, or the relation."""
    return answer.get("entities", [answer])


def _scores(answer: dict[str, Any]) -> list[float]:
    return [each["score"] for each in _scored(answer)]


def _without_scores(answer: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in answer.items() if key != "score"}
    if "entities" in plain:
        plain["entities"] = [{**entity, "score": None} for entity in plain["entities"]]
    return plain


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT vocabulary."""
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def make_model(tokenizer_dir: Path) -> Callable[..., HVPNeT]:
    """Tiny models with random weights, in evaluation mode; weights spread so that decisions differ between inputs."""

    def make(
        task: Task = "ner", variant: Variant = "full", head: Head = "markers", seed: int = 0, spread: float = 3
    ) -> HVPNeT:
        torch.manual_seed(seed)
        config = HVPNeTConfig(
            task=task,
            labels=NER_LABELS if task == "ner" else RELATIONS,
            bert=BertConfig(
                vocab_size=load_tokenizer(tokenizer_dir, task).get_vocab_size(),
                hidden_size=128,
                num_hidden_layers=4,
                num_attention_heads=2,
                intermediate_size=256,
                max_position_embeddings=96,
            ),
            resnet=None if variant == "text_only" else ResNetConfig(block="basic", layers=(1, 1, 1, 1)),
            variant=variant,
            head=head,
            projection_size=48,
            max_length=64,
        )
        model = HVPNeT(config)
        with torch.no_grad():
            for parameter in (
                *model.bert.parameters(),
                *(model.fc if task == "ner" else model.classifier).parameters(),
            ):
                if parameter.dim() > 1:
                    parameter.normal_(std=spread / parameter.shape[-1] ** 0.5)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def quantisable(make_model: Callable[..., HVPNeT]) -> Callable[..., HVPNeT]:
    """Tiny models for INT8. Weights as spread as those of `make_model` amplify rounding as no
    trained model does, and with other seeds two relations of a tweet are as good as equal.
    """
    return lambda task, *kind: make_model(task, *kind, seed=2 if task == "re" else 0, spread=1)


@pytest.fixture(scope="session")
def ner_model(make_model: Callable[..., HVPNeT]) -> HVPNeT:
    return make_model("ner")


@pytest.fixture(scope="session")
def re_model(make_model: Callable[..., HVPNeT]) -> HVPNeT:
    return make_model("re")


@pytest.fixture(scope="session")
def shared_tmp(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that the processes of one test run share."""
    root = tmp_path_factory.getbasetemp()
    return root if worker_id == "master" else root.parent


@pytest.fixture(scope="session")
def picture_tweets(shared_tmp: Path) -> Callable[[Task], Path]:
    """A few generated tweets with pictures, drawn once."""

    def data(task: Task = "ner") -> Path:
        out = shared_tmp / f"picture-tweets-{task}"
        with FileLock(out.with_suffix(".lock")):
            if not out.exists():
                write_picture_tweets(out, task, Sizes(train=12, dev=1, test=24))
        return out

    return data


@pytest.fixture(scope="session")
def bundle_of(
    make_model: Callable[..., HVPNeT],
    quantisable: Callable[..., HVPNeT],
    tokenizer_dir: Path,
    picture_tweets: Callable[[Task], Path],
    shared_tmp: Path,
) -> Callable[..., Path]:
    """A bundle of `make_model(task, variant, head)`, exported once; tests that damage one work on a copy."""

    def bundle(
        task: Task = "ner",
        variant: Variant = "full",
        head: Head = "markers",
        precisions: tuple[Precision, ...] = ("fp32",),
    ) -> Path:
        from hvpnet_export import CalibrationData, export_bundle  # which takes seconds

        out = shared_tmp / "bundles" / "-".join((task, variant, head, *precisions))
        out.parent.mkdir(exist_ok=True)
        with FileLock(out.with_suffix(".lock")):
            if not out.exists():
                model = make_model(task, variant, head) if precisions == ("fp32",) else quantisable(task, variant, head)
                data = None
                if QUANTISED.keys() & precisions:
                    data = CalibrationData.choose(load_split(picture_tweets(task), "train"), model.config)
                tokenizer = load_tokenizer(tokenizer_dir, task)
                export_bundle(model, tokenizer, out, precisions=precisions, calibration=data)
        return out

    return bundle


@pytest.fixture(scope="session")
def ner_bundle(bundle_of: Callable[..., Path]) -> Path:
    """A bundle of `ner_model`."""
    return bundle_of("ner")


@pytest.fixture(scope="session")
def re_bundle(bundle_of: Callable[..., Path]) -> Path:
    """A bundle of `re_model`."""
    return bundle_of("re")


TINY_BERT = BertConfig(
    vocab_size=60,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=40,
    max_position_embeddings=24,
)


@pytest.fixture(scope="session")
def random_model() -> Callable[..., HVPNeT]:
    """Tiny models of any sizes, `bert=` as a mapping; no tensor is neutral: batch norm, gates and CRF are drawn too."""

    def make(
        task: Task = "ner", variant: Variant = "full", head: Head = "markers", seed: int = 0, **sizes: Any
    ) -> HVPNeT:
        tiny = HVPNeTConfig(
            task=task,
            labels=NER_LABELS if task == "ner" else RELATIONS,
            bert=replace(TINY_BERT, **sizes.pop("bert", {})),
            resnet=None if variant == "text_only" else ResNetConfig(block="basic", layers=(1, 1, 1, 1)),
            variant=variant,
            head=head,
            projection_size=HVPNeTConfig.projection_size if variant == "text_only" else 16,
            max_length=24,
        )
        torch.manual_seed(seed)
        model = HVPNeT(replace(tiny, **sizes))
        for name, tensor in model.state_dict().items():
            _draw(name, tensor)
        return model.eval()

    return make


def _draw(name: str, tensor: torch.Tensor) -> None:
    if not tensor.is_floating_point():
        return
    if name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):  # also scales of norms
        tensor.uniform_(0.5, 1.5)
    elif tensor.dim() == 1 or name.startswith("crf."):
        tensor.normal_(std=0.3)
    else:
        tensor.normal_(std=1.5 / tensor[0].numel() ** 0.5)
