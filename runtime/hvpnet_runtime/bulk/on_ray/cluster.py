"""Ray: started here or joined, how many actors it has room for, and parts run on them."""

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from hvpnet_runtime.backends import CPU_BACKENDS
from hvpnet_runtime.bulk.job import Job
from hvpnet_runtime.bulk.source import Part
from hvpnet_runtime.bulk.worker import Annotator, Done, Failed, outcome_of
from hvpnet_runtime.errors import BulkError, one_line
from hvpnet_runtime.ray_processes import PICTURE_PROCESS, prepare_local_ray, start_local_ray

_OBJECT_STORE_BYTES = 512 * 2**20  # holds answers on their way to the driver, a few MB each
_MOST_THREADS = 4  # beyond which another copy of the bundle gains more than another thread

MOST_TRIES = 3
"""How often a part may end its actor before the run stops: a lost node is bad luck, three are the part's doing."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OnRay:
    """Ray, started here or joined; a `Workers`.

    On a cluster, every node needs the bundle, the input and its pictures under the same paths.

    Attributes:
        address: of a Ray cluster; by default Ray is started on this machine, on loopback, for this run.
        copies: most copies of the bundle at work at once, an actor each; by default as many as the cluster has GPUs, or
            room for on its CPUs.
        threads: CPUs of one copy, for its backend and its pictures; by default its GPU's share of the node, or 4.
    """

    address: str | None = None
    copies: int | None = None
    threads: int | None = None

    def __call__(self, job: Job, digest: str, parts: Sequence[Part]) -> Generator[Done]:
        """See `Workers`."""
        with connect(self.address):
            yield from _run_parts(job, digest, parts, self.pool(job.backend))

    def pool(self, backend: str) -> "Pool":
        """What the cluster has room for, or what was asked for.

        Raises:
            BulkError: no node has the CPUs that one actor takes.
        """
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1 and backend not in CPU_BACKENDS]
        if with_gpu:
            threads = self.threads or max(1, min(int(node.get("CPU", 0) // node["GPU"]) for node in with_gpu))
            room = sum(int(min(node["GPU"], node.get("CPU", 0) // threads)) for node in with_gpu)
        else:
            cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
            threads = self.threads or min([_MOST_THREADS, *cpus])
            room = sum(cpu // threads for cpu in cpus)
        if not room:
            raise BulkError(
                f"no node of the Ray cluster has {threads} CPUs for one actor: lower the threads, or add nodes"
            )
        return Pool(self.copies or room, threads, int(bool(with_gpu)))


@dataclass(frozen=True)
class Pool:
    """How many actors, and what each of them takes."""

    actors: int
    threads: int
    gpus: int


@contextmanager
def connect(address: str | None) -> Iterator[None]:
    """Ray, until the end of the block; where this process has Ray already, that one, and it stays.

    Without an address Ray is started here, on loopback unless this process imported ray before.

    Raises:
        BulkError: there is no cluster at the address, or Ray does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        prepare_local_ray()
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address is None:
            start_local_ray(object_store_memory=_OBJECT_STORE_BYTES, **quiet)
        else:
            _reach(address)
            ray.init(address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        what = f"join the Ray cluster at {address}" if address else "start Ray on this machine"
        raise BulkError(f"cannot {what}: {one_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _run_parts(job: Job, digest: str, parts: Sequence[Part], pool: Pool) -> Iterator[Done]:
    """Annotate parts; they come as they are finished, in any order.

    Ray begins a part anew if its process or its node is lost.

    Raises:
        HvpnetError: what an actor raised, of the same class: a backend does not load or fails, or a node has another
            bundle, a damaged one, or not the input.
        BulkError: an actor raised anything else, or a part ends every process that does it.
    """
    import ray
    import ray.data
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False  # they count parts, and ours counts tweets
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    attempts = ray.remote(_Attempts).options(num_cpus=0, scheduling_strategy=here).remote()
    # A block of one row makes every part a task of its own, which is what Ray hands out and begins anew.
    outcomes = ray.data.from_items([asdict(part) for part in parts], override_num_blocks=len(parts)).map(
        Actor,
        fn_constructor_args=(
            Annotator(job, digest, pool.threads),
            lambda part: ray.get(attempts.begin.remote(part)),
        ),
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=min(pool.actors, len(parts)), max_tasks_in_flight_per_actor=2
        ),
        num_cpus=pool.threads,
        num_gpus=pool.gpus or None,
        runtime_env={"env_vars": PICTURE_PROCESS},
    )
    try:
        for row in outcomes.iter_rows():
            outcome: Done | Failed = row["outcome"]
            if isinstance(outcome, Failed):
                _log.info("%s", outcome.trace)
                raise outcome.error
            yield outcome
    except ray.exceptions.RayError as error:
        raise BulkError(f"Ray gave up ({one_line(error)}): run again to go on") from error


class Actor:
    """A callable class for Ray Data: a part as a row, to `Done` or `Failed` as a row.

    An exception that is raised would reach the driver wrapped by Ray, or be tried again without end.

    Args:
        annotate: does a part.
        begin: counts how often a part was begun anywhere, this time included.
    """

    def __init__(self, annotate: Callable[[Part], Done], begin: Callable[[int], int]) -> None:
        self._annotate, self._begin = annotate, begin

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Annotate one part."""
        return {"outcome": outcome_of(self._try, Part(**row))}

    def _try(self, part: Part) -> Done:
        if self._begin(part.number) > MOST_TRIES:
            raise BulkError(
                f"the part at row {part.first} ended its process {MOST_TRIES} times, for want of memory or by a crash "
                "of the backend: Ray's logs say which"
            )
        return self._annotate(part)


class _Attempts:
    """How often each part was begun, counted by an actor of its own."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        self._begun[number] += 1
        return self._begun[number]
