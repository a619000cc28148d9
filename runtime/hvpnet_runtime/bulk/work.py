"""The folder beside the output that holds finished parts until all are: what a killed run goes on from."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hvpnet_runtime.bulk.answers import Answers, JsonLinesAnswers
from hvpnet_runtime.bulk.source import Part
from hvpnet_runtime.bundle.staging import flush
from hvpnet_runtime.errors import BulkError, ResumeError

_LINES = JsonLinesAnswers()  # what was rejected, whatever the format of the answers

_log = logging.getLogger(__name__)


class WorkFolder:
    """Finished parts of one run; made with `hold`.

    A part is three files: what was rejected, what was answered, and the digests of both, as `sha256sum` writes them.
    Each is written under another name first, and the name of the digests makes the part finished. manifest.json says
    what the parts are parts of, and has its own digest.

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
    def hold(cls, output: Path, rejected: Path, suffix: str | None = None) -> "Iterator[WorkFolder]":
        """The work folder of an output and its side file, kept from other runs.

        Parts have the suffix of the output, or this one.

        Raises:
            BulkError: one of them exists, another run is at work on them, or there cannot be a folder.
        """
        path = output.with_name(f"{output.name}.work")
        work = cls(path, output.suffix if suffix is None else suffix)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BulkError(f"{path} cannot be the folder of finished parts: {error.strerror}") from error
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
            BulkError: its manifest is damaged.
        """
        if self._manifest.exists():
            run, self.parts = self._noted()
            changed = [name for name in identity if run.get(name) != identity[name]]
            if not changed:
                return
            if len(self.unfinished()) < len(self.parts):
                raise ResumeError(
                    f"{self.path} holds an interrupted run with another {' and '.join(changed)}: "
                    "restore that to go on, or remove the folder to begin anew"
                )
        self.parts = index()
        values = {"run": identity, "parts": [astuple(part) for part in self.parts]}
        _write(self._manifest, json.dumps({**values, "sha256": _digest(values)}).encode())

    def unfinished(self) -> list[Part]:
        """Parts still to do; one whose files have changed since it was finished is among them, and named in the log."""
        return [part for part in self.parts if not self._is_finished(part)]

    def finish(self, part: Part, answers: bytes, rejected: bytes) -> None:
        """Keep a part, for good."""
        _write(self.rejected(part), rejected)
        _write(self.answers(part), answers)
        _write(self.digests(part), self._seal(part, answers, rejected))

    def answers(self, part: Part) -> Path:
        """The file of a part's answers."""
        return self.path / f"{part.number:05}{self._suffix}"

    def rejected(self, part: Part) -> Path:
        """The file of a part's rejected rows."""
        return self.path / f"{part.number:05}.rejected"

    def digests(self, part: Part) -> Path:
        """The file of the digests of both; `sha256sum --check` reads it."""
        return self.path / f"{part.number:05}.sha256"

    def join(self, answers: Answers, output: Path, rejected: Path) -> tuple[int, Counter[str]]:
        """Make one file of all answers, and one of the rejected rows if there are any, and count what they hold.

        Returns:
            Rows of the output, and of the rejected ones how many by type of error.

        Raises:
            BulkError: a part has changed since it was finished, does not have as many rows as the input has there, or
                the files together not all rows.
        """
        joined, side, reasons = self.path / "joined", self.path / "joined.rejected", Counter[str]()
        with side.open("wb") as lines:

            def contents() -> Iterator[bytes]:
                for part in self.parts:
                    content, rejections = self._checked(part, answers)
                    lines.write(rejections)
                    reasons.update(json.loads(line)["error"]["type"] for line in rejections.splitlines())
                    yield content

            found = answers.join(contents(), joined)
            for file in joined.iterdir() if joined.is_dir() else ():
                flush(file)
        rows = sum(part.rows for part in self.parts)
        with side.open("rb") as refused:
            found += _LINES.count(refused)
        if found != rows:
            raise BulkError(f"{joined} and what was rejected are {found} rows of {rows}: run again to join them anew")
        flush(joined)
        if reasons:
            flush(side)
            side.replace(rejected)
        _remove_folder(output, joined)
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

    def _noted(self) -> tuple[dict[str, Any], list[Part]]:
        """The run and the parts of manifest.json."""
        try:
            values = json.loads(self._manifest.read_text("utf-8"))
            intact = values.pop("sha256") == _digest(values)
            run, parts = values["run"], [Part(*part) for part in values["parts"]]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            intact = False
        if not intact:
            raise BulkError(f"{self._manifest} is damaged: remove the folder {self.path} to begin anew")
        return run, parts

    def _is_finished(self, part: Part) -> bool:
        if not self.digests(part).exists():
            return False
        if self._read(part) is None:
            _log.warning("%s has changed since it was written: its rows are done anew", self._name(part))
            return False
        return True

    def _read(self, part: Part) -> tuple[bytes, bytes] | None:
        """The bytes of both files, if they are those that were written."""
        try:
            answered, refused = self.answers(part).read_bytes(), self.rejected(part).read_bytes()
            intact = self.digests(part).read_bytes() == self._seal(part, answered, refused)
        except OSError:
            return None
        return (answered, refused) if intact else None

    def _name(self, part: Part) -> str:
        return f"{self.answers(part)} or {self.rejected(part).name}"

    def _checked(self, part: Part, answers: Answers) -> tuple[bytes, bytes]:
        """The same, which must be there, and as many rows as the input has there."""
        content, file = self._read(part), self.answers(part)
        if content is None:
            raise BulkError(f"{self._name(part)} has changed since it was written: run again to do its rows anew")
        answered, refused = content
        try:
            found = answers.count(BytesIO(answered)) + _LINES.count(BytesIO(refused))
        except ValueError as error:  # what pyarrow says of a damaged file
            raise BulkError(f"{file} cannot be read ({error}): remove it and run again") from error
        if found != part.rows:
            raise BulkError(f"{file} and what was rejected are {found} rows of {part.rows}: remove it and run again")
        return answered, refused

    def _seal(self, part: Part, answers: bytes, rejected: bytes) -> bytes:
        files = ((answers, self.answers(part)), (rejected, self.rejected(part)))
        return "".join(f"{sha256(content).hexdigest()}  {path.name}\n" for content, path in files).encode()


def _remove_folder(output: Path, joined: Path) -> None:
    """Remove a folder of the output's name that this run has made before it was killed; a folder replaces none.

    Raises:
        BulkError: it holds other files.
    """
    if not (output.is_dir() and joined.is_dir()):
        return
    if {each.name for each in output.iterdir()} - {each.name for each in joined.iterdir()}:
        raise BulkError(f"{output} holds files that are not of this run: move it, and run again")
    shutil.rmtree(output)


def _digest(values: Mapping[str, Any]) -> str:
    """Digest of JSON types, the same once they were written and read."""
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """All or nothing, even if the machine stops."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_bytes(content)
    flush(unfinished)
    unfinished.replace(path)
