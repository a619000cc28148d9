"""Which processors may overflow on INT8."""

import platform

import pytest

import hvpnet_export.processor
from hvpnet_export.processor import adds_int8_in_16_bits, cpuinfo


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "fpu avx2", True),
        ("x86_64", "avx2 avx512f", True),
        ("x86_64", "avx2 avx512f avx512_vnni amx_int8", False),
        ("AMD64", "avx2 avx_vnni", False),
        ("AMD64", "", True),
        ("aarch64", "", False),
    ],
)
def test_x86_without_vnni(monkeypatch, machine, flags, expected):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(hvpnet_export.processor, "cpuinfo", lambda: {"flags": flags} if flags else {})
    assert adds_int8_in_16_bits() is expected


def test_fields_of_this_one():
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        assert "fpu" in cpuinfo()["flags"].split()
    else:
        assert "fpu" not in cpuinfo()
