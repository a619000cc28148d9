"""A model's task, labels and sizes as the manifest states them; its fields are `hvpnet_runtime.bundle.Manifest`'s."""

from dataclasses import asdict
from importlib.metadata import version

from hvpnet.modeling.config import HVPNeTConfig
from hvpnet.modeling.visual_prefix import PICTURES
from hvpnet_runtime.bundle import Limits, Manifest, Sizes

_PRODUCERS = ("hvpnet", "torch", "transformers", "onnx", "onnxscript")


def manifest_of(config: HVPNeTConfig) -> Manifest:
    """The manifest of a bundle that has no graphs yet."""
    bert = config.bert
    return Manifest(
        task=config.task,
        variant=config.variant,
        head=config.head if config.task == "re" else None,
        labels=config.labels,
        sizes=Sizes(
            hidden=bert.hidden_size,
            layers=bert.num_hidden_layers,
            heads=bert.num_attention_heads,
            vocabulary=bert.vocab_size,
            prefix_length=config.prefix_length,
            pictures=config.pictures,
        ),
        architecture={"bert": asdict(bert), "resnet": asdict(config.resnet) if config.resnet else None},
        preprocessing=PICTURES,
        limits=Limits(config.max_length),
        precision=(),
        produced_by={name: version(name) for name in _PRODUCERS},
    )
