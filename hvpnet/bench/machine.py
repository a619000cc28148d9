"""What the timings were taken on: hardware, versions, settings."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
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


def describe_machine() -> dict[str, Any]:
    """As JSON types: device, processor, versions, commit and thread settings."""
    cpu, gpu = _processor(), find_device()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": gpu.name if gpu else cpu["model"],
        "cpu": cpu,
        "gpu": vars(gpu) if gpu else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "commit": _commit(),
        "settings": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)},
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def _processor() -> dict[str, Any]:
    fields = cpuinfo()
    flags = set(fields.get("flags", "").split())
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "family": fields.get("cpu family"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": [flag for flag in _FLAGS if flag in flags],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Of the checkout that this module lies in, `+` for changes; None outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)  # noqa: S603
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")
