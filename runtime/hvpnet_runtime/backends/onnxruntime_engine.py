"""Sessions of ONNX Runtime behind the interface that executors have of TensorRT: fixed addresses, one stream."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hvpnet_runtime.backends.cuda import Address, Stream
from hvpnet_runtime.backends.onnxruntime import CPU, failure_of
from hvpnet_runtime.bundle import GraphName, GraphSpec, TensorSpec

RECORD_ASSIGNMENT = ("session.record_ep_graph_assignment_info", "1")
"""The entry of a session's configuration with which it can tell where its nodes run."""

_OF_SHAPES = {
    *("Shape", "Size", "Gather", "Concat", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Expand", "ConstantOfShape"),
    *("Add", "Sub", "Mul", "Div", "ReduceProd", "Cast", "Range", "Equal", "Where"),
}
"""Operators that compute with shapes. ONNX Runtime leaves those on the CPU, where shapes are, and copies nothing."""


@dataclass(frozen=True)
class OnnxRuntime:
    """See `EngineLibrary`.

    Attributes:
        engine: the backend's name.
        runtime: ONNX Runtime's module.
        device_type: as bindings call the device.
        ordinal: of the device.
    """

    engine: str
    runtime: Any
    device_type: str
    ordinal: int

    def call(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        """See `EngineLibrary`.

        Raises:
            BackendError: ONNX Runtime raised an error, of whatever class.
            DeviceMemoryError: it was for want of memory.
        """
        try:
            return function(*arguments)
        except Exception as error:  # its exception classes are private to the extension
            raise failure_of(f"{self.engine}, asked to {what},", error) from error

    def create_context(self, engine: "SessionEngine", cache: None = None) -> "SessionContext":  # noqa: ARG002
        """See `EngineLibrary`."""
        return SessionContext(self, engine)

    def dtype(self, dtype: "np.dtype[Any]") -> str:
        """See `EngineLibrary`."""
        return dtype.name


@dataclass(frozen=True)
class SessionEngine:
    """A session that queues its work on a stream, as an engine."""

    session: Any
    spec: GraphSpec

    def on_cpu(self) -> list[str]:
        """Operators of the graph that run on the CPU and read or make more than shapes.

        Their tensors are copied from and to the device, and whoever copies waits: no capture can hold such a run.
        """
        ask = getattr(self.session, "get_provider_graph_assignment_info", None)
        if ask is None:  # a release before 1.24, where a capture that fails has to tell
            return []
        found = {node.op_type for part in ask() if part.ep_name == CPU for node in part.get_nodes()}
        return sorted(found - _OF_SHAPES)

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """All inputs and outputs."""
        return (*self.spec.inputs, *self.spec.outputs)

    @property
    def num_io_tensors(self) -> int:
        """How many they are."""
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        """Their names."""
        return self.tensors[index].name

    def get_tensor_dtype(self, name: str) -> "np.dtype[Any]":
        """Their types."""
        return next(tensor.dtype for tensor in self.tensors if tensor.name == name)

    def get_device_memory_size_for_profile_v2(self, _: int) -> int:
        """None of the caller's: sessions have an arena of their own."""
        return 0


class Sessions(dict[GraphName, SessionEngine]):
    """See `LoadedEngines`."""

    cache = None


@dataclass(eq=False)
class SessionContext:
    """A session bound to the addresses of one shape.

    A CUDA graph of its run stays valid: what the session computes in between lies in its arena, which never gives
    memory back, and no two runs of a session are under way at once.
    """

    library: OnnxRuntime
    engine: SessionEngine
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, Address] = field(default_factory=dict)
    binding: Any = None

    def __post_init__(self) -> None:
        self._options = self.library.runtime.RunOptions()
        # The executor waits for the stream.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def is_stream_capturable(self, _stream: Stream) -> bool:
        """Whether all of it runs on the device."""
        return not self.engine.on_cpu()

    def set_optimization_profile_async(self, _profile: int, _stream: Stream) -> None:
        """Sessions have no profiles."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Fix the shape of an input."""
        self.shapes[name] = shape

    def update_device_memory_size_for_shapes(self) -> int:
        """See `SessionEngine.get_device_memory_size_for_profile_v2`."""
        return 0

    def set_device_memory(self, _address: Address, _size: int) -> None:
        """See `SessionEngine.get_device_memory_size_for_profile_v2`."""

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """The shape of an input, or of an output with inputs of these shapes."""
        if name not in self.shapes:
            sizes = {
                axis: size
                for tensor in self.engine.spec.inputs
                for axis, size in zip(tensor.axes, self.shapes[tensor.name], strict=True)
                if isinstance(axis, str)
            }
            self.shapes[name] = next(each for each in self.engine.spec.outputs if each.name == name).shape(sizes)
        return self.shapes[name]

    def set_tensor_address(self, name: str, address: Address) -> None:
        """Fix where a tensor lies."""
        self.addresses[name] = address

    def execute_async_v3(self, _stream: Stream) -> None:
        """Queue one run, on the stream that the session was made for."""
        if self.binding is None:
            self.binding = self._bind()
        self.engine.session.run_with_iobinding(self.binding, self._options)

    def _bind(self) -> Any:  # noqa: ANN401
        binding, device = self.engine.session.io_binding(), (self.library.device_type, self.library.ordinal)
        for tensor in self.engine.tensors:
            is_input = tensor in self.engine.spec.inputs
            bind = binding.bind_input if is_input else binding.bind_output
            bind(tensor.name, *device, tensor.dtype, self.get_tensor_shape(tensor.name), self.addresses[tensor.name])
        return binding
