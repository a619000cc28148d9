"""What every JSON object that the product prints or writes must be: named in snake_case."""

import re

NAMES = {
    *("engines", "errors", "files", "inputs", "outputs", "parts", "per_relation", "per_type", "produced_by"),
    *("settings", "sources", "splits", "versions"),
}
"""Members whose own members are not ours to name: files, types of entities, packages, exceptions, variables."""

_WORDS_OF_TENSORRT = "layers"  # kinds of layers, and below them types of numbers


def assert_snake_case(value: object) -> None:
    """Every key of every object inside, but for those of `NAMES`."""
    if isinstance(value, dict):
        for name, inner in value.items():
            assert re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name), name
            if name == _WORDS_OF_TENSORRT:
                continue
            assert_snake_case(list(inner.values()) if name in NAMES and isinstance(inner, dict) else inner)
    elif isinstance(value, list):
        for each in value:
            assert_snake_case(each)
