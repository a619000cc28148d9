"""The published training recipes as files of `hvpnet train`, to copy and to change."""

from importlib.resources import files
from typing import Literal, TypeAlias

RecipeName: TypeAlias = Literal["twitter2015", "twitter2017", "mnre"]


def recipe(name: RecipeName) -> str:
    """The text of a recipe's TOML file; its paths count from the folder that the file will lie in."""
    if name == "twitter2017":  # trained as Twitter-2015 is, on another folder
        text = recipe("twitter2015").replace("Twitter-2015", "Twitter-2017").replace("twitter2015", "twitter2017")
        return text.replace("run_twitter15", "run_twitter17")
    return (files(__name__) / f"{name}.toml").read_text("utf-8")
