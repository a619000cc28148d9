"""Print the published training recipe of a data set, a TOML file for `hvpnet train`."""

from dataclasses import dataclass

from hvpnet.cli.options import VerbOptions, argument
from hvpnet.training.recipes import RecipeName, recipe


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """What `hvpnet recipe` was asked to do."""

    name: RecipeName = argument("of the data set")


def run(options: Options) -> int:
    """Print it."""
    print(recipe(options.name), end="")
    return 0
