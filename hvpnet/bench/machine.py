"""What the timings were taken on: hardware, versions, settings."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from hvpnet_export.processor import cpuinfo
from hvpnet_runtime.backends.cuda import find_device

_PACKAGES = (
    "hvpnet", "numpy", "pillow", "tokenizers", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "openvino",
    "tensorrt", "tensorrt-rtx", "torch", "torchvision", "transformers", "pytorch-crf",
)  # fmt: skip
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8")
_SETTINGS = ("OMP_", "GOMP_", "KMP_", "MKL_", "ORT_")
_DESCRIBE = ("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+")


def describe_machine() -> dict[str, Any]:
    """As JSON types: device, processor, versions, commit (`+` for changes) and thread settings."""
    core, gpu = cpuinfo(), find_device()
    model = core.get("model name") or platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = [flag for flag in _FLAGS if flag in core.get("flags", "").split()]
    versions = {each.name.replace("_", "-").lower(): each.version for each in distributions()}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": gpu.name if gpu else model,
        "cpu": {"model": model, "family": core.get("cpu family"), "cores": cores, "flags": flags},
        "gpu": vars(gpu) if gpu else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: versions[name] for name in _PACKAGES if name in versions},
        "commit": _commit(),
        "settings": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)},
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def _commit() -> str | None:
    git = ["git", "-C", str(Path(__file__).parent), *_DESCRIBE]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
