"""A real Triton server on this machine, from the wheel of nvidia-pytriton that `make` puts beside the tests' Python."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import tritonclient.grpc
import tritonclient.http

PACKAGE = Path(sys.prefix) / "tritonserver"
STAND_INS = Path(__file__).parent / "backends"
LIMIT = 180  # seconds for the server to load its models


@dataclass
class Server:
    """Clients of a running server."""

    http: tritonclient.http.InferenceServerClient
    grpc: tritonclient.grpc.InferenceServerClient


def make_backends(folder: Path) -> Path:
    """The server's Python backend with the stub of this Python, and what stands in for its other backends."""
    server = PACKAGE / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    if not stub.is_dir():
        pytest.fail(f"{stub} is missing: make test puts the server there, for Python 3.8 to 3.13", pytrace=False)
    shutil.copytree(server / "backends" / "python", folder / "python")
    shutil.copy(stub / "triton_python_backend_stub", folder / "python")
    shutil.copytree(STAND_INS, folder, dirs_exist_ok=True)
    return folder


def start(repositories: Sequence[Path], backends: Path, ports: tuple[int, int], log: Path) -> subprocess.Popen[bytes]:
    options = [f"--model-repository={path}" for path in repositories] + [
        f"--backend-directory={backends}",
        *("--model-control-mode=explicit", "--load-model=*", "--allow-metrics=false", "--exit-timeout-secs=20"),
        *("--http-address=127.0.0.1", "--grpc-address=127.0.0.1", f"--http-port={ports[0]}", f"--grpc-port={ports[1]}"),
    ]
    libraries = (str(PACKAGE / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR"))
    environment = os.environ | {
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        # The stub ignores PYTHONPATH. It takes the Python found first, and before its packages the working folder's,
        # where NumPy 1 stands: with NumPy 2, this version of the stub reads every array wrongly.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with log.open("wb") as output:
        return subprocess.Popen(
            [PACKAGE / "pytriton" / "tritonserver" / "bin" / "tritonserver", *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=PACKAGE,
            env=environment,
            start_new_session=True,
        )


def wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):  # it does not listen yet
            if server.http.is_server_ready():
                return
        time.sleep(0.2)
    pytest.fail(f"tritonserver did not start; its log ends with\n{log.read_text('utf-8', 'replace')[-4000:]}")


@contextmanager
def running(repositories: Sequence[Path], folder: Path, ports: tuple[int, int]) -> Iterator[Server]:
    log = folder / "tritonserver.log"
    process = start(repositories, make_backends(folder / "backends"), ports, log)
    try:
        server = Server(
            tritonclient.http.InferenceServerClient(f"127.0.0.1:{ports[0]}", network_timeout=LIMIT),
            tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{ports[1]}"),
        )
        wait_until_ready(server, process, log)
        yield server
        server.grpc.close()
        server.http.close()
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what is left of it, and of its processes for models
        process.wait()


@pytest.fixture(scope="module")
def serve(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Callable[[Sequence[Path]], AbstractContextManager[Server]]:
    """Runs a server over model repositories."""

    def serve(repositories: Sequence[Path]) -> AbstractContextManager[Server]:
        return running(repositories, tmp_path_factory.mktemp("tritonserver"), (free_port(), free_port()))

    return serve
