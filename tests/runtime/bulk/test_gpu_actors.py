"""An actor of a bulk run on Ray has one GPU, which is the first that it sees. Ray counts GPUs; none has to be there."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from hvpnet_runtime.bulk import Job
from hvpnet_runtime.bulk.on_ray import OnRay
from hvpnet_runtime.bulk.source import Part
from hvpnet_runtime.ray_processes import prepare_local_ray, start_local_ray

pytestmark = pytest.mark.heavy


@dataclass(frozen=True)
class Telling(Job):
    """A job whose answers say what its process was given."""

    def digest(self) -> str:
        return "the same everywhere"

    def load(self, threads: int | None, device: int | None) -> Any:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        given = {"seen": seen, "device": device, "threads": threads, "process": os.getpid()}
        outcome = SimpleNamespace(to_dict=lambda: given)
        return SimpleNamespace(
            bundle=SimpleNamespace(task="ner", manifest=SimpleNamespace(grounder=None)),
            backends=("fake",),
            forget=lambda: None,
            stream_rows=lambda rows: (outcome for _ in rows),
        )


@pytest.fixture(scope="module")
def two_gpus(ray_folder: Path) -> Iterator[None]:
    prepare_local_ray()
    ray.shutdown()  # one that another module left, if any
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # where actors run, nobody finds this module
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(ray_folder))
        start_local_ray(num_cpus=4, num_gpus=2, object_store_memory=128 * 2**20, log_to_driver=False)
        yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("backend", "seen"), [("auto", {"0", "1"}), ("openvino", {None})])
def test_an_actor_sees_one_gpu_of_its_own(tmp_path: Path, backend: str, seen: set[str | None]) -> None:
    tweets = tmp_path / "tweets.jsonl"
    tweets.write_text('{"text": "a"}\n' * 6)
    job = Telling(tmp_path, tweets, tmp_path / "out.jsonl", backend=backend)
    parts = [Part(number, number + 1, 1, 14 * number) for number in range(6)]
    told = [json.loads(done.answers) for done in OnRay(threads=2)(job, job.digest(), parts)]
    assert len(told) == 6
    assert {(each["device"], each["threads"]) for each in told} == {(None, 2)}  # the first GPU that there is
    places = {(each["process"], each["seen"]) for each in told}
    assert {gpu for _, gpu in places} <= seen
    if backend == "auto":
        assert len({process for process, _ in places}) == len({gpu for _, gpu in places}) == len(places)
