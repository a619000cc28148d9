"""TensorRT and TensorRT for RTX behind one small adapter: they share the Python API, but for what stands here."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeAlias

from hvpnet_runtime.errors import BackendError, MissingExtraError

EngineName: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]

_log = logging.getLogger(__name__)


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
        """What the library said when a call of it failed."""
        return self.errors[-1] if self.errors else "it gave no reason"

    @contextmanager
    def details(self) -> Iterator[list[str]]:
        """Collect all that the library says meanwhile, its most detailed messages too; one build at a time."""
        self.logger.details = []
        try:
            yield self.logger.details
        finally:
            self.logger.details = None

    def create_context(self, engine: Any) -> Any:  # noqa: ANN401  the libraries have no common types
        """An execution context whose device memory the caller provides.

        Raises:
            BackendError: the library refuses.
        """
        strategy = self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.portable:
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            # Kernels of the exact shape when a bucket is first used, not behind the requests after it: a CUDA graph
            # keeps the kernels that it was captured with.
            kernels = self.trt.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = kernels.EAGER
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context(strategy)
        if context is None:
            raise BackendError(f"{self.engine} cannot create an execution context: {self.last_error()}")
        return context


def load_library(engine: EngineName) -> Library:
    """Import a TensorRT library.

    Raises:
        MissingExtraError: it is not installed.
    """
    name = engine.replace("-", "_")
    try:
        trt = import_module(name)
    except ImportError as error:
        raise MissingExtraError(name, engine, f"the engine {engine}") from error
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
