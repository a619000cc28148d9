"""Read task, variant and sizes off the tensors of a published checkpoint.

Published checkpoints are bare state dicts (zjunlp/HVPNeT saves `model.state_dict()`): names and shapes are all there
is. What shapes cannot tell is asked for, never guessed: the relation names, the number of attention heads where it is
not hidden / 64, and `only_obj`, whose tensors are those of `full`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

from hvpnet.config import DEFAULT_MAX_LENGTH, BertConfig, Head, HVPNeTConfig, ResNetConfig, Task, Variant
from hvpnet.data.examples import NER_LABELS
from hvpnet.errors import CheckpointError, ConfigError

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

HEAD_SIZE = 64
"""Width of an attention head in every published BERT of 128 hidden units or more, MiniLM's apart."""


@dataclass(frozen=True)
class Hints:
    """What the tensors cannot tell, or what the caller insists on.

    Attributes:
        task: refuse a checkpoint of another task.
        variant: needed for `only_obj`; any other value must agree with the tensors.
        labels: NER labels or relations by index; may be left out for the published 13 NER labels.
        max_length: pieces per tweet; by default as in the published runs (128 for NER, 80 for relations).
        bert: the text encoder's own configuration, for num_attention_heads, hidden_act and layer_norm_eps; one of
            another hidden_size is another encoder's, and not read.
    """

    task: Task | None = None
    variant: Variant | None = None
    labels: Sequence[str] | None = None
    max_length: int | None = None
    bert: Mapping[str, object] | None = None


def infer_config(shapes: Shapes, hints: Hints = Hints()) -> HVPNeTConfig:
    """The configuration of the model that a state dict of these shapes belongs to.

    Raises:
        CheckpointError: the tensors are not those of an HVPNeT model, or contradict the hints.
    """
    task = _task(shapes, hints.task)
    variant = _variant(shapes, hints.variant)
    classifier = _shape(shapes, "fc.weight" if task == "ner" else "classifier.weight", 2)
    labels = _labels(task, classifier[0], hints.labels)
    try:
        bert = _bert(shapes, hints.bert or {})
        head: Head = "cls" if task == "re" and classifier[1] == bert.hidden_size else "markers"
        return HVPNeTConfig(
            task=task,
            labels=labels,
            bert=bert,
            resnet=None if variant == "text_only" else _resnet(shapes),
            variant=variant,
            head=head,
            max_length=hints.max_length or min(DEFAULT_MAX_LENGTH[task], bert.max_position_embeddings),
            **_prefix_sizes(shapes, bert.hidden_size, variant),
        )
    except ConfigError as error:
        raise CheckpointError(f"the checkpoint's tensors do not fit together: {error}") from error


def _shape(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(f"not an HVPNeT checkpoint: it has no tensor {name}")
    shape = tuple(shapes[name])
    if len(shape) != dimensions or min(shape) < 1:
        raise CheckpointError(
            f"not an HVPNeT checkpoint: {name} has shape {list(shape)}, expected {dimensions} dimensions"
        )
    return shape


def _count(shapes: Shapes, pattern: str) -> int:
    """How many consecutive indices from 0 the pattern's group takes among the names."""
    found = {int(match[1]) for name in shapes if (match := re.match(pattern, name))}
    if found != set(range(len(found))):
        raise CheckpointError(
            f"not an HVPNeT checkpoint: layers {sorted(found)} of {pattern!r} are not numbered from 0"
        )
    return len(found)


def _task(shapes: Shapes, wanted: Task | None) -> Task:
    task: Task = "ner" if "crf.transitions" in shapes else "re"
    if task == "re" and "classifier.weight" not in shapes:
        raise CheckpointError(
            "not an HVPNeT checkpoint: it has neither crf.transitions (entities) nor classifier.weight (relations)"
        )
    if wanted not in (None, task):
        raise CheckpointError(f"the checkpoint is for task {task}, not {wanted}")
    return task


def _bert(shapes: Shapes, described: Mapping[str, object]) -> BertConfig:
    vocab, hidden = _shape(shapes, "bert.embeddings.word_embeddings.weight", 2)
    # A vocabulary is often borrowed from another BERT, whose config.json then says nothing about this one.
    known = described if described.get("hidden_size") == hidden else {}
    heads = known.get("num_attention_heads")
    if heads is None and hidden % HEAD_SIZE:
        raise CheckpointError(
            f"the number of attention heads cannot be read off hidden size {hidden}: put the text encoder's config.json"
            " beside its tokenizer"
        )
    act, eps = known.get("hidden_act", BertConfig.hidden_act), known.get("layer_norm_eps", BertConfig.layer_norm_eps)
    return BertConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=_count(shapes, r"bert\.encoder\.layer\.(\d+)\."),
        num_attention_heads=hidden // HEAD_SIZE if heads is None else cast("int", heads),
        intermediate_size=_shape(shapes, "bert.encoder.layer.0.intermediate.dense.weight", 2)[0],
        max_position_embeddings=_shape(shapes, "bert.embeddings.position_embeddings.weight", 2)[0],
        type_vocab_size=_shape(shapes, "bert.embeddings.token_type_embeddings.weight", 2)[0],
        hidden_act=str(act),
        layer_norm_eps=float(cast("float", eps)),
    )


def _variant(shapes: Shapes, wanted: Variant | None) -> Variant:
    found: Variant
    if not any(name.startswith("image_model.") for name in shapes):
        found = "text_only"
    elif "encoder_conv.0.0.weight" in shapes:
        found = "1t3"
    else:
        found = _flat_or_full(shapes)
    if wanted == "only_obj" and found == "full":
        return "only_obj"
    if wanted not in (None, found):
        raise CheckpointError(f"the checkpoint's tensors are those of variant {found}, not {wanted}")
    return found


def _flat_or_full(shapes: Shapes) -> Literal["flat", "full"]:
    """Tell by the projection's inputs, which times prefix_length must be the pooled channels x 4."""
    channels = _resnet(shapes).stage_channels
    sizes = _prefix_sizes(shapes, _shape(shapes, "bert.embeddings.word_embeddings.weight", 2)[1], "full")
    inputs = _shape(shapes, "encoder_conv.0.weight", 2)[1] * sizes["prefix_length"]
    if inputs == 4 * sum(channels):
        return "full"
    if inputs == 4 * channels[-1]:
        return "flat"
    raise CheckpointError(
        f"encoder_conv.0.weight reads {inputs} features a picture, but the ResNet gives {4 * sum(channels)}"
        f" (or {4 * channels[-1]} from its last stage)"
    )


def _prefix_sizes(shapes: Shapes, hidden: int, variant: Variant) -> dict[str, int]:
    if variant == "text_only":
        return {}
    if variant == "1t3":
        width, inputs = _shape(shapes, "encoder_conv.0.0.weight", 2)
        return {"prefix_length": _resnet(shapes).stage_channels[0] * 4 // inputs, "projection_size": width}
    splits, gate_inputs = _shape(shapes, "gates.0.weight", 2)
    return {
        "prefix_length": max(1, gate_inputs // (2 * hidden)),
        "splits": splits,
        "projection_size": _shape(shapes, "encoder_conv.0.weight", 2)[0],
    }


def _resnet(shapes: Shapes) -> ResNetConfig:
    base = "image_model.resnet.layer"
    blocks = tuple(_count(shapes, rf"image_model\.resnet\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    if min(blocks) < 1:
        raise CheckpointError(f"not an HVPNeT checkpoint: the ResNet has {list(blocks)} blocks in its four stages")
    if f"{base}1.0.conv3.weight" not in shapes:
        return ResNetConfig(block="basic", layers=blocks)  # type: ignore[arg-type]
    width, per_group = _shape(shapes, f"{base}1.0.conv2.weight", 4)[:2]
    groups = width // per_group
    # torchvision: width of layer1 = 64 * width_per_group / 64 * groups
    return ResNetConfig(
        block="bottleneck",
        layers=blocks,  # type: ignore[arg-type]
        groups=groups,
        width_per_group=width // groups,
    )


def _labels(task: Task, count: int, given: Sequence[str] | None) -> tuple[str, ...]:
    if given is None and task == "ner" and count == len(NER_LABELS):
        return NER_LABELS
    what = "labels" if task == "ner" else "relations"
    if given is None:
        raise CheckpointError(f"the checkpoint has {count} {what} and not their names: give them with --labels FILE")
    if len(given) != count:
        raise CheckpointError(f"the label file names {len(given)} {what}, the checkpoint has {count}")
    return tuple(given)


def read_labels(path: Path) -> tuple[str, ...]:
    """Label names by index: a JSON object {name: index}, a JSON list, or one name a line.

    Raises:
        ConfigError: the file is none of these, or its indices are not 0, 1, 2, ...
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the label file {path} cannot be read: {error}") from error
    try:
        values = json.loads(text)
    except ValueError:
        values = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(values, dict):
        if sorted(map(str, values.values())) != sorted(map(str, range(len(values)))):
            raise ConfigError(f"the label file {path} does not number its {len(values)} labels 0 to {len(values) - 1}")
        values = sorted(values, key=lambda name: int(values[name]))
    if not isinstance(values, list) or not values or not all(isinstance(name, str) for name in values):
        raise ConfigError(f"the label file {path} holds no list of names and no object of name: index")
    if len(set(values)) != len(values):
        raise ConfigError(f"the label file {path} names a label twice")
    return tuple(values)
