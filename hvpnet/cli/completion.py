"""Print what makes a shell complete verbs, options and their values.

For bash: hvpnet completion bash > ~/.local/share/bash-completion/completions/hvpnet
"""

from dataclasses import dataclass
from typing import Literal

from hvpnet.cli.options import VerbOptions, argument

Shell = Literal["bash", "zsh", "fish", "tcsh", "powershell"]


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """What `hvpnet completion` was asked to do."""

    shell: Shell = argument("which shell reads it")


def run(options: Options) -> int:
    """Print the script."""
    import shtab

    from hvpnet.cli.main import command_parser

    print(shtab.complete(command_parser(nested=True), options.shell))
    return 0
