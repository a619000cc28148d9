"""A bulk run on this machine: in this process, or in one for each GPU."""

import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from hvpnet_runtime.backends import CPU_BACKENDS
from hvpnet_runtime.backends.cuda import visible_gpus
from hvpnet_runtime.bulk.job import Job
from hvpnet_runtime.bulk.processes import annotate_in_processes
from hvpnet_runtime.bulk.source import Part
from hvpnet_runtime.bulk.worker import Annotator, Done
from hvpnet_runtime.errors import InputError


@dataclass(frozen=True)
class Local:
    """This machine, without Ray; a `Workers`. More than one copy of the bundle are as many processes.

    They import the script that began the run, as processes of `multiprocessing` do, so that it has to call `annotate`
    under `if __name__ == "__main__"`.

    Attributes:
        copies: most copies of the bundle at work at once; by default one for each GPU, and one where there is none.
            A GPU has one copy at most.
        threads: CPUs of one copy, for its backend and its pictures; by default its share of all.
        device: number of the GPU that one copy runs on, from 0; by default a copy runs on each.
    """

    copies: int | None = None
    threads: int | None = None
    device: int | None = None

    def __call__(self, job: Job, digest: str, parts: Sequence[Part]) -> Generator[Done]:
        """See `Workers`.

        Raises:
            InputError: a GPU is chosen for several copies.
        """
        if self.device is not None:
            if (self.copies or 1) > 1:
                raise InputError(f"GPU {self.device} alone is chosen, and a GPU has one copy, not {self.copies}")
            with closing(Annotator(job, digest, self.threads, self.device)) as annotate:
                yield from map(annotate, parts)
            return
        gpus = [] if job.backend in CPU_BACKENDS else visible_gpus()
        places: list[str | None] = [*gpus] or [None] * (self.copies or 1)
        places = places[: min(self.copies or len(places), len(parts))]
        if len(places) == 1:
            with closing(Annotator(job, digest, self.threads)) as annotate:
                yield from map(annotate, parts)
        else:
            share = max(1, (os.cpu_count() or 1) // len(places))
            yield from annotate_in_processes(Annotator(job, digest, self.threads or share), parts, places)
