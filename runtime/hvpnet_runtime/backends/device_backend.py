"""What backends on a GPU share: buffers made once per bucket, one CUDA graph a request, prefixes on the device.

A request takes a lane: a stream with its own executors, so that several threads run at once. Between the vision and the
text graph nothing waits on the host; the text graph's stream waits for the events of the prefixes it reads.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from queue import LifoQueue
from threading import Lock
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Pixels, Prefix, TextInputs, WarmUpShape, no_pictures
from hvpnet_runtime.backends.cuda import Cuda
from hvpnet_runtime.backends.device_prefixes import DevicePrefix, PrefixPool
from hvpnet_runtime.backends.grounder import Grounder
from hvpnet_runtime.backends.halving import Halving
from hvpnet_runtime.backends.lane import Lane, fill
from hvpnet_runtime.backends.profiles import Bucket, Profile, choose_bucket, every_bucket, most_rows
from hvpnet_runtime.bundle import Bundle, GraphName, Precision
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.processes import Origin

T = TypeVar("T")


class DeviceBackend(ABC):
    """See `Backend`. Prefixes are `DevicePrefix`. Requests are padded to the buckets of the profiles.

    A batch that the device's memory does not suffice for is run in halves. Whoever derives from this loads the graphs
    and calls `_open` with the lanes.

    Args:
        name: in `BACKENDS`.
        bundle: says what the graphs read.
        precision: of the graphs.
        profiles: by graph, which shapes it is run at.
        cuda: the device.
    """

    lanes: int
    longer_texts: str
    """What a user does to run longer texts than the profiles'."""
    run_tokens: int | None = None

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        precision: Precision,
        profiles: Mapping[GraphName, tuple[Profile, ...]],
        cuda: Cuda,
    ) -> None:
        self.name, self.precision = name, str(precision)
        self._bundle, self._cuda, self._origin = bundle, cuda, Origin()
        self._specs, self._profiles = bundle.specs(precision), profiles
        self._longest = max(profile.length or 0 for profile in profiles["text"])
        self.max_length: int | None = self._longest if self._longest < bundle.manifest.limits.max_length else None
        self._halving = Halving(self.name)
        self._pool: PrefixPool | None = None
        self._lanes: LifoQueue[Lane] = LifoQueue()
        self._all_lanes: list[Lane] = []
        self._taking_all, self._closed = Lock(), False

    def _open(self, held: ExitStack, lanes: Iterable[Lane]) -> None:
        """Make the lanes and the pool of prefixes, which are freed before what is held already."""
        if "vision" in self._specs:
            self._pool = PrefixPool(self._cuda, self._specs["vision"].output.nbytes({"pictures": 1}))
            held.callback(self._pool.close)
        for lane in lanes:
            held.callback(lane.close)
            self._all_lanes.append(lane)
            self._lanes.put(lane)
        self._held = held.pop_all()

    @abstractmethod
    def load_grounder(self) -> Grounder:
        """See `BundleBackend`."""

    def encode_pictures(self, pixels: Pixels) -> Sequence[Prefix]:
        """See `Backend`. Returns as soon as the work is queued."""
        pool = self._prefix_pool()

        def run(part: slice, bucket: Bucket) -> list[DevicePrefix]:
            count = part.stop - part.start
            with self._lane() as lane:
                executor = lane.executor(self._specs["vision"], bucket)
                executor.host["images"][:count] = pixels[part]  # [n, crop, crop, 3]
                executor.start()
                return pool.store(executor.device["prefix"], count, lane.stream)

        return [prefix for prefixes in self._in_parts("vision", len(pixels), None, run) for prefix in prefixes]

    def place_prefix(self, prefix: npt.NDArray[np.float32]) -> Prefix:
        """See `Backend`."""
        pool = self._prefix_pool()
        with self._lane() as lane:
            return pool.place(prefix.astype(self._specs["vision"].output.dtype), lane.stream)

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        self._origin.check()
        rows, length = text.input_ids.shape
        if length > self._longest:
            raise BackendError(
                f"{self.name} runs texts of up to {self._longest} pieces here, not of {length}: {self.longer_texts}"
            )

        def run(part: slice, bucket: Bucket) -> npt.NDArray[np.float32]:
            return self._encode_rows(text.rows(part), prefixes[part], bucket)

        return np.concatenate(self._in_parts("text", rows, length, run))

    def warm_up(self, shapes: Sequence[WarmUpShape] = ()) -> None:
        """See `Backend`. Every lane captures and runs each shape; none given: every bucket of the engines.

        Requests of other threads wait meanwhile.
        """
        self._require_open()
        asked: set[tuple[GraphName, int, int | None]] = set()
        for shape in shapes:
            asked |= {("text", shape.texts, shape.length), ("vision", shape.pictures, None)}
        if not asked:
            asked = {
                (graph, bucket.rows, bucket.length)
                for graph in self._specs
                for bucket in every_bucket(self._profiles[graph])
            }
        largest_first = sorted(asked, key=lambda each: (each[1] * (each[2] or 1), each), reverse=True)
        with self._every_lane() as lanes:
            self._require_open()
            for lane in lanes:
                for graph, rows, length in largest_first:
                    if graph in self._specs:
                        self._in_parts(graph, rows, length, partial(self._warm_up, lane, graph))
                lane.synchronize()

    def close(self) -> None:
        """See `Backend`. Waits for requests under way; a forked process has nothing to free."""
        if not self._origin.is_here:
            return
        with self._every_lane():
            self._closed = True
            self._all_lanes = []
            self._held.close()

    def _prefix_pool(self) -> PrefixPool:
        self._origin.check()
        if self._pool is None:
            raise BackendError(no_pictures(self.name, closed=self._closed))
        return self._pool

    def _in_parts(self, graph: GraphName, rows: int, length: int | None, run: Callable[[slice, Bucket], T]) -> list[T]:
        """Run rows in as few parts as the engine and the device's memory allow, each in the bucket that holds it."""
        profiles = self._profiles[graph]
        padded = choose_bucket(profiles, 1, length).length

        def run_part(part: slice) -> T:
            return run(part, choose_bucket(profiles, part.stop - part.start, length))

        return self._halving.run((graph, padded), rows, most_rows(profiles), run_part)

    def _encode_rows(
        self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]], bucket: Bucket
    ) -> npt.NDArray[np.float32]:
        with self._lane() as lane:
            executor = lane.executor(self._specs["text"], bucket)
            for name, array in text.arrays().items():
                fill(executor.host[name], array)
            if self._pool is not None:
                gathered = cast("list[DevicePrefix]", [prefix for row in prefixes for prefix in row])
                self._pool.gather(executor.device["prefix"], gathered, lane.stream)
            executor.start()
            lane.synchronize()
            output, (batch, length) = self._specs["text"].output, text.input_ids.shape
            shape = output.shape({"batch": batch, "length": length})
            return np.array(executor.host[output.name][tuple(map(slice, shape))], np.float32)

    def _warm_up(self, lane: Lane, graph: GraphName, _: slice, bucket: Bucket) -> None:
        lane.executor(self._specs[graph], bucket).start()  # on what its buffers hold; the first launch is slow too

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        lane = self._lanes.get()
        try:
            self._require_open()
            self._cuda.use()
            yield lane
        finally:
            self._lanes.put(lane)

    @contextmanager
    def _every_lane(self) -> Iterator[list[Lane]]:
        """All lanes, once the requests under way are done; none of them after `close`."""
        taken: list[Lane] = []
        with self._taking_all:  # two that take them one by one would wait for each other
            try:
                while len(taken) < len(self._all_lanes):
                    taken.append(self._lanes.get())
                with suppress(BackendError):  # of a device that failed; what needs it says so, and the rest is freed
                    self._cuda.use()
                yield taken
            finally:
                for lane in taken:  # after `close` too, so that a late request fails instead of waiting for ever
                    self._lanes.put(lane)

    def _require_open(self) -> None:
        self._origin.check()
        if self._closed:
            raise BackendError(f"the backend {self.name} is closed")
