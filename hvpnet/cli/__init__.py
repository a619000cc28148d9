"""The command `hvpnet`: a verb each, one line on errors, and only the imports a verb needs."""

from hvpnet.cli.main import main

__all__ = ["main"]
