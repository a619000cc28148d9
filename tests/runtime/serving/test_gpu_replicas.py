"""A replica on a GPU asks Ray for it, and takes the first that it sees. No GPU has to be there, nor Ray."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from ray import serve
from tiny_grounder import add_grounder

from hvpnet_runtime import backends
from hvpnet_runtime.serving import Settings
from hvpnet_runtime.serving.errors import SettingsError
from hvpnet_runtime.serving.metrics import PrometheusInstruments
from hvpnet_runtime.serving.on_ray import grounding, inference
from hvpnet_runtime.serving.on_ray.app import build

pytestmark = pytest.mark.heavy


@pytest.fixture
def path(ner_bundle: Path, tmp_path: Path) -> Path:
    return add_grounder(Path(shutil.copytree(ner_bundle, tmp_path / "bundle")))


def deployments(application: Any) -> dict[str, Any]:
    """All of an application, by name."""
    own = application._bound_deployment
    found = {own.name: own}
    for given in own.init_args:
        for each in given.values() if isinstance(given, dict) else [given]:
            if isinstance(each, serve.Application):
                found |= deployments(each)
    return found


@pytest.mark.parametrize("gpus", [0, 0.5, 1])
def test_what_runs_graphs_asks_ray_for_its_gpus(path: Path, gpus: float) -> None:
    """And for no GPU by number: Ray shows a replica its own alone."""
    replicas = {"gpus": gpus}
    made = deployments(build(Settings.parse({"bundles": {"a": path}, "inference": replicas, "grounding": replicas})))
    asked = {name: each.ray_actor_options["num_gpus"] for name, each in made.items()}
    assert asked == {"ingress": 0, "preparation-a": 0, "grounding-a": gpus, "inference-a": gpus}
    with pytest.raises(SettingsError, match=r"device is 1: on Ray, inference\.gpus says"):
        build(Settings.parse({"bundles": {"a": path}, "device": 1}))


@pytest.mark.parametrize(("module", "kind"), [(inference, "Inference"), (grounding, "Grounding")])
def test_a_replica_takes_the_first_gpu_that_it_sees(
    path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, kind: str
) -> None:
    asked: list[tuple[str, int | None]] = []

    def tensorrt(bundle: Any, threads: Any, precision: Any, device: int | None) -> Any:
        asked.append(("tensorrt", device))
        return backends.BACKENDS["onnxruntime-cpu"](bundle, threads, precision, None)

    monkeypatch.setitem(backends.BACKENDS, "tensorrt", tensorrt)
    monkeypatch.setattr(module, "RayInstruments", lambda: PrometheusInstruments(CollectorRegistry()))
    getattr(module, kind)("a", Settings.parse({"bundles": {"a": path}, "backend": "tensorrt"}))
    assert asked == [("tensorrt", None)]
