"""A bundle in NVIDIA's Triton Inference Server: the model repository, and the Python model in it."""

from hvpnet_runtime.triton.repository import Form, RepositoryOptions, write_repository

__all__ = ["Form", "RepositoryOptions", "write_repository"]
