"""What an executor asks of the library that runs a graph: the part of TensorRT's interface that it needs."""

from collections.abc import Callable
from typing import Any, Protocol

from hvpnet_runtime.bundle import GraphName


class EngineLibrary(Protocol):
    """A library whose engines run on a stream of the device.

    Its engines have `num_io_tensors`, `get_tensor_name`, `get_tensor_dtype` and `get_device_memory_size_for_profile_v2`
    as TensorRT's have, and its contexts what `Executor` calls of an `IExecutionContext`.
    """

    @property
    def engine(self) -> str:
        """Its name in messages."""
        ...

    def call(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        """Call it; what fails is a `BackendError` that says what cannot be done and why."""
        ...

    def create_context(self, engine: Any, cache: Any = None) -> Any:  # noqa: ANN401
        """An execution context of an engine."""
        ...

    def dtype(self, dtype: Any) -> str:  # noqa: ANN401
        """A type of a tensor as numpy calls it."""
        ...


class LoadedEngines(Protocol):
    """Engines by graph."""

    @property
    def cache(self) -> Any:  # noqa: ANN401
        """What contexts share, or None."""
        ...

    def __getitem__(self, graph: GraphName) -> Any:  # noqa: ANN401
        """The engine of a graph."""
        ...
