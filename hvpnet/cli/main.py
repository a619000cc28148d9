"""Parse the command line, run the verb, and turn errors and signals into one line and an exit code."""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from io import TextIOWrapper
from typing import Any

from hvpnet.cli.options import add_options, in_options, select
from hvpnet.errors import HvpnetError, MissingExtraError
from hvpnet_runtime.errors import one_line

VERBS = {
    "demo": "generate picture-tweets, train, export, verify, predict, and write a report",
    "data check": "say what a data set holds and what is missing from it",
    "recipe": "print the published training recipe of a data set",
    "train": "train a model by the paper's recipe",
    "export": "turn a checkpoint into a bundle of two ONNX graphs",
    "build": "build TensorRT engines from a bundle's graphs",
    "verify": "hold a bundle's graphs against the checkpoint they came from",
    "inspect": "check a bundle's files and show what it holds",
    "predict": "extract entities or relations from one tweet or from JSON lines",
    "annotate": "extract from a file of any size, on this machine or on a Ray cluster",
    "triples": "extract entities and the relations between them from a file of any size",
    "evaluate": "score a bundle on a data set",
    "triton": "write a Triton model repository of a bundle",
    "bench": "time a bundle against its checkpoint in PyTorch",
    "serve": "answer requests over HTTP",
    "completion": "print what makes a shell complete this command",
    "ground": "write a data set with the objects that a bundle's grounder finds in its pictures",
    "ground add": "give a bundle a grounder, which finds objects in pictures",
    "ground tune": "choose the threshold of a bundle's grounder on the dev split of a data set",
    "triples tune": "choose the threshold of triples on the dev split of a data set",
}

_EXTRAS = {
    "annotate": "bulk",
    "bench": "bench",
    "demo": "train,bench,cpu",
    "evaluate": "eval",
    "ground": "grounding",
    "ground tune": "eval",
    "serve": "serve",
    "train": "train",
    "triples": "bulk",
}
"""What brings a verb's packages; every other verb needs `export`."""

_EXTRAS_OF_PACKAGES = {"onnxruntime": "cpu", "ray": "ray", "aiohttp": "ray", "pandas": "ray"}
"""What brings a package whatever the verb is. Ray's extras bring two for parts of Ray itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `hvpnet`.

    Args:
        arguments: the command line without the program's name; by default that of the process.

    Returns:
        The exit code: 0, 1 for an error of the task or values that do not go together, 2 for a command line that cannot
        be parsed, 130 when interrupted, 128 and its number when another signal ended it.
    """
    if isinstance(sys.stdout, TextIOWrapper):  # what a terminal cannot show must not end a run
        sys.stdout.reconfigure(errors="backslashreplace")
    parsed = command_parser().parse_args(_one_verb(sys.argv[1:] if arguments is None else arguments))
    logging.basicConfig(level=logging.INFO if parsed.debug else logging.WARNING, format="%(name)s: %(message)s")
    try:
        with _signals_unwind():
            code: int = parsed.run(select(parsed.options, parsed))
            sys.stdout.flush()  # here, where a full disk still is an error of the run
    except _Terminated as stop:
        return _fail("terminated", 128 + stop.number)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        if parsed.debug:
            raise
        if isinstance(error, BrokenPipeError):
            sys.stderr.close()  # the reader of our output is gone: nothing more to say, and nobody to say it to
            return 1
        return _fail(in_options(_one_line(parsed.verb, error), parsed.options), 1)
    return code


class _Terminated(KeyboardInterrupt):
    """A signal that ends the process; like Ctrl+C, nothing catches it on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Lets a signal to end unwind the verb, which removes what it has staged, instead of ending it where it is.

    A verb that has a way of its own to stop, as `serve`, takes the signals over.
    """
    ours: list[signal.Signals] = []

    def stop(number: int, _frame: object) -> None:
        raise _Terminated(number)  # again at a second one, for Python drops what is raised in a finaliser

    if threading.current_thread() is threading.main_thread():
        ends = (signal.SIGTERM, signal.SIGHUP) if sys.platform != "win32" else (signal.SIGTERM,)
        ours = [each for each in ends if signal.getsignal(each) is signal.SIG_DFL]
    for each in ours:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)


def _one_verb(arguments: Sequence[str]) -> list[str]:
    """A command line whose verb is one argument, also where it is two words."""
    verb = " ".join(arguments[:2])
    return [verb, *arguments[2:]] if verb in VERBS else list(arguments)


def command_parser(*, nested: bool = False) -> argparse.ArgumentParser:
    """The parser of the command line, which the documentation is made of, too.

    Args:
        nested: verbs of two words are below that of the first word, which is what completes them but does not parse.
    """
    parser = argparse.ArgumentParser(
        prog="hvpnet", description="From a trained HVPNeT checkpoint to entities and relations.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"hvpnet {version('hvpnet')}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, help_ in VERBS.items():
        module = import_module(f"hvpnet.cli.{name.replace(' ', '_')}")
        above, _, last = name.rpartition(" ") if nested else ("", "", name)
        family = _family(verbs, above) if above else verbs
        verb = family.add_parser(last, help=help_, description=module.__doc__, allow_abbrev=False)
        is_family = nested and any(each.startswith(f"{name} ") for each in VERBS)
        add_options(verb, module.Options, by_place=not is_family)
        verb.set_defaults(run=module.run, options=module.Options)
    return parser


def _family(verbs: Any, first: str) -> Any:  # noqa: ANN401  argparse's type of it is private
    """Where the verbs that begin with a word are added."""
    parser = verbs.choices.get(first) or verbs.add_parser(first, help=f"verbs of {first}")
    family = parser.get_default("family")
    if family is None:
        family = parser.add_subparsers(metavar="VERB")
        parser.set_defaults(family=family)
    return family


def _one_line(verb: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("hvpnet"):
        package = error.name.partition(".")[0]
        extra = _EXTRAS_OF_PACKAGES.get(package) or _EXTRAS.get(verb, "export")
        error = MissingExtraError(package, extra, f"hvpnet {verb}")
    message = one_line(error)
    if isinstance(error, HvpnetError | OSError):
        return message
    return f"unexpected {type(error).__name__}: {message} (--debug shows where)"


def _fail(message: str, code: int) -> int:
    print(f"hvpnet: error: {message}", file=sys.stderr)
    return code
