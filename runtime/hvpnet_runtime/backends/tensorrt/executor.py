"""One TensorRT engine at one shape: its execution context, its buffers on both sides, and its CUDA graph."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from hvpnet_runtime.backends.base import Array
from hvpnet_runtime.backends.cuda import Address, Cuda, Graph, Stream
from hvpnet_runtime.backends.tensorrt.library import Library
from hvpnet_runtime.errors import BackendError

_log = logging.getLogger(__name__)

_ON_DEVICE = "prefix"
"""What never visits the host: it goes from one engine to the other."""


class Executor:
    """Runs an engine at one shape, always on the same stream.

    Each has an execution context of its own, because a CUDA graph stays valid only while its context keeps profile,
    shapes and addresses. Copies in, kernels and copies out are one graph: one launch a request.

    Attributes:
        host: pinned arrays by name, but for the prefix, which stays on the device: inputs to fill before `start`,
            outputs to read once the stream is done.
        device: addresses of all inputs and outputs by name.
        running: whether work of this executor may still be under way.

    Args:
        cuda: the device.
        api: the engine's library.
        engine: the deserialised engine.
        profile: index of the optimisation profile.
        shapes: of every input.
        scratch: address and bytes of memory for activations, shared by executors of one stream.
        stream: where everything is queued.
        cuda_graph: whether to capture a graph; where the library cannot, kernels are queued one by one.

    Raises:
        BackendError: the library or the device refuses.
    """

    def __init__(
        self,
        cuda: Cuda,
        api: Library,
        engine: Any,  # noqa: ANN401  TensorRT has no types
        profile: int,
        shapes: Mapping[str, tuple[int, ...]],
        scratch: tuple[Address, int],
        stream: Stream,
        *,
        cuda_graph: bool = True,
    ) -> None:
        self.host: dict[str, Array] = {}
        self.device: dict[str, Address] = {}
        self.running = False
        self._cuda, self._api, self._stream = cuda, api, stream
        self._graph: Graph | None = None
        self._inputs = tuple(shapes)
        self._context = api.create_context(engine)
        self._require(self._context.set_optimization_profile_async(profile, stream), "select its profile")
        self._context.set_device_memory(*scratch)
        try:
            for name, shape in shapes.items():
                self._require(self._context.set_input_shape(name, shape), f"take {name} of shape {shape}")
            for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
                self._allocate(engine, name)
            self._enqueue()  # once outside the graph: the first run sets the library up
            cuda.synchronize(stream)
            if cuda_graph and self._capturable():
                self._graph = self._capture()
            elif cuda_graph:
                _log.warning("%s cannot capture %s as a CUDA graph: kernels are queued one by one", api.engine, shapes)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Queue one run."""
        self.running = True
        if self._graph is not None:
            self._cuda.launch(self._graph, self._stream)
        else:
            self._enqueue()

    def close(self) -> None:
        """Free the context, the graph and the buffers."""
        if self._graph is not None:
            self._cuda.destroy_graph(self._graph)
            self._graph = None
        self._context = None
        for pinned in self.host.values():
            self._cuda.free_host(pinned)
        for address in self.device.values():
            self._cuda.free(address)
        self.host, self.device = {}, {}

    def _allocate(self, engine: Any, name: str) -> None:  # noqa: ANN401
        shape = tuple(self._context.get_tensor_shape(name))
        dtype = np.dtype(self._api.trt.nptype(engine.get_tensor_dtype(name)))
        self.device[name] = self._cuda.malloc(int(np.prod(shape)) * dtype.itemsize)
        self._require(self._context.set_tensor_address(name, self.device[name]), f"take the address of {name}")
        if name != _ON_DEVICE:
            self.host[name] = self._cuda.malloc_host(shape, dtype)
            self.host[name].fill(0)

    def _enqueue(self) -> None:
        for name, pinned in self.host.items():
            if name in self._inputs:
                self._cuda.copy(self.device[name], pinned.ctypes.data, pinned.nbytes, self._stream)
        self._require(self._context.execute_async_v3(self._stream), "run")
        for name, pinned in self.host.items():
            if name not in self._inputs:
                self._cuda.copy(pinned.ctypes.data, self.device[name], pinned.nbytes, self._stream)

    def _capturable(self) -> bool:
        ask = getattr(self._context, "is_stream_capturable", None)  # TensorRT itself always is
        return ask is None or bool(ask(self._stream))

    def _capture(self) -> Graph:
        self._cuda.begin_capture(self._stream)
        try:
            self._enqueue()
        except BackendError:
            with suppress(BackendError):  # a stream must not be left capturing, and the first error says why
                self._cuda.destroy_graph(self._cuda.end_capture(self._stream))
            raise
        return self._cuda.end_capture(self._stream)

    def _require(self, done: object, what: str) -> None:
        if not done:
            raise BackendError(f"{self._api.engine} cannot {what}: {self._api.last_error()}")
