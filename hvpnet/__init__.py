"""HVPNeT: named entities and relations in tweets with pictures, from a trained checkpoint to serving.

The package root stays free of PyTorch, so that the command line and the data readers start fast; names that need it
load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvpnet.modeling.checkpoint import load_checkpoint, save_checkpoint
    from hvpnet.modeling.config import BertConfig, HVPNeTConfig, ResNetConfig
    from hvpnet.modeling.model import HVPNeT

__all__ = ["BertConfig", "HVPNeT", "HVPNeTConfig", "ResNetConfig", "load_checkpoint", "save_checkpoint"]

_HOME = {
    "BertConfig": "hvpnet.modeling.config",
    "HVPNeT": "hvpnet.modeling.model",
    "HVPNeTConfig": "hvpnet.modeling.config",
    "ResNetConfig": "hvpnet.modeling.config",
    "load_checkpoint": "hvpnet.modeling.checkpoint",
    "save_checkpoint": "hvpnet.modeling.checkpoint",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'hvpnet' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
