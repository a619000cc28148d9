"""What is released: the sdist builds, the wheel installs and answers, and nothing else is in either."""

import json
import subprocess
import sys
import zipfile

import pytest
from places import ROOT
from virtual_environments import environment

pytestmark = pytest.mark.heavy


def test_the_sdist_has_the_sources_the_tests_and_nothing_that_was_built(source_names):
    assert {
        "CMakeLists.txt",
        "LICENSE",
        "README.md",
        "docs/deploy.md",
        "export/hvpnet_export/bundle.py",
        "hvpnet/__init__.py",
        "pyproject.toml",
        "runtime/csrc/crf.cpp",
        "runtime/csrc/wide_vectors.h",
        "runtime/hvpnet_runtime/serving/page.html",
        "tests/conftest.py",
        "tests/support/places.py",
    } <= source_names
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode == 0:  # a checkout, not an unpacked sdist
        assert source_names - {"PKG-INFO"} <= set(tracked.stdout.splitlines())


def test_the_wheel_has_the_three_packages_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"hvpnet", "hvpnet_export", "hvpnet_runtime"}
    modules = [
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*.py")
    ]
    assert sorted(name for name in names if name.endswith(".py")) == sorted(modules)
    others = {name.rpartition("/")[2].partition(".")[0] for name in names if name.endswith((".so", ".pyd"))}
    assert others == {"_crf", "_pixels"}
    assert {name for name in names if name.endswith("py.typed")} == {f"{name}/py.typed" for name in PACKAGES}


PACKAGES = {
    "hvpnet": ROOT / "hvpnet",
    "hvpnet_export": ROOT / "export/hvpnet_export",
    "hvpnet_runtime": ROOT / "runtime/hvpnet_runtime",
}


def test_twine_finds_nothing(dist):
    check = [sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir()]
    subprocess.run(check, check=True, capture_output=True, env=environment(NO_COLOR="1"))


ANSWER = """
import json, sys
import hvpnet
from hvpnet import Pipeline, Tweet
with Pipeline.load(sys.argv[1], "onnxruntime-cpu") as pipeline:
    (answer,) = pipeline([Tweet(text="Jordan was great today")])
ours = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0].startswith("hvpnet")]
print(json.dumps({"answer": answer.to_dict(), "files": [file for file in ours if file]}))
"""


@pytest.fixture(scope="module")
def expected(ner_bundle):
    """What the checkout answers."""
    from hvpnet import Pipeline, Tweet

    with Pipeline.load(ner_bundle, "onnxruntime-cpu") as pipeline:
        (answer,) = pipeline([Tweet(text="Jordan was great today")])
    return answer.to_dict()


def test_an_installed_wheel_answers_from_its_own_files(installed, ner_bundle, tmp_path, expected, assert_equal):
    run = [installed / "python", "-c", f"import hvpnet_export\n{ANSWER}", ner_bundle]
    said = json.loads(subprocess.run(run, check=True, capture_output=True, cwd=tmp_path, env=environment()).stdout)
    assert_equal([said["answer"]], [expected])
    assert [file for file in said["files"] if not file.startswith(str(installed.parent))] == []


def test_the_installed_command_answers(installed, ner_bundle, tmp_path, expected, assert_equal):
    def hvpnet(*arguments):
        run = [installed / "hvpnet", *arguments]
        return subprocess.run(run, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment()).stdout

    import hvpnet as checkout

    assert hvpnet("--version") == f"hvpnet {checkout.__version__}\n"
    said = hvpnet("predict", ner_bundle, "--text", "Jordan was great today", "--json")
    assert_equal([json.loads(said)], [expected])


def test_what_every_platform_checks_of_its_wheel(installed, tmp_path):
    run = [installed / "python", ROOT / ".ci/check_wheel.py"]
    subprocess.run(run, check=True, capture_output=True, cwd=tmp_path, env=environment())


WITHOUT_POSIX = """
import os, sys
for name in ("O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "fork", "register_at_fork", "sysconf", "fchmod"):
    delattr(os, name)
os.supports_dir_fd.clear()
sys.modules["fcntl"] = None
"""


def test_bundles_are_read_without_what_only_posix_has(installed, ner_bundle, tmp_path, expected, assert_equal):
    """As on Windows, as far as one can be that elsewhere."""
    run = [installed / "python", "-c", WITHOUT_POSIX + ANSWER, ner_bundle]
    said = json.loads(subprocess.run(run, check=True, capture_output=True, cwd=tmp_path, env=environment()).stdout)
    assert_equal([said["answer"]], [expected])


@pytest.mark.parametrize("name", ["..\\secret", "C:secret"])
def test_without_posix_a_bundle_still_leads_nowhere_else(installed, name, tmp_path):
    script = f"""{WITHOUT_POSIX}
from pathlib import Path
from hvpnet_runtime.bundle.files import open_regular
from hvpnet_runtime.errors import BundleError
Path("link").symlink_to("/etc/hostname")
for name in ({name!r}, "link"):
    try:
        open_regular(Path.cwd(), name)
    except BundleError as error:
        print(error)
"""
    run = [installed / "python", "-c", script]
    said = subprocess.run(run, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment()).stdout
    outside, link = said.splitlines()
    assert outside.endswith(f"is no file inside {tmp_path}: export the checkpoint again")
    assert (
        link == f"{tmp_path / 'link'} is a link, or lies behind one: copy the files themselves into the folder (cp -rL)"
    )
