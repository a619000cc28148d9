"""Whatever is done to a bundle, it answers or is refused by one line that names the file; nothing waits for ever."""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from rewrite import rewrite
from tiny_grounder import add_grounder

from hvpnet.cli import main
from hvpnet_runtime import BackendError, Bundle, BundleError, Pipeline, Tweet

pytestmark = pytest.mark.heavy

FILES = ("tokenizer.json", "decoder.npz", "blank.npz", "onnx/fp32/vision.onnx", "onnx/fp32/text.onnx")
BACKENDS = ("onnxruntime-cpu", "openvino")
TWEET = Tweet(text="Jordan was great today")


@pytest.fixture
def copy(ner_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ner_bundle, tmp_path / "bundle"))


@contextmanager
def no_hang() -> Iterator[None]:
    """Fails a test that waits for a pipe or a terminal; far from how long anything here takes."""

    def hangs(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(120)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(bundle: Path, backend: str = "onnxruntime-cpu") -> str:
    """Why the bundle does not load: one line of one kind."""
    with no_hang(), pytest.raises(BundleError) as caught:
        Pipeline.load(bundle, backend)
    assert type(caught.value) is BundleError
    assert "\n" not in str(caught.value)
    return str(caught.value)


def answers_or_is_refused(bundle: Path, tweet: Tweet = TWEET) -> None:
    with no_hang():
        try:
            pipeline = Pipeline.load(bundle, "onnxruntime-cpu", threads=1)
        except BundleError:
            return
        with pipeline:
            try:
                (result,) = pipeline([tweet])
            except BackendError:  # a graph that loads may still divide by zero
                return
            assert len(result.to_dict()["tags"]) == 4


# Files that are none


def to_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def to_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def to_terminal(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/ptmx")


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("change", [to_link, to_device, to_terminal, to_pipe, to_folder])
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_only_regular_files_are_read(copy: Path, name: str, change: Callable[[Path], None]) -> None:
    change(copy / name)
    message = refused(copy)
    assert str(copy / name) in message
    assert ("is a link" in message) == (copy / name).is_symlink()


def test_a_folder_on_the_way_that_is_a_link(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / "onnx", tmp_path / "elsewhere")
    (copy / "onnx").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refused(copy)


def test_the_bundle_itself_may_be_a_link(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(copy)
    assert Bundle.load(tmp_path / "current").read("decoder.npz") == (copy / "decoder.npz").read_bytes()


def test_what_the_manifest_does_not_list_is_not_read(copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"manifest\.json lists no notes\.txt: export the checkpoint again"):
        Bundle.load(copy).read("notes.txt")


# Files that change


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_changes_after_it_was_checked_is_not_used(
    copy: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Bundle.load

    def load_and_swap(path: Path) -> Bundle:
        bundle = load(path)
        changed = bytearray((copy / name).read_bytes())
        changed[-1] ^= 1
        (copy / name).write_bytes(changed)
        return bundle

    monkeypatch.setattr(Bundle, "load", load_and_swap)
    assert f"{copy / name} was changed" in refused(copy)


@pytest.mark.parametrize("backend", BACKENDS)
def test_graphs_are_loaded_from_the_bytes_that_were_read(
    copy: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Pipeline.load(copy, backend) as pipeline:
        expected = pipeline([TWEET])
    read = Bundle.graph

    def read_and_damage(bundle: Bundle, graph: Any, precision: str = "fp32") -> bytes:
        content = read(bundle, graph, precision)
        bundle.onnx(graph, precision).write_bytes(b"damaged")
        return content

    monkeypatch.setattr(Bundle, "graph", read_and_damage)
    with Pipeline.load(copy, backend) as pipeline:
        assert pipeline([TWEET]) == expected


# Graphs


def external(folder: Path, graph: Path) -> None:
    """Move the weights of a graph to a file beside it."""
    onnx.save(onnx.load(graph), graph, save_as_external_data=True, location="weights.bin", size_threshold=0)
    rewrite(folder, graph.relative_to(folder).as_posix(), graph.read_bytes())


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_in_another_file_are_refused(copy: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = copy / "onnx/fp32/text.onnx"
    external(copy, graph)
    monkeypatch.chdir(graph.parent)  # where runtimes look when a graph comes from memory
    assert f"{graph} takes weights from another file" in refused(copy, backend)


def test_weights_of_a_constant_or_in_a_branch_in_another_file_are_refused(copy: Path) -> None:
    """Tensors stand in attributes and in graphs within graphs, too."""
    outside = TensorProto(dims=[1], data_type=TensorProto.FLOAT, name="w", data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="weights.bin")
    constant = helper.make_node("Constant", [], ["c"], value=outside)
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])])
    choice = helper.make_node("If", ["condition"], ["chosen"], then_branch=branch, else_branch=branch)
    whole = (copy / "onnx/fp32/text.onnx").read_bytes()
    for node in (constant, choice):
        model = onnx.load_from_string(whole)
        model.graph.node.append(node)
        rewrite(copy, "onnx/fp32/text.onnx", model.SerializeToString())
        assert "takes weights from another file" in refused(copy)


def cut_labels(graph: onnx.GraphProto) -> None:
    """Emissions of twelve labels, whatever the file says of them."""
    graph.node.extend(
        [
            helper.make_node("Constant", [], ["twelve"], value_ints=[12]),
            helper.make_node("Constant", [], ["none"], value_ints=[0]),
            helper.make_node("Constant", [], ["last"], value_ints=[2]),
            helper.make_node("Slice", ["all_emissions", "none", "twelve", "last"], ["emissions"]),
        ]
    )
    for node in graph.node[:-1]:
        node.output[:] = ["all_emissions" if name == "emissions" else name for name in node.output]


def cast_output(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        node.output[:] = ["wide" if name == "emissions" else name for name in node.output]
    graph.node.append(helper.make_node("Cast", ["wide"], ["emissions"], to=TensorProto.DOUBLE))
    graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def drop_axis(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        node.output[:] = ["whole" if name == "emissions" else name for name in node.output]
    graph.node.append(helper.make_node("ReduceMax", ["whole"], ["emissions"], keepdims=0))
    del graph.output[0].type.tensor_type.shape.dim[:]


def second_output(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Identity", ["emissions"], ["more"]))
    graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))


def further_input(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    graph.node.append(helper.make_node("Identity", ["more"], ["unused"]))


def fixed_batch(graph: onnx.GraphProto) -> None:
    for tensor in (*graph.input, *graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "change",
    [cut_labels, cast_output, drop_axis, second_output, further_input, fixed_batch],
    ids=lambda each: each.__name__,
)
def test_graphs_with_other_inputs_or_outputs_are_refused(
    copy: Path, backend: str, change: Callable[[onnx.GraphProto], None]
) -> None:
    model = onnx.load(copy / "onnx/fp32/text.onnx")
    change(model.graph)
    rewrite(copy, "onnx/fp32/text.onnx", model.SerializeToString())
    assert "onnx/fp32/text.onnx" in refused(copy, backend)


def test_the_message_says_what_differs(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["labels"].append("B-TIME")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert refused(copy).endswith(
        "text.onnx: emissions is float32 [any, any, 13], the manifest's model has float32 [any, any, 14]:"
        " export the checkpoint again"
    )


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize("content", [b"", b"no protobuf", b"\x08\x0a\x12\xff"])
def test_files_that_are_no_graph(copy: Path, backend: str, content: bytes) -> None:
    rewrite(copy, "onnx/fp32/vision.onnx", content)
    assert "onnx/fp32/vision.onnx" in refused(copy, backend)


# The tokeniser


def set_part(*path: str, to: object) -> Callable[[Any], None]:
    def change(described: Any) -> None:
        for name in path[:-1]:
            described = described[name]
        described[path[-1]] = to

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_part("normalizer", to={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),  # the library panics
        set_part("pre_tokenizer", to={"type": "FixedLength", "length": 0}),  # it panics at the first text
        set_part("padding", to={"strategy": {"Fixed": 10**15}}),  # it ends the process
        set_part("model", "unk_token", to="[NOPE]"),
        set_part("model", to={"type": "BPE", "vocab": {"a": 0}, "merges": []}),
        set_part("model", to=None),
        set_part("model", "vocab", "extra", to=4_000_000_000),
        set_part("model", "vocab", "[PAD]", to=4_000_000_000),
        set_part("model", "max_input_chars_per_word", to=-1),
        set_part("added_tokens", to=3),
    ],
)
def test_tokenisers_that_the_library_cannot_take(copy: Path, change: Callable[[Any], None]) -> None:
    described = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    change(described)
    rewrite(copy, "tokenizer.json", json.dumps(described).encode())
    assert str(copy / "tokenizer.json") in refused(copy)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"null", b"\xff", b"[" * 100_000, b'{"model": "WordPiece"}'])
def test_files_that_are_no_tokeniser(copy: Path, content: bytes) -> None:
    rewrite(copy, "tokenizer.json", content)
    assert f"{copy / 'tokenizer.json'} is no BERT tokeniser" in refused(copy)


# The arrays


@pytest.mark.parametrize(("name", "array"), [("decoder.npz", "transitions"), ("blank.npz", "prefix")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_arrays_that_are_not_finite(copy: Path, name: str, array: str, value: float) -> None:
    with np.load(copy / name) as archive:
        arrays = dict(archive)
    arrays[array].flat[3] = value
    np.savez(copy / name, **arrays)
    rewrite(copy, name, (copy / name).read_bytes())
    assert f"{copy / name}: {array} contains NaN or infinity" in refused(copy)


def test_a_decoder_of_other_labels(copy: Path) -> None:
    np.savez(copy / "decoder.npz", **{name: np.zeros((12,) * rank, np.float32) for name, rank in SCORES.items()})
    rewrite(copy, "decoder.npz", (copy / "decoder.npz").read_bytes())
    assert "decoder.npz: start_transitions is float32 [12], the graphs read float32 [13]" in refused(copy)


SCORES = {"start_transitions": 1, "end_transitions": 1, "transitions": 2}


# Anything


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_damage_with_digests_that_agree(ner_bundle: Path, tmp_path: Path, seed: int) -> None:
    """Bits flipped, bytes lost and doubled, files cut and swapped."""
    choose = random.Random(seed)
    bundle = Path(shutil.copytree(ner_bundle, tmp_path / "bundle"))
    try:
        damage(bundle, [*FILES, "manifest.json"], choose)
        answers_or_is_refused(bundle)
    finally:
        shutil.rmtree(bundle)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), queries=st.sampled_from(["fixed", "text"]))
def test_damage_to_a_grounder_with_digests_that_agree(
    ner_bundle: Path, tmp_path: Path, seed: int, queries: str
) -> None:
    bundle = add_grounder(Path(shutil.copytree(ner_bundle, tmp_path / "bundle")), queries)
    own = ["grounder.npz"] if queries == "fixed" else ["grounder_tokenizer.json", "onnx/fp32/queries.onnx"]
    try:
        damage(bundle, [*own, "onnx/fp32/grounder.onnx", "manifest.json"], random.Random(seed))
        answers_or_is_refused(bundle, replace(TWEET, image=np.full((40, 50, 3), 90, np.uint8)))
    finally:
        shutil.rmtree(bundle)


def damage(bundle: Path, files: Sequence[str], choose: random.Random) -> None:
    """Damage one of the files, but for its digest."""
    name = choose.choice(files)
    content = bytearray((bundle / name).read_bytes())
    at = choose.randrange(min(len(content), 60_000))  # nodes and headers come first, weights after them
    length, way = choose.randrange(1, 20), choose.choice(("flip", "lose", "double", "cut", "swap"))
    if way == "flip":
        content[at] ^= 1 << choose.randrange(8)
    elif way == "lose":
        del content[at : at + length]
    elif way == "double":
        content[at:at] = content[at : at + length]
    elif way == "cut":
        del content[at:]
    else:
        content[:] = (bundle / choose.choice(FILES)).read_bytes()
    if name == "manifest.json":
        (bundle / name).write_bytes(content)
    else:
        rewrite(bundle, name, bytes(content))


# The command


@pytest.mark.parametrize("verb", ["inspect", "predict", "triton"])
def test_the_command_says_it_in_one_line(copy: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    to_pipe(copy / "decoder.npz")
    more = {"predict": ["--text", "Jordan"], "triton": [str(copy.with_name("out"))]}.get(verb, [])
    with no_hang():
        assert main([verb, str(copy), *more]) == 1
    *progress, error = capsys.readouterr().err.splitlines()
    assert all(line.endswith(" ...") for line in progress)
    assert error.startswith("hvpnet: error: ")
    assert "decoder.npz" in error
