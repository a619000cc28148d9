"""A service to ask."""

import subprocess
import sys
from contextlib import ExitStack

import pytest


@pytest.fixture
def served(free_port):
    """Starts `hvpnet serve` on a bundle, and says where it listens."""
    with ExitStack() as running:

        def start(bundle):
            command = [sys.executable, "-m", "hvpnet", "serve", str(bundle), "--port", str(free_port())]
            process = running.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
            running.callback(process.terminate)
            line = next(line for line in process.stderr if "serving at" in line)
            return line.removeprefix("hvpnet: serving at ").partition(",")[0]

        yield start
