"""Whether an NVIDIA GPU is here, asked without the packages that would use it."""

import ctypes
import os
import shutil
import sys
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia")
_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def sees_nvidia_gpu() -> bool:
    """Whether NVIDIA's driver is here, and no environment variable hides its GPUs from this process."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() in ("", "-1", "NoDevFiles"):
        return False
    if _DRIVER.exists() or shutil.which("nvidia-smi"):
        return True
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return False
    return True
