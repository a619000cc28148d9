"""Pages whose examples are run as they stand: fenced blocks, what they need, and what they print.

A block of `console` has commands after `$ ` and what each prints below it: its standard output, and after that its
standard error where it fails. A block of `text` below one of `python` is what that one prints. A `title` is the file
that a block is written to. Three dots stand for anything. `data-needs` says what an example needs that is not here.

A command that begins with `hvpnet serve` serves until the page ends, or another one serves, at a port of its own, which
stands for 8000 in what follows.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from waiting import eventually

PATIENCE = 600  # seconds until a command counts as hung

_FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUN = ("console", "python")


@dataclass(frozen=True)
class Block:
    language: str
    attributes: dict[str, str]
    text: str
    line: int

    @property
    def needs(self) -> str | None:
        return self.attributes.get("data-needs")


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(
            match[1],
            dict(re.findall(r'([\w-]+)="([^"]*)"', match[2])),
            match[3],
            text.count("\n", 0, match.start()) + 1,
        )
        for match in _FENCE.finditer(text)
    ]


def walk(page: Path, folder: Path, free_port: Callable[[], int]) -> None:
    """Runs a page's examples in a folder, the names of Python kept from one to the next."""
    with contextlib.ExitStack() as services:
        _walk(page, folder, _Service(folder, free_port, services))


def _walk(page: Path, folder: Path, service: "_Service") -> None:
    names: dict[str, object] = {"__name__": "example"}
    blocks = blocks_of(page)
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        where = f"{page.name}:{block.line}"
        if block.needs:
            continue
        if title := block.attributes.get("title"):
            (folder / title).write_text(block.text, "utf-8")
        elif block.language == "console":
            for command, expected in _commands(block.text):
                if command.startswith("hvpnet serve "):
                    service.start(command)
                else:
                    _hold(expected, _run(service.at_its_port(command), folder), f"{where}: {command}")
        elif block.language == "python":
            expected = after.text if after and after.language == "text" else ""
            _hold(expected, _execute(service.at_its_port(block.text), names, folder, where), where)


class _Service:
    """The one that a page started last."""

    def __init__(self, folder: Path, free_port: Callable[[], int], services: contextlib.ExitStack) -> None:
        self._folder, self._free_port, self._services, self._port = folder, free_port, services, 8000

    def at_its_port(self, text: str) -> str:
        return text.replace("127.0.0.1:8000", f"127.0.0.1:{self._port}")

    def start(self, command: str) -> None:
        """Comes back when it is ready."""
        self._services.close()
        self._port = self._free_port()
        self._services.enter_context(_serving(f"{command.partition('#')[0]} --port {self._port}", self._folder))


@contextlib.contextmanager
def _serving(command: str, folder: Path) -> Iterator[None]:
    log = folder / "serving.log"
    with log.open("w") as stderr, subprocess.Popen(_shell(f"exec {command}"), cwd=folder, stderr=stderr) as process:
        try:
            eventually(lambda: "serving at" in log.read_text("utf-8") or process.poll() is not None, PATIENCE)
            assert process.poll() is None, log.read_text("utf-8")
            yield
        finally:
            process.terminate()


def _commands(text: str) -> list[tuple[str, str]]:
    found: list[tuple[list[str], list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(([line[2:]], []))
        elif not found[-1][1] and found[-1][0][-1].endswith(("\\", "|")):
            found[-1][0].append(line)
        else:
            found[-1][1].append(line)
    return [("\n".join(command), "\n".join(output)) for command, output in found]


def _run(command: str, folder: Path) -> str:
    done = subprocess.run(
        _shell(command), cwd=folder, capture_output=True, encoding="utf-8", timeout=PATIENCE, check=False
    )
    return done.stdout + (done.stderr if done.returncode else "")


def _shell(command: str) -> list[str]:
    """A command line whose `hvpnet` is that of this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return ["env", f"PATH={path}", "bash", "-o", "pipefail", "-c", command]


def _execute(code: str, names: dict[str, object], folder: Path, where: str) -> str:
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, where, "exec"), names)
    return printed.getvalue()


def _hold(expected: str, found: str, where: str) -> None:
    """Lines may end in any white space."""
    wanted, got = ("\n".join(line.rstrip() for line in text.strip("\n").split("\n")) for text in (expected, found))
    pattern = ".*?".join(re.escape(part) for part in wanted.split("..."))
    assert re.fullmatch(pattern, got, re.DOTALL), f"{where}\n--- the page says\n{wanted}\n--- it prints\n{got}"
