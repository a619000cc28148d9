"""The folder beside the output that holds finished parts until all are: what a killed run goes on from."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hvpnet_runtime.bulk.answers import Answers, JsonLinesAnswers
from hvpnet_runtime.bulk.source import Part
from hvpnet_runtime.bundle.staging import flush
from hvpnet_runtime.errors import BulkError, ResumeError

_LINES = JsonLinesAnswers()  # what was rejected, whatever the format of the answers


class WorkFolder:
    """Finished parts of one run; made with `hold`.

    A part is two files, what was rejected and what was answered. Each is written under another name first, and the
    second one's name makes the part finished. manifest.json says what the parts are parts of.

    Attributes:
        path: the folder.
        parts: all parts of the run.
    """

    def __init__(self, path: Path, suffix: str) -> None:
        self.path = path
        self.parts: Sequence[Part] = ()
        self._suffix = suffix
        self._manifest = path / "manifest.json"

    @classmethod
    @contextmanager
    def hold(cls, output: Path, rejected: Path) -> "Iterator[WorkFolder]":
        """The work folder of an output and its side file, kept from other runs.

        Raises:
            BulkError: one of them exists, or another run is at work on them.
        """
        path = output.with_name(f"{output.name}.work")
        work = cls(path, output.suffix)
        path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path / "lock", blocking=False):
                work._refuse(output, rejected)  # not before: a run that holds the lock may be about to write them
                yield work
        except Timeout as error:
            raise BulkError(f"another run is at work on {output}: wait for it") from error

    def begin(self, identity: Mapping[str, Any], index: Callable[[], Sequence[Part]]) -> None:
        """Take up the run that was interrupted here, or begin one.

        Args:
            identity: what the answers depend on, as JSON types by name.
            index: cuts the input into parts; called unless a run is taken up.

        Raises:
            ResumeError: the interrupted run was another, and has finished parts.
        """
        if self._manifest.exists():
            values = json.loads(self._manifest.read_text("utf-8"))
            self.parts = [Part(*part) for part in values["parts"]]
            changed = [name for name in identity if values["run"].get(name) != identity[name]]
            if not changed:
                return
            if len(self.unfinished()) < len(self.parts):
                raise ResumeError(
                    f"{self.path} holds an interrupted run with another {' and '.join(changed)}: "
                    "restore that to go on, or remove the folder to begin anew"
                )
        self.parts = index()
        values = {"run": identity, "parts": [astuple(part) for part in self.parts]}
        _write(self._manifest, json.dumps(values).encode())

    def unfinished(self) -> list[Part]:
        """Parts still to do."""
        present = {path.name for path in self.path.iterdir()}
        return [part for part in self.parts if self.answers(part).name not in present]

    def finish(self, part: Part, answers: bytes, rejected: bytes) -> None:
        """Keep a part, for good."""
        _write(self.rejected(part), rejected)
        _write(self.answers(part), answers)

    def answers(self, part: Part) -> Path:
        """The file of a part's answers."""
        return self.path / f"{part.number:05}{self._suffix}"

    def rejected(self, part: Part) -> Path:
        """The file of a part's rejected rows."""
        return self.path / f"{part.number:05}.rejected"

    def join(self, answers: Answers, output: Path, rejected: Path) -> tuple[int, Counter[str]]:
        """Make one file of all answers, and one of the rejected rows if there are any, and count what they hold.

        Returns:
            Rows of the output, and of the rejected ones how many by type of error.

        Raises:
            BulkError: a part does not have as many rows as the input has there, or the files together not all rows.
        """
        for part in self.parts:
            self._check(part, answers)
        joined, side = self.path / "joined", self.path / "joined.rejected"
        _LINES.join(map(self.rejected, self.parts), side)
        answers.join(map(self.answers, self.parts), joined)
        with side.open(encoding="utf-8") as lines:
            reasons = Counter(json.loads(line)["error"]["type"] for line in lines)
        found, rows = answers.count(joined) + reasons.total(), sum(part.rows for part in self.parts)
        if found != rows:
            raise BulkError(f"{joined} and what was rejected are {found} rows of {rows}: run again to join them anew")
        flush(joined)
        if reasons:
            flush(side)
            side.replace(rejected)
        joined.replace(output)  # last: where the output is, all is
        flush(output.parent)  # the parts may go now
        return found - reasons.total(), reasons

    def remove(self) -> None:
        """Remove the folder, first what would make a run go on from it."""
        self._manifest.unlink()
        shutil.rmtree(self.path)

    def _refuse(self, *files: Path) -> None:
        """To write over files that are not an interrupted run's own."""
        if self._manifest.exists():
            return
        for file in files:
            if file.exists():
                shutil.rmtree(self.path)  # just made, or of a run that was killed while it removed it
                raise BulkError(f"{file} exists: remove it or choose another name")

    def _check(self, part: Part, answers: Answers) -> None:
        file = self.answers(part)
        try:
            found = answers.count(file) + _LINES.count(self.rejected(part))
        except (OSError, ValueError) as error:  # what pyarrow says of a damaged file is a ValueError
            raise BulkError(f"{file} cannot be read ({error}): remove it and run again") from error
        if found != part.rows:
            raise BulkError(f"{file} and what was rejected are {found} rows of {part.rows}: remove it and run again")


def _write(path: Path, content: bytes) -> None:
    """All or nothing, even if the machine stops."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_bytes(content)
    flush(unfinished)
    unfinished.replace(path)
