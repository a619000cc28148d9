"""What annotates parts in processes, and fails there, without a bundle."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from hvpnet_runtime.bulk.source import Part
from hvpnet_runtime.bulk.worker import Done
from hvpnet_runtime.errors import StaleEngineError


@dataclass(frozen=True)
class Naming:
    """Answers with the process, its GPU and its SIGINT; waits until as many processes have begun."""

    folder: Path
    processes: int

    def __call__(self, part: Part) -> Done:
        (self.folder / str(os.getpid())).touch()
        while len(list(self.folder.iterdir())) < self.processes:
            time.sleep(0.01)
        return Done(part.number, os.environ.get("CUDA_VISIBLE_DEVICES", "none").encode(), b"", 0, (str(os.getpid()),))


@dataclass(frozen=True)
class Failing:
    """Fails at one part: with an error, or with the process."""

    number: int
    exit_code: int | None = None

    def __call__(self, part: Part) -> Done:
        if part.number == self.number:
            if self.exit_code is not None:
                os._exit(self.exit_code)
            raise StaleEngineError("built for another GPU")
        return Done(part.number, b"", b"", 0, ("fake",))
