"""The full-size model of all suites, and the backends that take turns on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
from full_size import full_size

from hvpnet import HVPNeT, load_checkpoint
from hvpnet.bench.eager import EagerBackend, reduced_precision
from hvpnet.bench.workload import Workload
from hvpnet_runtime.backends import BACKENDS, Backend
from hvpnet_runtime.bundle import Bundle, Precision
from hvpnet_runtime.errors import HvpnetError
from hvpnet_runtime.pipeline import Pipeline

_PRECISIONS = (*get_args(Precision), "bf16")
_BACKENDS = [
    ("eager", "fp32"),
    ("eager", reduced_precision()),
    *((name, each) for name in BACKENDS for each in _PRECISIONS),
]


class Files(NamedTuple):
    """Where the model lies."""

    checkpoint: Path
    bundle: Path


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--folder`: the model is made there, once."""
    parser.addoption("--folder", type=Path, default=Path("runs/full-size"), help="of benchmarks/full_size.py")


@pytest.fixture(scope="session")
def files(pytestconfig: pytest.Config) -> Files:
    """Checkpoint and bundle; the bundle has the precisions that it was made with, and is sound: a damaged one would
    otherwise look like one that no backend runs."""
    files = Files(*full_size(pytestconfig.getoption("folder")))
    Bundle.load(files.bundle)
    return files


@pytest.fixture(scope="session")
def workload(files: Files) -> Workload:
    """Tweets for the bundle."""
    return Workload(files.bundle)


@pytest.fixture(scope="session")
def model(files: Files) -> HVPNeT:
    """The eager model."""
    return load_checkpoint(files.checkpoint)


@pytest.fixture(scope="module", params=_BACKENDS, ids=" ".join)
def backend(request: pytest.FixtureRequest, files: Files) -> Iterator[Backend]:
    """PyTorch, then every backend of the runtime at every precision that runs here."""
    name, precision = request.param
    if name == "eager":
        yield EagerBackend(load_checkpoint(files.checkpoint), precision)
        return
    with running(files.bundle, name, precision) as pipeline:
        yield pipeline.backend


@pytest.fixture(scope="module", params=_BACKENDS[2:], ids=" ".join)
def pipeline(request: pytest.FixtureRequest, files: Files) -> Iterator[Pipeline]:
    """The runtime on every backend and precision that runs here."""
    with running(files.bundle, *request.param) as loaded:
        yield loaded


def running(bundle: Path, name: str, precision: str) -> Pipeline:
    """The pipeline; the benchmark is skipped where it does not run."""
    try:
        return Pipeline.load(bundle, name, precision=precision)
    except HvpnetError as error:
        pytest.skip(str(error))
