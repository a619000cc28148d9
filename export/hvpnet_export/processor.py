"""What this machine's processor is and can do."""

import platform
from pathlib import Path

_VNNI = {"avx512_vnni", "avx_vnni"}


def cpuinfo() -> dict[str, str]:
    """The fields of Linux's description of a core, flags separated by spaces; nothing on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def adds_int8_in_16_bits() -> bool:
    """Whether sums of INT8 products may overflow here: on x86 without VNNI, or where that cannot be told."""
    flags = cpuinfo().get("flags", "").split()
    return platform.machine() in ("x86_64", "AMD64") and _VNNI.isdisjoint(flags)
