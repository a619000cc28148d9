"""The config.pbtxt of every model: what Triton must know of its tensors and of how it is run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hvpnet_runtime.bundle import GraphSpec, TensorSpec


@dataclass(frozen=True)
class Tensor:
    """An input or an output of a model.

    Attributes:
        name: as the model calls it.
        data_type: Triton's name of it, without TYPE_.
        dims: of one row, the batch left out; -1 varies. Empty where a row is one number: clients still send [1].
        optional: a request may lack it.
        ragged: requests whose dims differ are batched all the same.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False
    ragged: bool = False

    def __str__(self) -> str:
        dims = _listed(self.dims or (1,))
        fields = [f'name: "{self.name}"', f"data_type: TYPE_{self.data_type}", f"dims: [ {dims} ]"]
        fields += [] if self.dims else ["reshape: { shape: [ ] }"]
        fields += ["optional: true"] if self.optional else []
        fields += ["allow_ragged_batch: true"] if self.ragged else []
        return f"{{ {' '.join(fields)} }}"


REQUEST = (
    Tensor("TWEET", "STRING", (1,)),
    Tensor("IMAGE", "STRING", (1,), optional=True),
    Tensor("OBJECTS", "STRING", (-1,), optional=True, ragged=True),
)
"""Inputs of the Python model, in the order of `hvpnet_runtime.triton.requests.Request`."""

RESULT = Tensor("RESULT", "STRING", (1,))
"""Output of the Python model."""


_TYPES = {"float32": "FP32", "float16": "FP16", "int64": "INT64", "uint8": "UINT8"}


def graph_tensor(spec: TensorSpec) -> Tensor:
    """An input or output of a graph. Triton leaves out the first axis, which is the batch."""
    dims = tuple(axis if isinstance(axis, int) else -1 for axis in spec.axes[1:])
    return Tensor(spec.name, _TYPES[spec.dtype.name], dims)


def graph_config(name: str, platform: str, max_batch: int, spec: GraphSpec, profiles: int = 0) -> str:
    """Configuration of a graph that a backend of Triton runs.

    Args:
        name: the model's.
        platform: `onnxruntime_onnx` or `tensorrt_plan`.
        max_batch: most rows of one run.
        spec: its inputs and output.
        profiles: optimisation profiles of a plan, all of which are to be used.
    """
    instances = "count: 1 kind: KIND_AUTO"
    if profiles:
        names = _listed(f'"{profile}"' for profile in range(profiles))
        instances = f"count: 1 kind: KIND_GPU profile: [ {names} ]"
    inputs = [graph_tensor(tensor) for tensor in spec.inputs]
    return _config(name, f'platform: "{platform}"', max_batch, inputs, graph_tensor(spec.output), instances)


def python_config(name: str, max_batch: int, instances: int, parameters: Mapping[str, str]) -> str:
    """Configuration of the Python model, each of whose instances is a process."""
    config = _config(name, 'backend: "python"', max_batch, REQUEST, RESULT, f"count: {instances} kind: KIND_CPU")
    return config + "".join(
        f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}\n' for key, value in parameters.items()
    )


def _config(name: str, runs_on: str, max_batch: int, inputs: Sequence[Tensor], output: Tensor, instances: str) -> str:
    lines = ",\n".join(f"  {tensor}" for tensor in inputs)
    return (
        f'name: "{name}"\n'
        f"{runs_on}\n"
        f"max_batch_size: {max_batch}\n"
        f"input [\n{lines}\n]\n"
        f"output [\n  {output}\n]\n"
        # Without a delay, what arrives while an instance is busy is its next batch.
        "dynamic_batching { max_queue_delay_microseconds: 0 }\n"
        f"instance_group [ {{ {instances} }} ]\n"
    )


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
