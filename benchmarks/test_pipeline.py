"""Tweets to entities, pictures new and seen before: `pytest benchmarks/test_pipeline.py`."""

from itertools import count

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from tokenizers import Tokenizer

from hvpnet import HVPNeT
from hvpnet.bench.eager import EagerBackend, EagerPipeline
from hvpnet.bench.stopwatch import Stopwatch
from hvpnet.bench.workload import Case, Workload
from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.pipeline import Pipeline

_NUMBERS = count()
_ROUNDS = {"rounds": 5, "warmup_rounds": 1}


@pytest.mark.parametrize("batch", [1, 8])
def test_published(benchmark: BenchmarkFixture, model: HVPNeT, files, workload: Workload, batch: int) -> None:
    benchmark.group = f"pipeline, batch {batch}"
    tokenizer = Tokenizer.from_file(str(files.bundle / "tokenizer.json"))
    stopwatch = Stopwatch(EagerPipeline(EagerBackend(model), tokenizer, PictureSpec()))
    benchmark.pedantic(
        stopwatch.measure, setup=lambda: ((workload.tweets(Case(batch, 80), next(_NUMBERS)),), {}), **_ROUNDS
    )


@pytest.mark.parametrize("pictures", ["all new", "one new, three seen", "one new, no objects", "all seen"])
@pytest.mark.parametrize("batch", [1, 8])
def test_runtime(
    benchmark: BenchmarkFixture, pipeline: Pipeline, workload: Workload, batch: int, pictures: str
) -> None:
    benchmark.group = f"pipeline, batch {batch}"
    case = Case(batch, 80, pictures)
    benchmark.pedantic(pipeline, setup=lambda: ((workload.tweets(case, next(_NUMBERS)),), {}), **_ROUNDS)
