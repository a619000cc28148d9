"""Pictures to prefixes, by backend: `pytest benchmarks/test_vision.py`."""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hvpnet_runtime.backends import Backend


@pytest.mark.parametrize("pictures", [1, 4, 16])
def test_vision(benchmark: BenchmarkFixture, backend: Backend, pictures: int) -> None:
    benchmark.group = f"vision, {pictures} pictures"
    pixels = np.random.default_rng(0).integers(0, 256, (pictures, 224, 224, 3), np.uint8)
    benchmark.pedantic(backend.encode_pictures, (pixels,), rounds=5, warmup_rounds=1)
