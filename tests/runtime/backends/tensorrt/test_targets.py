"""Which GPUs an engine covers: chosen, built, recorded, and held against the GPU that is here."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from kinds import KINDS

from hvpnet_runtime import BackendError, Bundle
from hvpnet_runtime.backends.cuda import Device
from hvpnet_runtime.backends.tensorrt.build import BuildOptions, build_engines
from hvpnet_runtime.backends.tensorrt.library import Library
from hvpnet_runtime.backends.tensorrt.record import find_engine
from hvpnet_runtime.backends.tensorrt.targets import choose_targets, supported
from hvpnet_runtime.errors import BuildError, StaleEngineError

pytestmark = pytest.mark.heavy

GPU = Device("NVIDIA Fake 1", "8.9", "13.0")
OPTIONS = BuildOptions("tensorrt-rtx", max_batch=1, max_length=16)


def test_every_gpu_that_the_library_knows_is_covered_but_turing(api: Library) -> None:
    assert supported(api) == ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
    assert choose_targets(api, (), None) == supported(api)[1:]
    assert choose_targets(api, ("8.9", "12.0"), GPU) == ("8.9", "12.0")
    assert choose_targets(replace(api, engine="tensorrt"), (), GPU) == ("8.9",)
    known = "7.5, 8.0, 8.6, 8.9, 12.0 and 12.1"
    with pytest.raises(BuildError, match=f"builds for GPUs of compute capability {known}, not for 9.0"):
        choose_targets(api, ("8.9", "9.0"), None)
    with pytest.raises(BuildError, match="tensorrt builds for the GPU that is here alone"):
        BuildOptions("tensorrt", gpus=("8.9",))
    with pytest.raises(BuildError, match=r"no FP32 products for GPUs of compute capability 7\.5: build fp16"):
        BuildOptions("tensorrt-rtx", precision="fp32", gpus=("7.5",))


@pytest.mark.parametrize("kind", [KINDS[0], ("re", "full", "markers"), ("re", "text_only", "cls")], ids="-".join)
def test_turing_is_covered_by_engines_of_its_own(
    copy_of: Callable[..., Bundle], api: Library, kind: tuple[str, ...]
) -> None:
    bundle = copy_of(*kind)
    build_engines(bundle, replace(OPTIONS, gpus=("7.5",)))
    turing = replace(GPU, compute_capability="7.5")
    _, record = find_engine(bundle, api, turing)
    assert record.gpus == ("7.5",)
    assert record.fused_attention == {"fused": 4, "layers": 4}
    command = f"hvpnet build {bundle.path} --engine tensorrt-rtx"
    with pytest.raises(
        StaleEngineError, match=r"built for GPUs of compute capability 7\.5, this is .* \(8\.9\)"
    ) as caught:
        find_engine(bundle, api, GPU)
    assert str(caught.value).endswith(f"build again with {command}")


def test_a_gpu_that_is_not_covered_is_refused_before_the_library_is_asked(bundle: Bundle, api: Library) -> None:
    build_engines(bundle, replace(OPTIONS, gpus=("8.9", "12.0")))
    assert find_engine(bundle, api, GPU)[1].gpus == ("8.9", "12.0")
    cases: dict[str, tuple[type[BackendError], str]] = {
        "8.0": (
            StaleEngineError,
            r"capability 8\.9 and 12\.0, this is .* \(8\.0\): build again with hvpnet build .*-rtx$",
        ),
        "7.5": (StaleEngineError, r"this is .* \(7\.5\): build again with hvpnet build .* --gpus 7\.5$"),
        "9.0": (BackendError, r"has kernels for .* and 12\.1, not for NVIDIA Fake 1 \(9\.0\): take another backend"),
    }
    for capability, (error, match) in cases.items():
        with pytest.raises(error, match=match):
            find_engine(bundle, api, replace(GPU, compute_capability=capability))


def test_an_engine_that_does_not_say_which_gpus_is_stale(bundle: Bundle, api: Library) -> None:
    folder = build_engines(bundle, replace(OPTIONS, gpus=("8.9",)))
    record = json.loads((folder / "build.json").read_text())
    del record["gpus"]
    (folder / "build.json").write_text(json.dumps(record))
    with pytest.raises(StaleEngineError, match=r"built for GPUs that build\.json does not name"):
        find_engine(bundle, api, GPU)
