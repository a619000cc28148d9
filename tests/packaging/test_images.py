"""The Dockerfiles: no image is built, but their steps are run in a virtual environment, and their service is asked."""

import json
import os
import re
import shlex
import subprocess
from urllib.request import urlopen

import pytest
from places import ROOT
from virtual_environments import environment, see_packages
from waiting import eventually

pytestmark = pytest.mark.heavy


class Dockerfile:
    """The instructions of a Dockerfile: a list of (word, rest) for each of its stages, by name; the last is `""`."""

    def __init__(self, name):
        text = (ROOT / f"docker/{name}.Dockerfile").read_text("utf-8")
        lines = re.sub(r"\\\n\s*", "", "".join(line for line in text.splitlines(keepends=True) if line[0] != "#"))
        self.stages, self.arguments, stage = {}, {}, []
        for word, rest in (line.split(maxsplit=1) for line in lines.splitlines() if line):
            if word == "FROM":
                stage = self.stages[rest.partition(" AS ")[2]] = []
            elif word == "ARG":
                self.arguments.update([rest.split("=")])
            stage.append((word, rest))

    def runs(self, stage):
        return [rest for word, rest in self.stages[stage] if word == "RUN"]

    def last(self, word):
        """The rest of an instruction of the image itself."""
        (rest,) = [rest for each, rest in self.stages[""] if each == word]
        return rest


@pytest.fixture(params=["cpu", "gpu"])
def dockerfile(request):
    return Dockerfile(request.param)


@pytest.fixture
def image(dockerfile, wheel, tmp_path):
    """The steps that install, in a folder instead of /; packages of the extras are those of the tests."""
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / wheel.name).hardlink_to(wheel)
    make, *rest = (
        line.replace("/opt", f"{tmp_path}/opt").replace("/wheels", f"{tmp_path}/wheels")
        for line in dockerfile.runs("install")
    )
    shell = environment(**dockerfile.arguments, PIP_NO_DEPS="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
    subprocess.run(make, shell=True, check=True, env=shell)
    see_packages(tmp_path / "opt/hvpnet")
    for line in rest:
        if "pip check" not in line:  # which would check the packages of the tests
            subprocess.run(line, shell=True, check=True, env=shell, capture_output=True)
    return tmp_path


def test_the_service_of_an_image_is_healthy(dockerfile, image, ner_bundle, free_port):
    port = str(free_port())
    path = dockerfile.last("ENV").split()[0].removeprefix("PATH=").replace("/opt", f"{image}/opt")
    shell = environment(PATH=path.replace("${PATH}", os.environ["PATH"]))
    command = [*json.loads(dockerfile.last("ENTRYPOINT")), *json.loads(dockerfile.last("CMD")), "--port", port]
    command[command.index("/bundle")] = str(ner_bundle)
    command[command.index("0.0.0.0")] = "127.0.0.1"
    check = json.loads(dockerfile.last("HEALTHCHECK").rpartition("CMD ")[2])
    check[-1] = check[-1].replace("8000", port)

    def is_healthy():
        return subprocess.run(check, env=shell, cwd=image, capture_output=True, check=False).returncode == 0

    assert not is_healthy()
    with subprocess.Popen(command, env=shell, cwd=image, stderr=subprocess.DEVNULL) as service:
        try:
            eventually(lambda: is_healthy() or service.poll() is not None)
            with urlopen(f"http://127.0.0.1:{port}/v1/service") as answer:
                assert [each["name"] for each in json.load(answer)["bundles"]] == [ner_bundle.name]
        finally:
            service.terminate()
        assert service.wait() == 0


def test_an_image_is_small_and_not_root(dockerfile):
    words = [word for word, _ in dockerfile.stages[""]]
    assert dockerfile.stages[""][0][1].endswith("-slim")
    assert dockerfile.last("USER").isdecimal()
    assert f"--uid {dockerfile.last('USER')} " in dockerfile.last("RUN")
    assert words.count("COPY") == 1
    assert dockerfile.last("COPY").split()[0] == "--from=install"


def test_the_wheel_is_built_from_what_docker_ignore_lets_in(dockerfile, source_names):
    """Every file of a package, and what builds it."""
    assert [shlex.split(line)[:2] for line in dockerfile.runs("wheel")][-1] == ["pip", "wheel"]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert kept == {"CMakeLists.txt", "LICENSE", "README.md", "export", "hvpnet", "pyproject.toml", "runtime"}
    assert {name.partition("/")[0] for name in source_names} >= kept
