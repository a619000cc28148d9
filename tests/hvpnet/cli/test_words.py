"""Options and messages are the same everywhere: results as JSON, and cures in words of the interface that was used."""

import ast
import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from places import ROOT

from hvpnet.cli.main import VERBS
from hvpnet.cli.options import PipelineOptions, WindowOptions, in_options
from hvpnet_runtime.serving.errors import TweetsError
from hvpnet_runtime.types import Rejection

WITHOUT_RESULT = {"serve", "completion", "recipe"}
"""Verbs that run until they are stopped, or print a text that other programs read."""

LIBRARY = [path for folder in ("hvpnet", "export", "runtime") for path in sorted((ROOT / folder).rglob("*.py"))]
FOR_THE_COMMAND_ALONE = ("hvpnet/cli/", "hvpnet/bench/", "serving/server.py", "serving/on_ray/start.py")


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_with_a_result_prints_it_as_json(verb):
    options = {each.name for each in fields(import_module(f"hvpnet.cli.{verb.replace(' ', '_')}").Options)}
    assert ("json" in options) == (verb not in WITHOUT_RESULT)


def texts(path: Path):
    """The texts of a module that messages are made of: no docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise | ast.Assign | ast.Return | ast.Call):
            parts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
            yield " ".join(part for part in parts if isinstance(part, str))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_library_names_an_option_of_the_command_beside_the_command(path):
    """To whoever calls Python `--labels` says nothing; `hvpnet export --labels` does."""
    if any(part in path.as_posix() for part in FOR_THE_COMMAND_ALONE):
        return
    for text in texts(path):
        if re.search(r"(?<![\w-])--[a-z]{3}", text):
            assert re.search(r"hvpnet [a-z]+|git|sha256sum|pip |LSTM|describe", text), text


def test_cures_are_in_the_words_of_the_interface():
    message = "the pair was cut off; the option window keeps it"
    assert in_options(message, WindowOptions) == "the pair was cut off; --window keeps it"
    assert in_options(message, PipelineOptions) == message  # which has no such option
    assert in_options('choose precision="fp32" or on_bad_image="substitute"', PipelineOptions) == (
        "choose --precision fp32 or --on-bad-image substitute"
    )
    (rejection,) = TweetsError([Rejection(0, None, "TextError", message)]).rejections
    assert rejection.message == "the pair was cut off; the service's setting window keeps it"
