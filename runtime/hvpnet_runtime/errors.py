"""Errors a user can cause: every message is one line that names the cause and the cure."""

from reprlib import Repr

_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 100
_short.maxlist = _short.maxtuple = _short.maxdict = 8
_short.maxlevel = 3

_MOST_SHOWN, _MOST_CHARACTERS = 200, 1000


def brief(value: object) -> str:
    """A value as messages show it: its `repr`, shortened to some 200 characters at most."""
    try:
        text = _short.repr(value)  # bounds what is made of a large value; lists of lists may still be long together
    except ValueError:  # a number of more digits than Python writes
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def one_line(error: Exception) -> str:
    """What an error says, in one line of bounded length, whatever a library put into it."""
    message = " ".join(str(error).split())
    return message if len(message) <= _MOST_CHARACTERS else f"{message[:_MOST_CHARACTERS]}..."


class HvpnetError(Exception):
    """Base of every error that hvpnet raises on purpose."""


class BundleError(HvpnetError):
    """A bundle is missing, incomplete, edited, truncated, or of a schema this version does not read."""


class InputError(HvpnetError, ValueError):
    """A tweet, or an argument, cannot be used as given."""


class TextError(InputError):
    """The text, its words or its marked pair cannot be tokenised."""


class PictureError(InputError):
    """A picture cannot be read, is too large, or a box lies outside it."""


class BackendError(HvpnetError):
    """No backend can run the bundle here, or the one asked for cannot."""


class DeviceMemoryError(BackendError):
    """Memory of the GPU, or page-locked memory of the host, does not suffice; less of it may."""


class StaleEngineError(BackendError):
    """An engine was built from other graphs, with another version or for another GPU; it must be built again."""


class BuildError(HvpnetError):
    """An engine cannot be built; the bundle is as it was."""


class RepositoryError(HvpnetError):
    """A Triton model repository cannot be written, and nothing is left at its place; or one was edited wrongly."""


class BulkError(HvpnetError):
    """A bulk run cannot begin or go on, or does not have every row; what it finished is kept."""


class ResumeError(BulkError):
    """An interrupted run was of another bundle, input or options."""


class UnreachableError(HvpnetError, ConnectionError):
    """A service cannot be reached at its address, does not answer in time, or is none of hvpnet's."""


class MissingExtraError(HvpnetError, ImportError):
    """A dependency of an optional part is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(package, extra, purpose)  # what pickling makes it again of

    def __str__(self) -> str:
        package, extra, purpose = self.args
        return f"{purpose} needs the package {package}: pip install 'hvpnet[{extra}]'"
