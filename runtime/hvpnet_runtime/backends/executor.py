"""One graph at one shape: its execution context, its buffers on both sides, and its CUDA graph."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from hvpnet_runtime.backends.base import Array
from hvpnet_runtime.backends.captures import no_collection
from hvpnet_runtime.backends.cuda import Address, Cuda, Graph, Stream
from hvpnet_runtime.backends.engine import EngineLibrary
from hvpnet_runtime.backends.scratch import Scratch
from hvpnet_runtime.errors import BackendError, DeviceMemoryError
from hvpnet_runtime.processes import never_free_in_forks

_log = logging.getLogger(__name__)

_ON_DEVICE = "prefix"
"""What never visits the host: it goes from one engine to the other."""

_ALIGNMENT = 256
"""Libraries want every tensor's address to be a multiple of this."""

_RUNS_BEFORE_CAPTURE = 2
"""Runs outside the graph: the first sets the library up, and ONNX Runtime allocates by what it saw in the second."""

_CAPTURES = 2
"""Attempts: what breaks a capture from another thread is seldom there twice."""

_LIBRARIES = 4
"""ONNX Runtime, cuDNN, cuBLAS and TensorRT bring a CUDA runtime each, and each has a last error of its own."""


@dataclass(frozen=True)
class _Block:
    """Tensors of one direction, one after the other: one copy takes them all."""

    address: Address
    pinned: Array  # uint8 [bytes]


class Executor:
    """Runs an engine at one shape, always on the same stream.

    Each has an execution context of its own, because a CUDA graph stays valid only while its context keeps profile,
    shapes and addresses. Copies in, kernels and copies out are one graph: one launch a request. Whoever makes or
    closes one holds the device's lock (`Cuda.exclusive`).

    Attributes:
        host: pinned arrays by name, but for the prefix, which stays on the device: inputs to fill before `start`,
            outputs to read once the stream is done.
        device: addresses of all inputs and outputs by name.
        nbytes: device memory of these.
        running: whether work of this executor may still be under way.

    Args:
        cuda: the device.
        api: the engine's library.
        engine: the deserialised engine.
        profile: index of the optimisation profile.
        shapes: of every input.
        scratch: memory for activations, shared by executors of one stream.
        stream: where everything is queued.
        cuda_graph: whether to capture a graph; where that cannot be done, kernels are queued one by one.
        cache: the library's `IRuntimeCache`, where it has one.

    Raises:
        BackendError: the library or the device refuses; nothing is left on the device.
        DeviceMemoryError: its memory does not suffice.
    """

    def __init__(
        self,
        cuda: Cuda,
        api: EngineLibrary,
        engine: Any,  # noqa: ANN401  TensorRT has no types
        profile: int,
        shapes: Mapping[str, tuple[int, ...]],
        scratch: Scratch,
        stream: Stream,
        *,
        cuda_graph: bool = True,
        cache: Any = None,  # noqa: ANN401
    ) -> None:
        self.host: dict[str, Array] = {}
        self.device: dict[str, Address] = {}
        self.nbytes, self.running = 0, False
        self._cuda, self._api, self._stream = cuda, api, stream
        self._graph: Graph | None = None
        self._sent: _Block | None = None
        self._answered: _Block | None = None
        self._held = ExitStack()
        try:
            self._held.callback(self._forget_context)
            self._context = api.create_context(engine, cache)
            never_free_in_forks(self._context)
            self._select(engine, profile, shapes, scratch)
            self._allocate(engine, shapes)
            for _ in range(_RUNS_BEFORE_CAPTURE):
                self._enqueue()
            cuda.synchronize(stream)
            if cuda_graph:
                self._graph = self._capture(shapes)
        except BaseException:
            with suppress(BackendError):  # the first error says why
                self.close()
            raise

    def start(self) -> None:
        """Queue one run.

        Raises:
            BackendError: the library or the device refuses.
        """
        self.running = True
        if self._graph is not None:
            self._cuda.launch(self._graph, self._stream)
        else:
            self._enqueue()

    def close(self) -> None:
        """Free the context, the graph and the buffers."""
        self.host, self.device, self._sent, self._answered = {}, {}, None, None
        self._held.close()

    def _forget_context(self) -> None:
        self._context = None

    def _select(self, engine: Any, profile: int, shapes: Mapping[str, tuple[int, ...]], scratch: Scratch) -> None:  # noqa: ANN401
        call = self._api.call
        call("select its profile", self._context.set_optimization_profile_async, profile, self._stream)
        for name, shape in shapes.items():
            call(f"take {name} of shape {shape}", self._context.set_input_shape, name, shape)
        # As much as these shapes need; 0 says that it is not known.
        size = call("size its memory", self._context.update_device_memory_size_for_shapes)
        size = int(size or engine.get_device_memory_size_for_profile_v2(profile))
        address = scratch.take(size)
        self._held.callback(scratch.give_back, address)
        self._context.set_device_memory(address, size)

    def _allocate(self, engine: Any, inputs: Mapping[str, tuple[int, ...]]) -> None:  # noqa: ANN401
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        tensors = {
            name: (
                tuple(self._context.get_tensor_shape(name)),
                np.dtype(self._api.dtype(engine.get_tensor_dtype(name))),
            )
            for name in names
        }
        self._sent = self._block({name: each for name, each in tensors.items() if name in inputs})
        self._answered = self._block({name: each for name, each in tensors.items() if name not in inputs})
        if _ON_DEVICE in tensors:
            shape, dtype = tensors[_ON_DEVICE]
            self.device[_ON_DEVICE] = self._malloc(prod(shape) * dtype.itemsize)
        for name in names:
            self._api.call(f"take the address of {name}", self._context.set_tensor_address, name, self.device[name])

    def _block(self, tensors: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> _Block | None:
        """Memory on both sides for what visits the host; None where nothing does."""
        places, end = {}, 0
        for name, (shape, dtype) in tensors.items():
            if name != _ON_DEVICE:
                places[name] = slice(end, end + prod(shape) * dtype.itemsize)
                end = -(-places[name].stop // _ALIGNMENT) * _ALIGNMENT
        if not places:
            return None
        size = max(place.stop for place in places.values())
        pinned = self._cuda.malloc_host((size,), np.uint8)
        self._held.callback(self._cuda.free_host, pinned)
        pinned.fill(0)
        block = _Block(self._malloc(size), pinned)
        for name, place in places.items():
            shape, dtype = tensors[name]
            self.host[name] = pinned[place].view(dtype).reshape(shape)
            self.device[name] = block.address + place.start
        return block

    def _malloc(self, size: int) -> Address:
        address = self._cuda.malloc(size)
        self._held.callback(self._cuda.free, address)
        self.nbytes += size
        return address

    def _enqueue(self) -> None:
        if self._sent is not None:
            sent = self._sent.pinned
            self._cuda.copy(self._sent.address, sent.ctypes.data, sent.nbytes, self._stream)
        self._api.call("run", self._context.execute_async_v3, self._stream)
        if self._answered is not None:
            answered = self._answered.pinned
            self._cuda.copy(answered.ctypes.data, self._answered.address, answered.nbytes, self._stream)

    def _capture(self, shapes: Mapping[str, tuple[int, ...]]) -> Graph | None:
        """The graph of one run, or None where it cannot be had, which a warning says."""
        reason = f"{self._api.engine} cannot capture this engine"
        ask = getattr(self._context, "is_stream_capturable", None)  # TensorRT itself always is
        for _ in range(_CAPTURES if ask is None or ask(self._stream) else 0):
            try:
                graph = self._record()
            except BackendError as error:
                reason = str(error)
                self._settle()
            else:
                self._held.callback(self._cuda.destroy_graph, graph)
                return graph
        _log.warning("no CUDA graph of %s (%s): kernels are queued one by one", dict(shapes), reason)
        return None

    def _settle(self) -> None:
        """Run without a capture until it passes: libraries report the error of a broken one in their next call too.

        Raises:
            BackendError: the context does not run any more.
        """
        for left in reversed(range(_LIBRARIES)):
            try:
                self._enqueue()
                self._cuda.synchronize(self._stream)
            except DeviceMemoryError:
                raise
            except BackendError:
                if not left:
                    raise
            else:
                return

    def _record(self) -> Graph:
        with no_collection():
            self._cuda.begin_capture(self._stream)
            try:
                self._enqueue()
            except BaseException:
                with suppress(BackendError):  # a stream must not be left capturing, and the first error says why
                    self._cuda.destroy_graph(self._cuda.end_capture(self._stream))
                raise
            return self._cuda.end_capture(self._stream)
