"""What the documentation takes from the code when it is built: options of the command, and links to the checkout.

What an example needs (`data-needs`), which the tests read, is left out: a block of code with such a word would be none.
"""

import argparse
import re

from hvpnet.cli.main import VERBS, command_parser

COMMANDS = "<!-- the commands -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the options of every verb into their page; links out of docs/, which is all of the site, become names."""
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, commands())
    markdown = re.sub(r'^(```\w+) data-needs="[^"]*"$', r"\1", markdown, flags=re.MULTILINE)
    return re.sub(r"\[([^]]+)\]\(\.\./([^)#]+)[^)]*\)", r"\1 (`\2` in the repository)", markdown)


def commands() -> str:
    """Markdown of all verbs: what each does, and a table of its options."""
    (verbs,) = (each for each in command_parser()._actions if isinstance(each, argparse._SubParsersAction))  # noqa: SLF001
    return "\n\n".join(_verb(name, verbs.choices[name]) for name in VERBS)


def _verb(name: str, parser: argparse.ArgumentParser) -> str:
    actions = [each for each in parser._actions if not isinstance(each, argparse._HelpAction)]  # noqa: SLF001
    rows = [f"| {_names(each)} | {_escaped(_meaning(each))} |" for each in actions]
    usage = re.sub(r"\s+", " ", parser.format_usage()).removeprefix("usage: ").strip()
    return "\n".join(
        [f"## hvpnet {name}", "", parser.description or "", "", f"`{usage}`", "", "| option | |", "|---|---|", *rows]
    )


def _names(action: argparse.Action) -> str:
    values = "" if action.nargs == 0 else f" {_metavar(action)}"
    if not action.option_strings:
        return f"`{_metavar(action)}`"
    return f"`{', '.join(action.option_strings)}{values}`"


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    return action.metavar or action.dest.upper()


def _meaning(action: argparse.Action) -> str:
    """The help, and what may be given where it is one of a few."""
    words = [(action.help or "").replace("%%", "%")]
    if action.choices:
        words.append(f"one of {', '.join(f'`{each}`' for each in action.choices)}")
    if action.required and action.option_strings:
        words.append("must be given")
    if action.default not in (None, False, argparse.SUPPRESS) and "default" not in words[0]:
        words.append(f"by default {action.default}")
    return "; ".join(filter(None, words))


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")
