"""What others print while we do something is dropped; ours is not."""

import logging
import os
import subprocess
import sys

import pytest

from hvpnet.cli.own_lines import own_lines

SCRIPT = """
import logging, os, sys
from hvpnet.cli.own_lines import own_lines

logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
try:
    with own_lines(everything=len(sys.argv) > 1) as stream:
        print("theirs")
        print("theirs", file=sys.stderr)
        os.write(2, b"theirs\\n")
        logging.getLogger("ray").error("theirs")
        logging.getLogger("hvpnet_runtime.bulk").warning("ours")
        print("our bar é", file=stream)
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print("result")
    print("error", file=sys.stderr)
    logging.getLogger("ray").error("after")
"""


def run(*arguments: str) -> list[str]:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, encoding="utf-8", check=True, env=environment
    )
    assert done.stdout == "result\n"
    return done.stderr.splitlines()


def test_only_ours() -> None:
    assert run() == ["hvpnet_runtime.bulk: ours", "our bar é", "error", "ray: after"]


def test_everything_to_standard_error() -> None:
    ours = ["hvpnet_runtime.bulk: ours", "our bar é", "error", "ray: after"]
    assert run("all") == [*["theirs"] * 3, "ray: theirs", *ours]


def test_a_stream_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    with own_lines(everything=False) as stream:
        print("theirs", file=sys.stderr)
        logging.getLogger("ray").error("theirs")
        print("ours", file=stream)
    print("after", file=sys.stderr)
    assert capsys.readouterr().err == "ours\nafter\n"
