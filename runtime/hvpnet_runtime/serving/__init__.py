"""The HTTP service on Ray Serve: `hvpnet_runtime.serving.app:build` makes the application out of `Settings`."""

from hvpnet_runtime.serving.settings import Settings

__all__ = ["Settings"]
