"""Errors of training, data and checkpoints; the base class is the runtime's."""

from hvpnet_runtime.errors import HvpnetError, MissingExtraError

__all__ = ["CheckpointError", "ConfigError", "DataError", "HvpnetError", "MissingExtraError"]


class ConfigError(HvpnetError, ValueError):
    """A configuration value is unknown, missing or impossible; the message names it."""


class CheckpointError(HvpnetError):
    """A checkpoint does not have the tensors of an HVPNeT model; the message names them."""


class DataError(HvpnetError):
    """A data set cannot be read; the message names the file and, where there is one, the line."""
