"""The HTTP service: in one process (`server`), or on Ray Serve (`on_ray`), out of the same `Settings`."""

from hvpnet_runtime.serving.settings import Settings

__all__ = ["Settings"]
