"""The wheel, built once, and virtual environments that have it."""

import subprocess
import sys
import tarfile

import pytest
from filelock import FileLock
from places import ROOT
from virtual_environments import see_packages


@pytest.fixture(scope="session")
def dist(shared_tmp):
    """A folder with the sdist, and the wheel that was built from it alone."""
    out = shared_tmp / "dist"
    with FileLock(out.with_suffix(".lock")):
        if not out.exists():
            build = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--outdir", out]
            subprocess.run([*build, ROOT], check=True, capture_output=True)
    return out


@pytest.fixture(scope="session")
def wheel(dist):
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def source_names(dist):
    """The files of the sdist."""
    (found,) = dist.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """The executables of a fresh virtual environment with the wheel in it."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    see_packages(venv)
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(pip, check=True)
    return venv / "bin"
