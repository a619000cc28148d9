"""TensorRT and TensorRT for RTX behind one small adapter: they share the Python API, but for what stands here."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeAlias

import numpy as np

from hvpnet_runtime.errors import (
    BackendError,
    BuildError,
    DeviceMemoryError,
    HvpnetError,
    MissingExtraError,
    one_line,
)

EngineName: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]

_log = logging.getLogger(__name__)

_MOST_ERRORS = 200
"""Errors that are kept: a service that fails for days must not fill its memory with the reasons."""


@dataclass(frozen=True)
class Library:
    """A TensorRT library.

    Attributes:
        engine: which of the two it is.
        trt: its Python module.
        logger: a `trt.ILogger` that passes warnings to logging and keeps the errors in `errors`.
        errors: what the library reported as errors since it was loaded.
    """

    engine: EngineName
    trt: Any
    logger: Any
    errors: list[str]

    @property
    def version(self) -> str:
        """The library's version."""
        return str(self.trt.__version__)

    @property
    def portable(self) -> bool:
        """Whether an engine runs on other GPUs than the one it was built for: TensorRT for RTX finishes it there."""
        return self.engine == "tensorrt-rtx"

    def last_error(self) -> str:
        """What the library said last, since `builder` if that was called: for the steps of one build."""
        return self.errors[-1] if self.errors else _NO_REASON

    @contextmanager
    def details(self) -> Iterator[list[str]]:
        """Collect all that the library says meanwhile, its most detailed messages too; one build at a time."""
        self.logger.details = []
        try:
            yield self.logger.details
        finally:
            self.logger.details = None

    def call(
        self,
        what: str,
        function: Callable[..., Any],
        *arguments: Any,  # noqa: ANN401  the libraries have no common types
        error: type[HvpnetError] = BackendError,
    ) -> Any:  # noqa: ANN401
        """Call the library; a call that fails is a typed error with what the library said during this call.

        Its calls fail in three ways: by None or False, by the TypeError that pybind makes of a null pointer in a
        constructor, and by a RuntimeError.

        Args:
            what: is done by the call, as in "the library cannot ...".
            function: of the library.
            arguments: of the function.
            error: which one is raised.

        Returns:
            What the call returned, which is neither None nor False.

        Raises:
            DeviceMemoryError: the library says that memory does not suffice, where `error` is a `BackendError`.
        """
        del self.errors[:-_MOST_ERRORS]
        heard, cause = len(self.errors), None
        try:
            result = function(*arguments)
        except (TypeError, RuntimeError, MemoryError) as raised:
            result, cause = None, raised
        del function, arguments  # the traceback of an error would keep engine or context alive
        if result is None or result is False:
            said = self.errors[heard:]
            reason = said[-1] if said else one_line(cause) if cause else _NO_REASON
            told = " ".join(map(_spaced, [*said, reason])).lower()
            if error is BackendError and (isinstance(cause, MemoryError) or "out of memory" in told):
                error = DeviceMemoryError
            raise error(f"{self.engine} cannot {what}: {reason}") from cause
        return result

    def runtime(self) -> Any:  # noqa: ANN401
        """A `trt.Runtime`.

        Raises:
            BackendError: the library makes none, for instance because it has no GPU that it knows.
        """
        return self.call("run here", self.trt.Runtime, self.logger)

    def builder(self) -> Any:  # noqa: ANN401
        """A `trt.Builder`; what was said before it is forgotten.

        Raises:
            BuildError: the library makes none.
        """
        self.errors.clear()
        return self.call("build here", self.trt.Builder, self.logger, error=BuildError)

    def dtype(self, dtype: Any) -> str:  # noqa: ANN401
        """A type of a tensor as numpy calls it; the library's own word for one that numpy lacks."""
        try:
            name: str = np.dtype(self.trt.nptype(dtype)).name
        except TypeError:
            return str(dtype)
        return name

    def create_cache(self, engine: Any) -> Any:  # noqa: ANN401
        """An empty `IRuntimeCache` for contexts of any engine; None where the library compiles nothing at run time.

        Raises:
            BackendError: the library refuses.
        """
        if not self.portable:
            return None
        config = self.call("configure an execution context", engine.create_runtime_config)
        return self.call("keep compiled kernels", config.create_runtime_cache)

    def create_context(self, engine: Any, cache: Any = None) -> Any:  # noqa: ANN401
        """An execution context whose device memory the caller provides. Makes the device wait; see `captures`.

        Args:
            engine: the engine.
            cache: of `create_cache`, with the kernels that other contexts had compiled; None for none.

        Raises:
            BackendError: the library refuses.
        """
        what = "create an execution context"
        strategy = self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self.portable:
            return self.call(what, engine.create_execution_context, strategy)
        config = self.call("configure an execution context", engine.create_runtime_config)
        config.set_execution_context_allocation_strategy(strategy)
        # Kernels of the exact shape when a bucket is first used, not behind the requests after it: a CUDA graph
        # keeps the kernels that it was captured with.
        kernels = self.trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = kernels.EAGER
        if cache is not None:
            self.call("share compiled kernels", config.set_runtime_cache, cache)
        return self.call(what, engine.create_execution_context, config)


_NO_REASON = "it gave no reason"


def _spaced(message: str) -> str:
    """TensorRT says both "out of memory" and "OutOfMemory"."""
    return message.replace("OutOfMemory", "out of memory")


def load_library(engine: EngineName) -> Library:
    """Import a TensorRT library.

    Raises:
        MissingExtraError: it is not installed.
        BackendError: it is, and does not load.
    """
    name = engine.replace("-", "_")
    try:
        trt = import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(name, engine, f"the engine {engine}") from error
    except (ImportError, OSError, RuntimeError) as error:  # a library that it needs is missing, or is another version
        raise BackendError(f"the package {name} does not load: {one_line(error)}") from error
    errors: list[str] = []
    return Library(engine, trt, _logger(trt, errors), errors)


def _logger(trt: Any, errors: list[str]) -> Any:  # noqa: ANN401
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.INFO,  # most are about the library itself, not about this bundle
        trt.ILogger.INFO: logging.DEBUG,
        trt.ILogger.VERBOSE: logging.DEBUG,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

            self.details: list[str] | None = None  # where somebody collects them

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            if self.details is not None:
                self.details.append(message)
            if levels[severity] == logging.ERROR:
                errors.append(" ".join(message.split()))
            _log.log(min(levels[severity], logging.INFO), "%s", message)  # what fails raises, with the message

    return Logger()
