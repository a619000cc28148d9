"""A bundle's contract: what is in the folder, how it is read and checked, and how it is written."""

from hvpnet_runtime.bundle.manifest import SCHEMA_VERSION, Bundle, PictureSpec, Sizes, Task, sha256

__all__ = ["SCHEMA_VERSION", "Bundle", "PictureSpec", "Sizes", "Task", "sha256"]
