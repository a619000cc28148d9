"""HVPNeT: named entities and relations in tweets with pictures, from a trained checkpoint to serving.

from hvpnet import Pipeline, Tweet

The names of the runtime need no PyTorch. All names load on first use, so that the command line starts fast.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvpnet.modeling.checkpoint import load_checkpoint, save_checkpoint
    from hvpnet.modeling.config import BertConfig, HVPNeTConfig, ResNetConfig
    from hvpnet.modeling.model import HVPNeT
    from hvpnet_runtime import (
        AsyncClient,
        BackendError,
        Bundle,
        BundleError,
        Client,
        Entity,
        EntityResult,
        HvpnetError,
        InputError,
        Mention,
        MissingExtraError,
        PictureError,
        Pipeline,
        Rejection,
        RelationResult,
        ServiceError,
        StaleEngineError,
        TextError,
        Triple,
        TriplePipeline,
        TripleResult,
        Tweet,
        UnreachableError,
        WarmUpShape,
        Word,
        available_backends,
        split_words,
    )

__version__ = version("hvpnet")

__all__ = [
    "AsyncClient",
    "BackendError",
    "BertConfig",
    "Bundle",
    "BundleError",
    "Client",
    "Entity",
    "EntityResult",
    "HVPNeT",
    "HVPNeTConfig",
    "HvpnetError",
    "InputError",
    "Mention",
    "MissingExtraError",
    "PictureError",
    "Pipeline",
    "Rejection",
    "RelationResult",
    "ResNetConfig",
    "ServiceError",
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
    "load_checkpoint",
    "save_checkpoint",
    "split_words",
]

_MODELING = {
    "BertConfig": "hvpnet.modeling.config",
    "HVPNeT": "hvpnet.modeling.model",
    "HVPNeTConfig": "hvpnet.modeling.config",
    "ResNetConfig": "hvpnet.modeling.config",
    "load_checkpoint": "hvpnet.modeling.checkpoint",
    "save_checkpoint": "hvpnet.modeling.checkpoint",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'hvpnet' has no attribute {name!r}")
    return getattr(import_module(_MODELING.get(name, "hvpnet_runtime")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
