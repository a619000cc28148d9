"""Pages that list things of the code list all of them."""

import re
from importlib import import_module
from inspect import getdoc
from pkgutil import walk_packages

import pytest
from places import ROOT

import hvpnet
import hvpnet_export
import hvpnet_runtime
from hvpnet.cli.main import VERBS
from hvpnet.errors import HvpnetError
from hvpnet.training.config import BertSizes, DataOptions, ModelOptions, RunOptions

DOCS = ROOT / "docs"


def error_classes():
    """All that can be raised, by name; modules that need what is not here define none."""
    for package in (hvpnet, hvpnet_export, hvpnet_runtime):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.rpartition(".")[2] in ("errors", "infer_config", "workers"):
                import_module(module.name)
    found, left = set(), [HvpnetError]
    while left:
        subclasses = [each for each in left.pop().__subclasses__() if each.__module__.startswith("hvpnet")]
        found |= {each.__name__ for each in subclasses}
        left += subclasses
    return {name for name in found if not name.startswith("_")}


def test_every_error_is_listed_with_its_cause_and_cure():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", (DOCS / "errors.md").read_text("utf-8"), re.MULTILINE)
    defined = set()
    for package in ("hvpnet", "export/hvpnet_export", "runtime/hvpnet_runtime"):
        for path in (ROOT / package).rglob("*.py"):
            defined |= set(re.findall(r"^class ([A-Z]\w+Error)\(", path.read_text("utf-8"), re.MULTILINE))
    assert error_classes() <= defined
    assert sorted(name for name, _, _ in rows) == sorted(error_classes())


@pytest.mark.parametrize("options", [DataOptions, ModelOptions, RunOptions])
def test_every_key_of_a_configuration_is_described(options):
    described = re.findall(r"^    (\w+): ", getdoc(options), re.MULTILINE)
    assert described == list(options.__dataclass_fields__)


def test_the_page_of_training_shows_every_table():
    page = (DOCS / "training.md").read_text("utf-8")
    for options in (DataOptions, ModelOptions, BertSizes, RunOptions):
        assert f"::: {options.__module__}.{options.__name__}\n" in page


def test_the_page_of_commands_has_every_verb_with_its_options(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    commands = import_module("hooks").commands()
    assert re.findall(r"^## hvpnet (.*)$", commands, re.MULTILINE) == list(VERBS)
    predict = commands[commands.index("## hvpnet predict") : commands.index("## hvpnet annotate")]
    assert "| `--jpeg JPEG` | decode large JPEGs in full, or scaled: " in predict
    assert "one of `full`, `scaled`; by default full |" in predict
    assert "| `BUNDLE` |" in predict


def test_every_name_of_the_door_is_on_the_page_of_python():
    page = (DOCS / "python.md").read_text("utf-8") + (DOCS / "errors.md").read_text("utf-8")
    page += (DOCS / "training.md").read_text("utf-8")
    assert [name for name in hvpnet.__all__ if not re.search(rf"\b{name}\b", page)] == []
