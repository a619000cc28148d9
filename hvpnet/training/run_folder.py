"""The folder of a training run: best checkpoint, log, and the state that a run goes on from after a kill.

Every file is written under a temporary name and renamed, the state last: a kill leaves whole files, and what is newer
than the state is made again.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer

from hvpnet.errors import CheckpointError, ConfigError, HvpnetError
from hvpnet.modeling.checkpoint import save_checkpoint
from hvpnet.modeling.model import HVPNeT
from hvpnet.training.config import TrainingConfig


class TrainingState(TypedDict):
    """Where a run is after a whole epoch: state dicts, and one entry per finished epoch; no pickled code."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    history: list[dict[str, Any]]


class RunFolder:
    """What a training run leaves on the disk.

    Attributes:
        best: the folder of the best checkpoint and its tokenizer.
    """

    def __init__(self, path: Path) -> None:
        self.best = path / "best"
        self._path, self._config, self._history = path, path / "config.toml", path / "history.jsonl"
        self._state = path / "last" / "state.pt"

    def check(self, config: TrainingConfig) -> None:
        """Refuses a folder that this run must not write to; a new one, or an empty one, is fine.

        Raises:
            ConfigError: the folder holds a run of another configuration, or something else.
        """
        if self._config.is_file():
            if TrainingConfig.read(self._config) != config:
                raise ConfigError(
                    f"{self._path} holds a run of another configuration, its config.toml: choose another train.out, or "
                    "remove it"
                )
        elif self._path.is_file() or any(not path.name.startswith(".") for path in self._path.glob("*")):
            raise ConfigError(f"{self._path} holds something else than a training run: choose another train.out")

    def begin(self, config: TrainingConfig) -> None:
        """Marks the folder as that of a run."""
        _replace(self._config, lambda path: path.write_text(config.to_toml(), "utf-8"))

    def read_state(self) -> TrainingState | None:
        """The state after the last finished epoch, or None before the first.

        Raises:
            CheckpointError: the file is damaged.
        """
        if not self._state.is_file():
            return None
        try:
            state: TrainingState = torch.load(self._state, map_location="cpu", weights_only=True)
        except Exception as error:  # arbitrary bytes make the unpickler fail in any way
            raise CheckpointError(f"{self._state} is damaged: remove {self._path} to begin the run again") from error
        return state

    def write_state(self, state: TrainingState) -> None:
        """Keeps the log as the state's history has it, and the state."""
        log = "".join(f"{json.dumps(entry)}\n" for entry in state["history"])
        _replace(self._history, lambda path: path.write_text(log, "utf-8"))
        _replace(self._state, lambda path: torch.save(state, path))

    def write_best(self, model: HVPNeT, tokenizer: Tokenizer) -> None:
        """Replaces the best checkpoint; from one epoch to another only the file of its weights differs."""
        staged = self._path / ".best.new"
        with _writing(self.best):
            save_checkpoint(model, staged)
            (staged / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
            self.best.mkdir(exist_ok=True)
            for file in staged.iterdir():
                file.replace(self.best / file.name)
            staged.rmdir()


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
        write(temporary)
        temporary.replace(path)
