"""Errors of exporting and verifying."""

from hvpnet.errors import HvpnetError


class ExportError(HvpnetError):
    """A bundle cannot be written; nothing is left at its place."""


class IncompleteError(ExportError):
    """Graphs of some precisions could not be made or verified; the bundle is there, with those that passed."""


class ParityError(ExportError):
    """An exported graph does not answer as the eager model does; the message says where and by how much."""
