"""Serve a bundle: no PyTorch, no transformers, no onnx.

from hvpnet_runtime import Pipeline, Tweet

pipeline = Pipeline.load("bundle")
pipeline([Tweet(text="Jordan was great today", image="a.jpg")])
"""

from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError, BundleError, HvpnetError, InputError, PictureError, TextError
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.types import Entity, EntityResult, RelationResult, Tweet

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "Entity",
    "EntityResult",
    "HvpnetError",
    "InputError",
    "PictureError",
    "Pipeline",
    "RelationResult",
    "TextError",
    "Tweet",
]
