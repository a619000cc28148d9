"""Serve a bundle: no PyTorch, no transformers, no onnx.

from hvpnet_runtime import Pipeline, Tweet

pipeline = Pipeline.load("bundle")
pipeline([Tweet(text="Jordan was great today", image="a.jpg")])
"""

from importlib import import_module
from typing import TYPE_CHECKING

from hvpnet_runtime.backends import WarmUpShape, available_backends
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
    UnreachableError,
)
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.split_words import Word, split_words
from hvpnet_runtime.triples import TriplePipeline
from hvpnet_runtime.types import Entity, EntityResult, Mention, Rejection, RelationResult, Triple, TripleResult, Tweet

if TYPE_CHECKING:
    from hvpnet_runtime.client import AsyncClient as AsyncClient
    from hvpnet_runtime.client import Client as Client
    from hvpnet_runtime.serving.errors import ServiceError as ServiceError

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
    "Triple",
    "TriplePipeline",
    "TripleResult",
    "Tweet",
    "UnreachableError",
    "WarmUpShape",
    "Word",
    "available_backends",
    "split_words",
]

_ON_DEMAND = {
    "AsyncClient": "hvpnet_runtime.client",
    "Client": "hvpnet_runtime.client",
    "ServiceError": "hvpnet_runtime.serving.errors",
}
"""Names that load when they are asked for: the clients need an extra. They are not in `__all__`, for what `import *`
brings must be there without one."""


def __getattr__(name: str) -> object:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module 'hvpnet_runtime' has no attribute {name!r}")
    return getattr(import_module(_ON_DEMAND[name]), name)
