"""Bundles with FP16 graphs, and the library that builds engines of them without a GPU."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hvpnet_runtime import Bundle
from hvpnet_runtime.backends.tensorrt.library import Library, load_library


@pytest.fixture
def api() -> Library:
    return load_library("tensorrt-rtx")


@pytest.fixture
def copy_of(bundle_of: Callable[..., Path], tmp_path: Path) -> Callable[..., Bundle]:
    def make(*kind: str) -> Bundle:
        shutil.copytree(bundle_of(*kind, precisions=("fp32", "fp16")), tmp_path / "bundle")
        return Bundle.load(tmp_path / "bundle")

    return make


@pytest.fixture
def bundle(copy_of: Callable[..., Bundle]) -> Bundle:
    return copy_of("ner", "text_only", "markers")
