"""The TensorRT backend: right answers, one graph a request, nothing recomputed, nothing leaked; fake GPU, real results.

Tests that take `gpu_platform` run on a real GPU too, where there is one.
"""

import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_gpu import FAKE_GPU, FakeCuda, fake_api, write_fake_engines

from hvpnet_runtime import BackendError, Bundle, BundleError, EntityResult, Pipeline, Tweet
from hvpnet_runtime.backends import TextInputs, load_backend
from hvpnet_runtime.backends.cuda import Cuda
from hvpnet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from hvpnet_runtime.backends.tensorrt.backend import TensorRTBackend
from hvpnet_runtime.backends.tensorrt.build import BuildOptions, build_engines
from hvpnet_runtime.backends.tensorrt.library import Library
from hvpnet_runtime.backends.tensorrt.record import find_engine
from hvpnet_runtime.bundle import FileDigest, sha256
from hvpnet_runtime.errors import MissingExtraError, StaleEngineError

pytestmark = pytest.mark.heavy

LOADED = [("ner", "full"), ("re", "full"), ("ner", "text_only"), ("ner", "only_obj")]


@dataclass
class Platform:
    """A device, a library, and a way to put engines into a bundle."""

    cuda: Cuda
    api: Library
    build: Callable[[Bundle], Path]

    def load(self, bundle: Bundle, **options: Any) -> TensorRTBackend:
        return TensorRTBackend(bundle, self.api.engine, cuda=self.cuda, api=self.api, **options)


@pytest.fixture
def fake() -> Platform:
    cuda = FakeCuda()
    api = fake_api(cuda)
    return Platform(cuda, api, lambda bundle: write_fake_engines(bundle, api))


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.gpu)])
def gpu_platform(request: pytest.FixtureRequest, fake: Platform) -> Platform:
    if request.param == "fake":
        return fake
    from hvpnet_runtime.backends.tensorrt.library import load_library

    try:
        api = load_library("tensorrt")
    except MissingExtraError:
        try:
            api = load_library("tensorrt-rtx")
        except MissingExtraError as error:
            pytest.skip(str(error))
    options = BuildOptions(api.engine, precision="fp32", max_batch=4)
    return Platform(Cuda(), api, lambda bundle: build_engines(bundle, options))


@pytest.fixture
def copy_of(bundle_of: Callable[..., Path], tmp_path: Path) -> Callable[..., Bundle]:
    def make(task: str = "ner", variant: str = "full", **options: Any) -> Bundle:
        out = tmp_path / f"{task}-{variant}"
        shutil.copytree(bundle_of(task, variant, **options), out)
        return Bundle.load(out)

    return make


@pytest.fixture
def bundle(copy_of: Callable[..., Bundle]) -> Bundle:
    return copy_of()


@pytest.fixture
def backend(fake: Platform, bundle: Bundle) -> Iterator[TensorRTBackend]:
    fake.build(bundle)
    loaded = fake.load(bundle)
    yield loaded
    loaded.close()


def images(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, 224, 224, 3), np.uint8)


def texts(bundle: Bundle, rows: int, length: int) -> TextInputs:
    rng = np.random.default_rng(rows + 10 * length)
    lengths = np.maximum(3, length - 4 * np.arange(rows))
    mask = (np.arange(length)[None] < lengths[:, None]).astype(np.int64)
    ids = rng.integers(1, bundle.sizes.vocabulary, (rows, length)) * mask
    if bundle.manifest.head != "markers":
        return TextInputs(ids, mask)
    return TextInputs(ids, mask, np.ones(rows, np.int64), lengths - 1)


def compared(bundle: Bundle, text: TextInputs, outputs: Any) -> Any:
    return outputs[text.attention_mask == 1] if bundle.task == "ner" else outputs


@pytest.mark.parametrize("kind", LOADED, ids="-".join)
def test_answers_as_onnx_runtime(gpu_platform: Platform, copy_of: Any, kind: tuple[str, str]) -> None:
    """Bucket boundaries, more rows and more pictures than one run takes, twice: first captured, then replayed."""
    bundle = copy_of(*kind)
    gpu_platform.build(bundle)
    reference, backend = OnnxRuntimeBackend(bundle), gpu_platform.load(bundle)
    slots, found, expected = bundle.sizes.pictures, [], []
    for count in (1, 3, 5) if slots else ():
        pictures = images(count, count)
        found += backend.encode_pictures(pictures)
        expected += reference.encode_pictures(pictures)
    for _ in range(2):
        for rows, length in [(1, 3), (1, 32), (2, 33), (3, 64), (7, 20)]:
            text = texts(bundle, rows, length)
            places = np.random.default_rng(rows).integers(0, len(found), (rows, slots)) if slots else [[]] * rows
            answer = backend.encode_text(text, [[found[place] for place in row] for row in places])
            right = reference.encode_text(text, [[expected[place] for place in row] for row in places])
            assert answer.shape == right.shape
            assert answer.dtype == np.float32
            np.testing.assert_allclose(
                compared(bundle, text, answer), compared(bundle, text, right), rtol=2e-4, atol=2e-4
            )
    backend.close()


def test_fp16_prefixes_stay_fp16_on_the_device(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of(precisions=("fp32", "fp16"))
    write_fake_engines(bundle, fake.api, "fp16")
    backend, reference = fake.load(bundle), OnnxRuntimeBackend(bundle)
    assert (backend.name, backend.precision) == ("tensorrt", "fp16")
    pictures, text = images(4), texts(bundle, 1, 20)
    prefixes = backend.encode_pictures(pictures)
    assert {prefix.nbytes for prefix in prefixes} == {2 * int(np.prod(bundle.sizes.prefix_shape))}
    answer = backend.encode_text(text, [prefixes])
    right = reference.encode_text(text, [reference.encode_pictures(pictures)])
    assert 0 < np.abs(answer - right).max() < 0.1
    backend.close()


def test_a_prefix_can_be_used_again_and_by_another_thread(gpu_platform: Platform, copy_of: Any) -> None:
    bundle = copy_of()
    gpu_platform.build(bundle)
    backend, reference = gpu_platform.load(bundle, lanes=2), OnnxRuntimeBackend(bundle)
    pictures = images(6)
    prefixes, expected = backend.encode_pictures(pictures), reference.encode_pictures(pictures)

    def ask(seed: int) -> float:
        order = np.random.default_rng(seed).integers(0, 6, (2, 4))
        text = texts(bundle, 2, 10 + seed % 40)
        answer = backend.encode_text(text, [[prefixes[place] for place in row] for row in order])
        right = reference.encode_text(text, [[expected[place] for place in row] for row in order])
        answer, right = compared(bundle, text, answer), compared(bundle, text, right)
        return float((np.abs(answer - right) / np.maximum(1, np.abs(right))).max())

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(ask, range(12))) < 5e-4
    backend.close()


def test_each_bucket_is_captured_once_and_launched_once_a_request(
    backend: TensorRTBackend, fake: Platform, bundle: Bundle
) -> None:
    library, cuda = fake.api.trt, fake.cuda
    for length in (25, 28, 31, 32):
        backend.encode_text(texts(bundle, 1, length), [backend.encode_pictures(images(4))])
    assert library.contexts == 2  # four pictures; one text of 25 to 32 pieces
    assert library.executions == 6  # each twice to set up and once to capture
    assert cuda.launches == 8
    allocations = cuda.allocations
    backend.encode_text(texts(bundle, 1, 26), [backend.encode_pictures(images(4))])
    assert cuda.allocations == allocations
    backend.encode_text(texts(bundle, 1, 40), [backend.encode_pictures(images(4))])
    assert (library.contexts, library.executions) == (3, 9)


def test_nothing_waits_on_the_host_between_the_engines(
    backend: TensorRTBackend, fake: Platform, bundle: Bundle
) -> None:
    text = texts(bundle, 1, 20)
    backend.encode_text(text, [backend.encode_pictures(images(4))])
    before = fake.cuda.synchronisations
    backend.encode_text(text, [backend.encode_pictures(images(4, 1))])
    assert fake.cuda.synchronisations - before == 1


def test_pictures_queued_twice_do_not_overwrite_each_other(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of()
    fake.build(bundle)
    backend, reference = fake.load(bundle, lanes=1), OnnxRuntimeBackend(bundle)
    first, second = backend.encode_pictures(images(4, 1)), backend.encode_pictures(images(4, 2))
    text = texts(bundle, 2, 9)
    answer = backend.encode_text(text, [first, second])
    right = reference.encode_text(text, [reference.encode_pictures(images(4, seed)) for seed in (1, 2)])
    np.testing.assert_allclose(compared(bundle, text, answer), compared(bundle, text, right), atol=2e-4)
    backend.close()


def test_dropped_prefixes_give_their_memory_back(backend: TensorRTBackend, fake: Platform, bundle: Bundle) -> None:
    backend.encode_text(texts(bundle, 1, 9), [backend.encode_pictures(images(4))])
    held = fake.cuda.allocations
    for seed in range(17):  # 68 prefixes through a block of 64 slots
        prefixes = backend.encode_pictures(images(4, seed))
        del prefixes
        gc.collect()
    assert fake.cuda.allocations == held


def test_a_slot_taken_again_waits_for_its_last_writer(fake: Platform, copy_of: Any) -> None:
    """Dropped at once, before the device wrote it, and taken by the other lane."""
    bundle = copy_of()
    fake.build(bundle)
    backend, reference = fake.load(bundle, lanes=2), OnnxRuntimeBackend(bundle)
    text = texts(bundle, 1, 9)
    for seed in range(3):
        backend.encode_pictures(images(4, 50 + seed))  # nobody keeps them
        with backend._lane():  # so that the other lane serves the next
            prefixes = backend.encode_pictures(images(4, seed))
        answer = backend.encode_text(text, [prefixes])
        right = reference.encode_text(text, [reference.encode_pictures(images(4, seed))])
        np.testing.assert_allclose(answer, right, atol=2e-4)
    backend.close()


def test_close_frees_everything_and_refuses_further_work(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of()
    fake.build(bundle)
    backend = fake.load(bundle)
    prefixes = backend.encode_pictures(images(5))
    backend.encode_text(texts(bundle, 1, 40), [prefixes[:4]])
    assert fake.cuda.leaks()
    backend.close()
    backend.close()
    assert fake.cuda.leaks() == {}
    del prefixes
    with pytest.raises(BackendError, match="the backend tensorrt is closed"):
        backend.encode_text(texts(bundle, 1, 4), [[]])


def test_without_graphs_the_answers_are_the_same(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of()
    fake.build(bundle)
    text, answers = texts(bundle, 1, 20), []
    for capturable, asked in ((True, True), (False, True), (True, False)):
        fake.api.trt.capturable = capturable
        backend = fake.load(bundle, cuda_graphs=asked)
        launches = fake.cuda.launches
        answers.append(backend.encode_text(text, [backend.encode_pictures(images(4))]))
        assert (fake.cuda.launches > launches) == (capturable and asked)
        backend.close()
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_a_failing_library_is_a_typed_error_and_leaves_no_memory(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of()
    fake.build(bundle)
    backend = fake.load(bundle)
    fake.api.trt.broken = True
    fake.api.errors.append("the reason of another call, long ago")
    fake.api.trt.reason = "out of luck"
    with pytest.raises(BackendError, match="tensorrt cannot run: out of luck"):
        backend.encode_pictures(images(1))
    fake.api.trt.broken = False
    assert len(backend.encode_pictures(images(1))) == 1  # the lane still works
    backend.close()
    assert fake.cuda.leaks() == {}


def test_too_long_a_text_names_the_option(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of("ner", "text_only")
    fake.build(bundle)
    with pytest.raises(BackendError, match=r"tensorrt runs texts of up to 64 pieces here, not of 65: .* --max-seq"):
        fake.load(bundle).encode_text(texts(bundle, 1, 65), [[]])


def test_a_pipeline_cuts_texts_where_its_engine_ends(copy_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, cuda = copy_of("ner", "text_only"), FakeCuda()
    write_fake_engines(bundle, fake_api(cuda), max_length=8)
    monkeypatch.setattr("hvpnet_runtime.backends.tensorrt.backend.Cuda", lambda **_: cuda)
    monkeypatch.setattr("hvpnet_runtime.backends.tensorrt.backend.load_library", lambda engine: fake_api(cuda, engine))
    with Pipeline.load(bundle.path, "tensorrt") as pipeline:
        assert pipeline.backend.max_length == 8
        (result,) = pipeline([Tweet(words=["a"] * 20)])
    assert isinstance(result, EntityResult)
    assert (len(result.tags), result.cut_words) == (20, 20 - 6)  # [CLS] and [SEP] take two pieces of eight
    assert set(result.tags[6:]) == {"O"}
    assert cuda.leaks() == {}


def test_a_pipeline_that_does_not_load_frees_its_backend(copy_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, cuda = copy_of("ner", "text_only"), FakeCuda()
    write_fake_engines(bundle, fake_api(cuda))
    monkeypatch.setattr("hvpnet_runtime.backends.tensorrt.backend.Cuda", lambda **_: cuda)
    monkeypatch.setattr("hvpnet_runtime.backends.tensorrt.backend.load_library", lambda engine: fake_api(cuda, engine))
    monkeypatch.setattr("hvpnet_runtime.pipeline.CrfDecoder", lambda **_: pytest.fail("damaged"))
    with pytest.raises(pytest.fail.Exception, match="damaged"):
        Pipeline.load(bundle.path, "tensorrt")
    assert cuda.leaks() == {}


def test_text_only_reads_no_pictures(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of("ner", "text_only")
    fake.build(bundle)
    with pytest.raises(BackendError, match="reads no pictures"):
        fake.load(bundle).encode_pictures(images(1))


# Engines that may not be loaded


def stale(fake: Platform, bundle: Bundle) -> str:
    with pytest.raises(StaleEngineError) as caught:
        fake.load(bundle)
    command = f"hvpnet build {bundle.path} --engine tensorrt --precision fp32"
    assert str(caught.value).endswith(f"build again with {command}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_engine_names_the_command(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of("ner", "text_only")
    with pytest.raises(
        BackendError, match=f"no tensorrt engine of fp32: hvpnet build {bundle.path} --engine tensorrt --p"
    ):
        fake.load(bundle)


def test_engines_of_the_other_library_are_not_taken(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of("ner", "text_only")
    write_fake_engines(bundle, fake_api(fake.cuda, "tensorrt-rtx"))
    with pytest.raises(BackendError, match="has no tensorrt engine"):
        fake.load(bundle)


def test_another_onnx_another_version_another_gpu_are_stale(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of("ner", "text_only")
    folder = fake.build(bundle)
    other = {**bundle.manifest.files, "onnx/fp32/text.onnx": FileDigest("0" * 64, 1)}
    exported = replace(bundle, manifest=replace(bundle.manifest, files=other))
    assert "was built from another onnx/fp32/text.onnx" in stale(fake, exported)
    newer = replace(fake, api=fake_api(fake.cuda, version="100.0"))
    assert "built with version 99.1, 100.0 is installed" in stale(newer, bundle)
    moved = replace(fake, cuda=FakeCuda(gpu=replace(FAKE_GPU, name="NVIDIA Other", compute_capability="8.9")))
    assert "was built on NVIDIA Fake 1 (9.0), this is NVIDIA Other (8.9)" in stale(moved, bundle)
    (folder / "text.plan").write_bytes(b"{}")
    assert "text.plan is missing, a link, or was changed" in stale(fake, bundle)
    (folder / "build.json").write_text("[]")
    assert "no readable build.json" in stale(fake, bundle)


def changed(folder: Path, change: Any) -> None:
    record = json.loads((folder / "build.json").read_text())
    change(record)
    (folder / "build.json").write_text(json.dumps(record))


DIGEST = {"sha256": "0" * 64, "bytes": 0}


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["files"].update({"/dev/zero": DIGEST}),
        lambda record: record["files"].update({"../../../../key": DIGEST}),
        lambda record: record.update(files={"text.plan": {"sha256": 1, "bytes": 1}}),
        lambda record: record.update(files={}),
        lambda record: record.update(sources={}),
        lambda record: record.update(profiles={}),
        lambda record: record.update(profiles={"sound": record["profiles"]["text"]}),
        lambda record: record["profiles"].update(text=[]),
        lambda record: record["profiles"].update(text=[{"batch": [2, 1, 0], "length": 8}]),
        lambda record: record["profiles"].update(text=[{"batch": [1, 1, 1], "length": None}]),
        lambda record: record.update(precision="int4"),
    ],
)
def test_impossible_records_are_stale(fake: Platform, copy_of: Any, change: Any) -> None:
    bundle = copy_of("ner", "text_only")
    changed(fake.build(bundle), change)
    assert "build.json" in stale(fake, bundle)


@pytest.mark.parametrize("name", ["build.json", "text.plan"])
@pytest.mark.parametrize("target", ["/dev/zero", "/dev/ptmx", "real", None])
def test_only_regular_files_are_read_of_an_engine(fake: Platform, copy_of: Any, name: str, target: str | None) -> None:
    bundle = copy_of("ner", "text_only")
    file = fake.build(bundle) / name
    file.rename(file.with_name("real"))
    if target is None:
        os.mkfifo(file)
    else:
        file.symlink_to(target)
    assert name in stale(fake, bundle)


def test_engines_of_several_precisions_stand_side_by_side(fake: Platform, copy_of: Any) -> None:
    """INT8, which costs accuracy, is loaded where it is asked for."""
    bundle = copy_of("ner", "text_only", precisions=("fp32", "fp16", "int8_fp16"))
    command = f"hvpnet build {bundle.path} --engine tensorrt"
    folders = {"int8_fp16": write_fake_engines(bundle, fake.api, "int8_fp16")}
    with pytest.raises(BackendError, match=f"has no tensorrt engine of fp16 or fp32: {command}$"):
        fake.load(bundle)
    with pytest.raises(BackendError, match=f"has no tensorrt engine of fp32: {command} --precision fp32$"):
        fake.load(bundle, precision="fp32")
    for precision in ("fp32", "fp16"):
        folders[precision] = write_fake_engines(bundle, fake.api, precision)
        assert loaded(fake, bundle) == precision
    assert len(set(folders.values())) == 3
    for precision, folder in folders.items():
        assert loaded(fake, bundle, precision=precision) == precision
        assert folder.name.endswith(f"-{precision}")
    for precision in ("fp16", "fp32"):
        (folders[precision] / "text.plan").write_bytes(b"other")
    with pytest.raises(StaleEngineError, match=r"text\.plan is missing.*; .*text\.plan is missing"):
        fake.load(bundle)
    with pytest.raises(StaleEngineError, match=f"or was changed: build again with {command} --precision fp32$"):
        fake.load(bundle, precision="fp32")
    (folders["fp16"] / "build.json").unlink()
    assert loaded(fake, bundle, precision="int8_fp16") == "int8_fp16"  # whatever the others are like


def test_int8_engines_of_a_bundle_without_other_graphs(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of("ner", "text_only", precisions=("int8_fp16",))
    command = f"hvpnet build {bundle.path} --engine tensorrt --precision int8_fp16"
    with pytest.raises(BackendError, match=f"has no tensorrt engine of int8_fp16: {command}$"):
        fake.load(bundle)
    folder = write_fake_engines(bundle, fake.api, "int8_fp16")
    assert loaded(fake, bundle) == "int8_fp16"
    (folder / "text.plan").write_bytes(b"other")
    with pytest.raises(StaleEngineError, match=f"build again with {command}$"):
        fake.load(bundle)


def test_engines_from_before_folders_named_precisions(fake: Platform, bundle: Bundle) -> None:
    folder = fake.build(bundle)
    folder.rename(folder.with_name(folder.name.removesuffix("-fp32")))
    assert loaded(fake, bundle) == loaded(fake, bundle, precision="fp32") == "fp32"


def test_auto_with_a_gpu_names_what_builds_the_precision(
    fake: Platform, copy_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = copy_of("ner", "text_only", precisions=("fp32", "fp16", "int8_fp16"))
    monkeypatch.setattr("hvpnet_runtime.backends.Cuda", lambda *_: fake.cuda)
    monkeypatch.setattr("hvpnet_runtime.backends.tensorrt.backend.load_library", lambda engine: fake.api)
    with pytest.raises(BackendError, match="--engine tensorrt --precision int8_fp16"):
        load_backend(bundle, precision="int8_fp16", device=0)


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_engines_have_no_such_precision(fake: Platform, bundle: Bundle, precision: str) -> None:
    with pytest.raises(BundleError, match=f"'{precision}' graphs do not run .*: choose fp16 or fp32 or int8_fp16"):
        fake.load(bundle, precision=precision)
    with pytest.raises(BundleError, match="has no int8_fp16 graphs, only fp32"):
        fake.load(bundle, precision="int8_fp16")


def loaded(fake: Platform, bundle: Bundle, **options: Any) -> str:
    """The precision of the engines that load."""
    backend = fake.load(bundle, **options)
    backend.close()
    return backend.precision


def test_a_plan_that_changes_after_it_was_checked_is_not_loaded(
    fake: Platform, copy_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = copy_of("ner", "text_only")
    plan = fake.build(bundle) / "text.plan"

    def find_and_swap(*arguments: Any) -> Any:
        found = find_engine(*arguments)
        plan.write_bytes(plan.read_bytes()[:-1] + b" ")
        return found

    monkeypatch.setattr("hvpnet_runtime.backends.tensorrt.backend.find_engine", find_and_swap)
    with pytest.raises(StaleEngineError, match=r"text\.plan is missing, a link, or was changed"):
        fake.load(bundle)


def test_an_engine_of_another_interface_is_stale(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of("ner", "text_only")
    fake.build(bundle)
    other = replace(bundle, manifest=replace(bundle.manifest, labels=(*bundle.labels, "B-TIME")))
    with pytest.raises(StaleEngineError, match=r"text\.plan: emissions is float32 \[any, any, 13\]"):
        fake.load(other)


def test_a_portable_engine_may_move_to_another_gpu(copy_of: Any) -> None:
    bundle = copy_of("ner", "text_only")
    write_fake_engines(bundle, fake_api(FakeCuda(), "tensorrt-rtx"))
    cuda = FakeCuda(gpu=replace(FAKE_GPU, name="NVIDIA Other"))
    api = fake_api(cuda, "tensorrt-rtx")
    assert TensorRTBackend(bundle, "tensorrt-rtx", cuda=cuda, api=api).name == "tensorrt-rtx"


def test_a_plan_that_the_library_refuses(fake: Platform, copy_of: Any) -> None:
    bundle = copy_of("ner", "text_only")
    folder = fake.build(bundle)
    (folder / "text.plan").write_bytes(b"not a plan")
    record = json.loads((folder / "build.json").read_text())

    record["files"]["text.plan"] = {"sha256": sha256(folder / "text.plan"), "bytes": len(b"not a plan")}
    (folder / "build.json").write_text(json.dumps(record))
    fake.api.trt.reason = "bad magic"
    with pytest.raises(BackendError, match=r"cannot load .*text.plan on this GPU: bad magic"):
        fake.load(bundle)


def test_auto_warns_of_a_stale_engine_and_takes_the_next(
    copy_of: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, cuda = copy_of("ner", "text_only"), FakeCuda()
    write_fake_engines(bundle, fake_api(cuda, version="1.0"))
    monkeypatch.setattr("hvpnet_runtime.backends.tensorrt.backend.Cuda", lambda **_: cuda)
    monkeypatch.setattr("hvpnet_runtime.backends.tensorrt.backend.load_library", lambda engine: fake_api(cuda, engine))
    assert load_backend(bundle).name == "onnxruntime-cpu"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("backend tensorrt passed over: tensorrt-1.0-nvidia-fake-1-fp32 was built with version")
    assert "hvpnet build" in warning
