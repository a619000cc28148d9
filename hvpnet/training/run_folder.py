"""The folder of a training run: best checkpoint, log, and the state that a run goes on from after a kill.

Every file is written under a temporary name and renamed, the state last: a kill leaves whole files, and what is newer
than the state is made again. Only one process at a time has the folder.
"""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypedDict

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from tokenizers import Tokenizer

from hvpnet.errors import CheckpointError, ConfigError, HvpnetError
from hvpnet.files import load_torch
from hvpnet.modeling.checkpoint import check_finite, save_checkpoint
from hvpnet.modeling.model import HVPNeT
from hvpnet.training.config import TrainingConfig


class TrainingState(TypedDict):
    """Where a run is after a whole epoch: state dicts, and one entry per finished epoch; no pickled code."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    history: list[dict[str, Any]]


class RunFolder:
    """What a training run leaves on the disk; a context that gives the folder back to other processes at its end.

    Attributes:
        best: the folder of the best checkpoint and its tokenizer.
    """

    def __init__(self, path: Path) -> None:
        self.best = path / "best"
        self._path, self._config, self._history = path, path / "config.toml", path / "history.jsonl"
        self._state = path / "last" / "state.pt"
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()  # which lets go of it, as a kill does

    def check(self, config: TrainingConfig) -> None:
        """Refuses a folder that this run must not write to; a new one, or an empty one, is fine.

        Raises:
            ConfigError: the folder holds a run of another configuration, or something else.
            HvpnetError: another process trains there.
        """
        if self._config.is_file():
            if TrainingConfig.read(self._config) != config:
                raise ConfigError(
                    f"{self._path} holds a run of another configuration, its config.toml: choose another train.out, or "
                    "remove it"
                )
        elif self._path.is_file() or any(not path.name.startswith(".") for path in self._path.glob("*")):
            raise ConfigError(f"{self._path} holds something else than a training run: choose another train.out")
        if self._path.is_dir():
            self._take()

    def _take(self) -> None:
        """Keeps other processes away; the lock's file stays, for it means nothing without a process."""
        path = self._path / ".lock"
        with _writing(path):
            self._lock = FileLock(path, blocking=False)
            try:
                self._lock.acquire()
            except Timeout as error:
                raise HvpnetError(
                    f"another process trains in {self._path}: wait for it, or choose another train.out"
                ) from error

    def begin(self, config: TrainingConfig) -> None:
        """Marks the folder as that of a run.

        Raises:
            HvpnetError: another process began to train there meanwhile, or the folder cannot be written.
        """
        if self._lock is None:
            with _writing(self._path):
                self._path.mkdir(parents=True, exist_ok=True)
            self._take()
            if self._config.exists():
                raise HvpnetError(f"another process began to train in {self._path}: choose another train.out")
        _replace(self._config, lambda path: path.write_text(config.to_toml(), "utf-8"))

    def read_state(self) -> TrainingState | None:
        """The state after the last finished epoch, or None before the first.

        Raises:
            CheckpointError: the file is damaged.
        """
        if not self._state.is_file():
            return None
        with self.restoring():
            with zipfile.ZipFile(self._state) as archive:
                if archive.testzip() is not None:  # PyTorch reads other numbers, and says nothing
                    raise zipfile.BadZipFile
            state: Any = load_torch(self._state)
            if state.keys() != TrainingState.__annotations__.keys():
                raise KeyError
            check_finite(state["model"], str(self._state))
        checked: TrainingState = state
        return checked

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Says of whatever fails while the state is put to use that the state is damaged.

        Raises:
            CheckpointError: something failed.
        """
        try:
            yield
        except Exception as error:  # arbitrary bytes, and values of any type, make PyTorch fail in any way
            raise CheckpointError(f"{self._state} is damaged: remove {self._path} to begin the run again") from error

    def write_state(self, state: TrainingState) -> None:
        """Keeps the log as the state's history has it, and the state."""
        log = "".join(f"{json.dumps(entry)}\n" for entry in state["history"])
        _replace(self._history, lambda path: path.write_text(log, "utf-8"))
        _replace(self._state, lambda path: torch.save(state, path))

    def write_best(self, model: HVPNeT, tokenizer: Tokenizer) -> None:
        """Replaces the best checkpoint; from one epoch to another only the file of its weights differs."""
        staged = self._path / ".best.new"
        with _writing(self.best):
            try:
                save_checkpoint(model, staged)
                (staged / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
                self.best.mkdir(exist_ok=True)
                for file in staged.iterdir():
                    file.replace(self.best / file.name)
            finally:
                shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # PyTorch and safetensors have their own for a full disk
        reason = str(error).partition("\n")[0]
        raise HvpnetError(f"{path} cannot be written: {reason}; make room or choose another train.out") from error


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a temporary sibling that then takes the name, so that a kill leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    with _writing(path):
        try:
            write(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
