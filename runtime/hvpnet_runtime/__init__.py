"""Serve a bundle: no PyTorch, no transformers, no onnx.

from hvpnet_runtime import Pipeline, Tweet

pipeline = Pipeline.load("bundle")
pipeline([Tweet(text="Jordan was great today", image="a.jpg")])
"""

from hvpnet_runtime.backends import available_backends
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import (
    BackendError,
    BundleError,
    HvpnetError,
    InputError,
    MissingExtraError,
    PictureError,
    StaleEngineError,
    TextError,
)
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.split_words import Word, split_words
from hvpnet_runtime.types import Entity, EntityResult, Mention, Rejection, RelationResult, Tweet

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "Entity",
    "EntityResult",
    "HvpnetError",
    "InputError",
    "Mention",
    "MissingExtraError",
    "PictureError",
    "Pipeline",
    "Rejection",
    "RelationResult",
    "StaleEngineError",
    "TextError",
    "Tweet",
    "Word",
    "available_backends",
    "split_words",
]
