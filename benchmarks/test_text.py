"""Tokens and prefixes to emissions, by backend: `pytest benchmarks/test_text.py`."""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hvpnet_runtime.backends import Backend, TextInputs

_PICTURES = 4


@pytest.mark.parametrize(("batch", "length"), [(1, 32), (1, 80), (1, 128), (8, 80), (32, 80)])
def test_text(benchmark: BenchmarkFixture, backend: Backend, batch: int, length: int) -> None:
    benchmark.group = f"text, {batch} x {length} tokens, {_PICTURES} pictures each"
    rng = np.random.default_rng(0)
    text = TextInputs(rng.integers(1000, 30000, (batch, length)), np.ones((batch, length), np.int64))
    prefixes = backend.encode_pictures(rng.integers(0, 256, (_PICTURES, 224, 224, 3), np.uint8))
    benchmark.pedantic(backend.encode_text, (text, [prefixes] * batch), rounds=5, warmup_rounds=1)
