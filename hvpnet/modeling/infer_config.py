"""Read task, variant and sizes off the tensors of a published checkpoint.

Published checkpoints are bare state dicts (zjunlp/HVPNeT saves `model.state_dict()`): names and shapes are all there
is. What shapes cannot tell is asked for, never guessed: the relation names, the number of attention heads where the
hidden size does not settle it (see `HEADS`), and `only_obj`, whose tensors are those of `full`.

Sizes are decided by majority vote among the tensors that share them. A single misshapen tensor is therefore outvoted,
and it alone is named when the checkpoint is held against the model.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import filter as matching
from pathlib import Path
from typing import Any, TypeAlias, cast

from hvpnet.data.examples import NER_LABELS
from hvpnet.errors import CheckpointError, ConfigError
from hvpnet.files import CONFIGURATION, read_text
from hvpnet.modeling.config import DEFAULT_MAX_LENGTH, BertConfig, HVPNeTConfig, ResNetConfig
from hvpnet_runtime.bundle import Manifest, Task, Variant
from hvpnet_runtime.errors import brief
from hvpnet_runtime.labels import bio_tags

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_DESCRIBED = ("num_attention_heads", "hidden_act", "layer_norm_eps")  # by the text encoder's own configuration

HEADS = {128: 2, 512: 8, 768: 12, 1024: 16}
"""Attention heads by hidden size, where every published BERT of that size has as many.

No tensor tells them: a model with a wrong number runs, and answers wrongly. Other sizes are therefore asked for. 384
units have 12 heads in MiniLM, BGE, E5 and GTE but would have 6 by the rule of BERT's authors, 64 units a head; 256 have
4 in BERT-mini and 8 in XtremeDistil and MiniRBT; 312 have 12 in TinyBERT.
"""


class SizeError(CheckpointError):
    """A size cannot be told from the tensors; the message goes on from what the checkpoint is not."""


@dataclass(frozen=True)
class Hints:
    """What the tensors cannot tell, or what the caller insists on.

    Attributes:
        task: refuse a checkpoint of another task.
        variant: needed for `only_obj`; any other value must agree with the tensors.
        labels: NER labels or relations by index; may be left out for the published 13 NER labels.
        max_length: pieces per tweet; by default as in the published runs (128 for NER, 80 for relations).
        heads: attention heads of the text encoder; needed where neither `bert` nor the hidden size tells them.
        bert: the text encoder's own configuration, for num_attention_heads, hidden_act and layer_norm_eps; one of
            another hidden_size is another encoder's, and not read.
    """

    task: Task | None = None
    variant: Variant | None = None
    labels: Sequence[str] | None = None
    max_length: int | None = None
    heads: int | None = None
    bert: Mapping[str, object] | None = None

    @classmethod
    def of_bundle(cls, manifest: Manifest) -> "Hints":
        """What the manifest of a bundle says of the checkpoint that it was exported from."""
        return cls(
            task=manifest.task,
            variant=manifest.variant,
            labels=manifest.labels,
            max_length=manifest.limits.max_length,
            bert=manifest.architecture["bert"],
        )


def infer_config(shapes: Shapes, hints: Hints = Hints()) -> HVPNeTConfig:
    """The configuration of the model that a state dict of these shapes belongs to.

    Raises:
        CheckpointError: the tensors are not those of an HVPNeT model, or contradict the hints.
    """
    task = _task(shapes, hints.task)
    try:
        bert = bert_config(shapes, "bert", hints.bert, hints.heads, ", or give heads=N")
        variant = _variant(shapes, hints.variant, bert.hidden_size)
        at_cls = task == "re" and size_of(shapes, ("classifier.weight", 1)) == bert.hidden_size
        default_length = min(DEFAULT_MAX_LENGTH[task], bert.max_position_embeddings)
        return HVPNeTConfig(
            task=task,
            labels=_labels(shapes, task, hints.labels),
            bert=bert,
            resnet=None if variant == "text_only" else _resnet(shapes),
            variant=variant,
            head="cls" if at_cls else "markers",
            max_length=default_length if hints.max_length is None else hints.max_length,
            **_prefix_sizes(shapes, bert.hidden_size, variant),
        )
    except SizeError as error:
        raise CheckpointError(f"not an HVPNeT checkpoint: {error}") from error
    except ConfigError as error:
        raise CheckpointError(f"the checkpoint makes no HVPNeT model: {error}") from error


def size_of(shapes: Shapes, *sources: tuple[str, int]) -> int:
    """The size that most tensors give; a source is a pattern of names and an axis, and the first wins a tie."""
    named = ((shapes[name], axis) for pattern, axis in sources for name in matching(shapes, pattern))
    return _most_common(sources[0][0], (shape[axis] for shape, axis in named if len(shape) > axis))


def _most_common(name: str, sizes: Iterable[int]) -> int:
    votes = Counter(size for size in sizes if size > 0)
    if not votes:
        raise SizeError(f"it has no tensor {name} that tells a size")
    return votes.most_common(1)[0][0]


def _count(shapes: Shapes, prefix: str) -> int:
    """How many modules there are of names `prefix0`, `prefix1`, ..."""
    numbered = re.compile(rf"{re.escape(prefix)}(\d+)\.").match
    tensors = {int(match[1]): name for name in shapes if (match := numbered(name))}
    last = max(tensors, default=-1)
    for number in range(last):
        if number not in tensors:
            raise SizeError(f"it has {tensors[last]}, but no tensor of {prefix}{number}")
    return len(tensors)


def _task(shapes: Shapes, wanted: Task | None) -> Task:
    entities = sum(name.startswith(("crf.", "fc.")) for name in shapes)
    relations = sum(name.startswith("classifier.") for name in shapes)
    if not entities + relations:
        raise CheckpointError(
            "not an HVPNeT checkpoint: it has neither crf.transitions (entities) nor classifier.weight (relations)"
        )
    task: Task = "ner" if entities > relations else "re"
    if wanted not in (None, task):
        raise CheckpointError(f"the checkpoint is for task {task}, not {wanted}")
    return task


def bert_config(
    shapes: Shapes, name: str, described: Mapping[str, object] | None, heads: int | None = None, cure: str = ""
) -> BertConfig:
    """The configuration of the BERT in a state dict.

    Args:
        shapes: of the state dict.
        name: what its tensors' names begin with.
        described: its own configuration, where there is one; one of another hidden_size is another encoder's.
        heads: attention heads, where the caller insists.
        cure: how to give the heads otherwise than in a config.json; ends the message that asks for them.

    Raises:
        SizeError: a size cannot be told.
        CheckpointError: the attention heads cannot.
        ConfigError: the sizes make no BERT.
    """
    hidden = size_of(shapes, (f"{name}.embeddings.*_embeddings.weight", 1), (f"{name}.*LayerNorm.weight", 0))
    # A vocabulary is often borrowed from another BERT, whose config.json then says nothing about this one.
    own = described if described is not None and described.get("hidden_size") == hidden else {}
    known: dict[str, Any] = {each: own[each] for each in _DESCRIBED if each in own}
    known["num_attention_heads"] = _heads(hidden, heads, known.get("num_attention_heads"), cure)
    return BertConfig(
        vocab_size=size_of(shapes, (f"{name}.embeddings.word_embeddings.weight", 0)),
        hidden_size=hidden,
        num_hidden_layers=_count(shapes, f"{name}.encoder.layer."),
        intermediate_size=size_of(
            shapes,
            (f"{name}.encoder.layer.*.intermediate.dense.*", 0),
            (f"{name}.encoder.layer.*[0-9].output.dense.weight", 1),
        ),
        max_position_embeddings=size_of(shapes, (f"{name}.embeddings.position_embeddings.weight", 0)),
        type_vocab_size=size_of(shapes, (f"{name}.embeddings.token_type_embeddings.weight", 0)),
        **known,
    )


def _heads(hidden: int, asked: int | None, described: object, cure: str) -> object:
    """Attention heads: as asked for, as config.json describes them, or as the hidden size settles them."""
    if asked is not None and described is not None and asked != described:
        raise CheckpointError(
            f"{asked} attention heads were asked for, but config.json beside the tokenizer says {brief(described)}"
        )
    found = next((heads for heads in (asked, described, HEADS.get(hidden)) if heads is not None), None)
    if found is None:
        raise CheckpointError(
            f"the number of attention heads cannot be read off hidden size {hidden}: put the text encoder's"
            f" config.json, which has it as num_attention_heads, beside its tokenizer{cure}"
        )
    return found


def _variant(shapes: Shapes, wanted: Variant | None, hidden: int) -> Variant:
    found: Variant
    if not (matching(shapes, "image_model.*") and matching(shapes, "encoder_conv.*")):
        found = "text_only"
    elif len(matching(shapes, "encoder_conv.?.?.*")) > len(matching(shapes, "gates.*")):
        found = "1t3"
    else:  # the projection's inputs times prefix_length are the pooled channels x 4
        channels = _resnet(shapes).stage_channels
        inputs = size_of(shapes, ("encoder_conv.0.weight", 1)) * _prefix_sizes(shapes, hidden, "full")["prefix_length"]
        if inputs not in (4 * sum(channels), 4 * channels[-1]):
            raise CheckpointError(
                f"encoder_conv.0.weight reads {inputs} features a picture, but the ResNet gives {4 * sum(channels)}"
                f" (or {4 * channels[-1]} from its last stage)"
            )
        found = "full" if inputs == 4 * sum(channels) else "flat"
    if wanted == "only_obj" and found == "full":
        return "only_obj"
    if wanted not in (None, found):
        raise CheckpointError(f"the checkpoint's tensors are those of variant {found}, not {wanted}")
    return found


def _prefix_sizes(shapes: Shapes, hidden: int, variant: Variant) -> dict[str, int]:
    if variant == "text_only":
        return {}
    if variant == "1t3":
        lengths = (
            channels * 4 // size_of(shapes, (f"encoder_conv.{stage}.0.weight", 1))
            for stage, channels in enumerate(_resnet(shapes).stage_channels)
        )
        return {
            "prefix_length": _most_common("encoder_conv.0.0.weight", lengths),
            "projection_size": size_of(shapes, ("encoder_conv.?.0.*", 0), ("encoder_conv.?.2.weight", 1)),
        }
    return {
        "prefix_length": max(1, size_of(shapes, ("gates.*.weight", 1)) // (2 * hidden)),
        "splits": size_of(shapes, ("gates.*", 0)),
        "projection_size": size_of(shapes, ("encoder_conv.0.*", 0), ("encoder_conv.2.weight", 1)),
    }


def _resnet(shapes: Shapes) -> ResNetConfig:
    base = "image_model.resnet.layer"
    layers = cast("tuple[int, int, int, int]", tuple(_count(shapes, f"{base}{stage}.") for stage in (1, 2, 3, 4)))
    if 2 * len(matching(shapes, f"{base}*.conv3.weight")) <= len(matching(shapes, f"{base}*.conv1.weight")):
        return ResNetConfig(block="basic", layers=layers)
    # torchvision: a bottleneck of layer1 is width_per_group * groups wide
    width = size_of(shapes, (f"{base}1.*.conv2.weight", 0), (f"{base}1.*.bn2.*", 0))
    kernels = [shapes[name] for name in matching(shapes, f"{base}*.conv2.weight") if len(shapes[name]) == 4]
    groups = _most_common(f"{base}1.0.conv2.weight", (outputs // max(1, inputs) for outputs, inputs, *_ in kernels))
    return ResNetConfig(block="bottleneck", layers=layers, groups=groups, width_per_group=width // groups)


def _labels(shapes: Shapes, task: Task, given: Sequence[str] | None) -> tuple[str, ...]:
    what, layer = ("labels", "fc") if task == "ner" else ("relations", "classifier")
    number = size_of(shapes, (f"{layer}.*", 0), ("crf.*", 0))
    if given is None and task == "ner" and number == len(NER_LABELS):
        return NER_LABELS
    if given is None:
        raise CheckpointError(f"the checkpoint has {number} {what} and not their names: give them as labels=NAMES")
    if len(given) != number:
        raise CheckpointError(f"the label file names {len(given)} {what}, the checkpoint ({layer}.weight) has {number}")
    if task == "ner":
        try:
            bio_tags(given)
        except ValueError as error:
            raise CheckpointError(f"the label file cannot be used: {error}") from error
    return tuple(given)


def read_labels(path: Path) -> tuple[str, ...]:
    """Label names by index: a JSON object {name: index}, a JSON list, or one name a line.

    Raises:
        ConfigError: the file is none of these, or its indices are not 0, 1, 2, ...
    """
    try:
        text = read_text(path, CONFIGURATION)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the label file {path} cannot be read: {error}") from error
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise ConfigError(f"the label file {path} cannot be read: it is nested too deep") from error
    except ValueError:
        values = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(values, dict):
        numbers = {name: str(index) for name, index in values.items() if type(index) in (int, str)}
        if sorted(numbers.values()) != sorted(map(str, range(len(values)))):
            raise ConfigError(f"the label file {path} does not number its {len(values)} labels 0 to {len(values) - 1}")
        values = sorted(numbers, key=lambda name: int(numbers[name]))
    if not isinstance(values, list) or not values or not all(isinstance(name, str) for name in values):
        raise ConfigError(f"the label file {path} holds no list of names and no object of name: index")
    if len(set(values)) != len(values):
        raise ConfigError(f"the label file {path} names a label twice")
    return tuple(values)
