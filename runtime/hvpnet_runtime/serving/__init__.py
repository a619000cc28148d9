"""The HTTP service: in one process (`server`), or on Ray Serve (`on_ray`), out of the same `Settings`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvpnet_runtime.serving.settings import Settings

__all__ = ["Settings"]


def __getattr__(name: str) -> object:  # a client reads `errors` here, without pydantic
    if name != "Settings":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hvpnet_runtime.serving.settings import Settings

    return Settings
