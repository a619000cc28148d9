"""Errors of exporting and verifying."""

from hvpnet.errors import HvpnetError


class ExportError(HvpnetError):
    """A bundle cannot be written; nothing is left at its place."""


class ParityError(ExportError):
    """An exported graph does not answer as the eager model does; the message says where and by how much."""
