"""Sizes, task and variant read off the tensors of a checkpoint, and the errors where they do not fit together."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hvpnet import BertConfig, HVPNeT, HVPNeTConfig, ResNetConfig
from hvpnet.data import NER_LABELS
from hvpnet.errors import CheckpointError, ConfigError
from hvpnet.modeling.checkpoint import build
from hvpnet.modeling.infer_config import HEADS, Hints, infer_config, read_labels
from hvpnet_runtime.bundle import Head, Task, Variant

pytestmark = pytest.mark.heavy

RESNETS = {
    "resnet18": ResNetConfig("basic", (2, 2, 2, 2)),
    "resnet34": ResNetConfig("basic", (3, 4, 6, 3)),
    "resnet50": ResNetConfig("bottleneck", (3, 4, 6, 3)),
    "resnet101": ResNetConfig("bottleneck", (3, 4, 23, 3)),
    "resnet152": ResNetConfig("bottleneck", (3, 8, 36, 3)),
    "resnext50_32x4d": ResNetConfig("bottleneck", (3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x8d": ResNetConfig("bottleneck", (3, 4, 23, 3), groups=32, width_per_group=8),
    "resnext101_64x4d": ResNetConfig("bottleneck", (3, 4, 23, 3), groups=64, width_per_group=4),
    "wide_resnet50_2": ResNetConfig("bottleneck", (3, 4, 6, 3), width_per_group=128),
    "wide_resnet101_2": ResNetConfig("bottleneck", (3, 4, 23, 3), width_per_group=128),
}
"""As torchvision builds them."""

BERT_BASE = HVPNeTConfig(task="ner", labels=NER_LABELS, bert=BertConfig(), resnet=RESNETS["resnet50"])


def tensors(config: HVPNeTConfig) -> dict[str, Tensor]:
    """The state dict of a model without the memory."""
    with torch.device("meta"):
        return HVPNeT(config).state_dict()


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def hints(config: HVPNeTConfig) -> Hints:
    """What the tensors of this model cannot tell."""
    return Hints(
        variant="only_obj" if config.variant == "only_obj" else None,
        labels=config.labels,
        max_length=config.max_length,
        heads=None if config.bert.hidden_size in HEADS else config.bert.num_attention_heads,
    )


@st.composite
def configs(draw: st.DrawFn) -> HVPNeTConfig:
    hidden = 64 * draw(st.integers(1, 16))
    variant: Variant = draw(st.sampled_from(get_args(Variant)))
    task: Task = draw(st.sampled_from(get_args(Task)))
    head: Head = draw(st.sampled_from(get_args(Head))) if task == "re" else "markers"
    gated = variant in ("full", "flat", "only_obj")
    return HVPNeTConfig(
        task=task,
        labels=tuple(f"B-{index}" for index in range(draw(st.integers(2, 40)))),
        bert=BertConfig(
            vocab_size=draw(st.integers(10, 50_000)),
            hidden_size=hidden,
            num_hidden_layers=draw(st.integers(1, 6)),
            num_attention_heads=hidden // 64,
            intermediate_size=draw(st.integers(1, 4096)),
            max_position_embeddings=draw(st.integers(80, 1024)),
            type_vocab_size=draw(st.integers(1, 4)),
        ),
        resnet=None if variant == "text_only" else draw(st.sampled_from(list(RESNETS.values()))),
        variant=variant,
        head=head,
        prefix_length=1 if variant == "text_only" else draw(st.sampled_from([1, 2, 4, 8, 16])),
        splits=draw(st.integers(1, 8)) if gated else 4,
        projection_size=800 if variant == "text_only" else draw(st.integers(1, 1000)),
        max_length=draw(st.integers(3, 80)),
    )


@settings(max_examples=25, deadline=None)
@given(configs())
def test_every_size_is_read_off(config: HVPNeTConfig) -> None:
    expected = replace(config, prefix_length=4) if config.variant == "text_only" else config
    assert infer_config(shapes(tensors(config)), hints(config)) == expected


@pytest.mark.parametrize("name", RESNETS)
def test_picture_encoders_of_torchvision(name: str) -> None:
    config = replace(BERT_BASE, resnet=RESNETS[name])
    assert infer_config(shapes(tensors(config))) == config


@pytest.mark.parametrize(
    "bert",
    [
        BertConfig(
            vocab_size=30522, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512
        ),
        BertConfig(vocab_size=28996),
        BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
    ],
    ids=["tiny", "base-cased", "large-uncased"],
)
def test_published_text_encoders(bert: BertConfig) -> None:
    config = replace(BERT_BASE, bert=bert)
    assert infer_config(shapes(tensors(config))) == config


def test_published_defaults() -> None:
    found = infer_config(shapes(tensors(BERT_BASE)))
    assert found.labels == NER_LABELS
    assert found.max_length == 128
    relations = replace(BERT_BASE, task="re", labels=("a", "b", "c"), max_length=80)
    assert infer_config(shapes(tensors(relations)), Hints(labels=relations.labels)) == relations
    short = replace(BERT_BASE, bert=BertConfig(max_position_embeddings=40), max_length=40)
    assert infer_config(shapes(tensors(short))) == short


SMALL = HVPNeTConfig(
    task="ner",
    labels=NER_LABELS,
    bert=BertConfig(
        vocab_size=50, hidden_size=128, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=129,
    ),
    resnet=RESNETS["resnet18"],
)  # fmt: skip


def encoder(hidden: int, heads: int) -> dict[str, tuple[int, ...]]:
    bert = BertConfig(hidden_size=hidden, num_attention_heads=heads, num_hidden_layers=1, intermediate_size=2 * hidden)
    return shapes(tensors(replace(SMALL, bert=bert)))


@pytest.mark.parametrize(("hidden", "heads"), [(128, 2), (512, 8), (768, 12), (1024, 16)])
def test_heads_that_the_hidden_size_settles(hidden: int, heads: int) -> None:
    state = encoder(hidden, heads)
    assert infer_config(state).bert.num_attention_heads == heads
    assert infer_config(state, Hints(heads=4)).bert.num_attention_heads == 4  # who asks knows better
    described = {"hidden_size": hidden, "num_attention_heads": 4}
    assert infer_config(state, Hints(bert=described)).bert.num_attention_heads == 4


@pytest.mark.parametrize(("hidden", "heads"), [(384, 12), (384, 6), (312, 12), (256, 8), (256, 4), (192, 3), (640, 10)])
def test_heads_are_never_guessed(hidden: int, heads: int) -> None:
    state = encoder(hidden, heads)
    for other in (None, {"hidden_size": hidden}, {"hidden_size": 768, "num_attention_heads": 12}):
        with pytest.raises(
            CheckpointError, match=rf"off hidden size {hidden}: put the text encoder's config.json.*give heads=N"
        ):
            infer_config(state, Hints(bert=other))
    described = {"hidden_size": hidden, "num_attention_heads": heads}
    for asked in (Hints(heads=heads), Hints(bert=described), Hints(heads=heads, bert=described)):
        assert infer_config(state, asked).bert.num_attention_heads == heads
    with pytest.raises(CheckpointError, match=f"2 attention heads were asked for, but config.json .* says {heads}"):
        infer_config(state, Hints(heads=2, bert=described))
    with pytest.raises(CheckpointError, match=f"hidden_size {hidden} is not a multiple of num_attention_heads 7"):
        infer_config(state, Hints(heads=7))


def test_what_the_text_encoder_says_of_itself() -> None:
    odd = BertConfig(hidden_size=100, num_attention_heads=4, num_hidden_layers=1, intermediate_size=1536)
    state = shapes(tensors(replace(SMALL, bert=odd)))
    described = {"hidden_size": 100, "num_attention_heads": 4, "hidden_act": "relu", "layer_norm_eps": 1e-5, "x": 1}
    found = infer_config(state, Hints(bert=described))
    assert found.bert == replace(odd, hidden_act="relu", layer_norm_eps=1e-5)
    for changes, message in (
        ({"num_attention_heads": 7}, "hidden_size 100 is not a multiple of num_attention_heads 7"),
        ({"num_attention_heads": "4"}, "num_attention_heads: Input should be a valid integer, not '4'"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps: Input should be a valid number, not 'tiny'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            infer_config(state, Hints(bert=described | changes))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Hints(task="re"), "the checkpoint is for task ner, not re"),
        (Hints(variant="flat"), "those of variant full, not flat"),
        (Hints(variant="1t3"), "those of variant full, not 1t3"),
        (Hints(variant="text_only"), "those of variant full, not text_only"),
        (Hints(labels=("O", "B-PER")), r"the label file names 2 labels, the checkpoint \(fc.weight\) has 13"),
        (Hints(labels=("O", "S-PER") * 6 + ("X",)), "the label file cannot be used: 'S-PER' is no label of entities"),
        (Hints(labels=("O",) * 13), "labels must be at least two different names"),
        (Hints(max_length=500), "max_length 500 is not between 3 and the 129 positions"),
        (Hints(max_length=0), "max_length: Input should be greater than or equal to 1, not 0"),
    ],
)
def test_hints_that_the_tensors_contradict(asked: Hints, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        infer_config(shapes(tensors(SMALL)), asked)


def test_hints_that_the_tensors_confirm() -> None:
    state = shapes(tensors(SMALL))
    assert infer_config(state, Hints(task="ner", variant="full", labels=NER_LABELS, max_length=128)) == SMALL
    assert infer_config(state, Hints(variant="only_obj")) == replace(SMALL, variant="only_obj")


def test_unnamed_labels_are_asked_for() -> None:
    few = replace(SMALL, labels=("O", "B-PER", "I-PER"))
    with pytest.raises(CheckpointError, match="has 3 labels and not their names: give them as labels=NAMES"):
        infer_config(shapes(tensors(few)))
    relations = replace(SMALL, task="re", labels=tuple(NER_LABELS))  # 13 relations are not the 13 labels
    with pytest.raises(CheckpointError, match="has 13 relations and not their names"):
        infer_config(shapes(tensors(relations)))


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("conv1.weight", "layer1.0.conv1.weight", "fc.weight", "fc.bias"),
        ("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"),
        ("bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.query.weight"),
        ("classifier.weight", "classifier.bias", "features.0.weight"),
    ],
    ids=["nothing", "ResNet", "BERT", "BERT with prefix", "AlexNet"],
)
def test_other_architectures(names: tuple[str, ...]) -> None:
    with pytest.raises(CheckpointError, match="not an HVPNeT checkpoint: it has ") as caught:
        infer_config(dict.fromkeys(names, (64, 64)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("prefix", "following"), [("bert.encoder.layer.", 3), ("image_model.resnet.layer2.", 2)])
def test_gaps_in_the_numbering(prefix: str, following: int) -> None:
    state = shapes(tensors(SMALL))
    state[f"{prefix}7.extra"] = (1,)
    with pytest.raises(CheckpointError, match=f"it has {prefix}7.extra, but no tensor of {prefix}{following}"):
        infer_config(state)


def test_features_that_the_picture_encoder_does_not_give() -> None:
    state = shapes(tensors(SMALL))
    state["encoder_conv.0.weight"] = (800, 123)
    with pytest.raises(CheckpointError, match=r"encoder_conv.0.weight reads 492 features.* 3840 .*2048"):
        infer_config(state)


# A single wrong tensor is named, whichever it is


DAMAGED = {
    "ner": replace(SMALL, resnet=ResNetConfig("bottleneck", (1, 1, 1, 1), groups=2, width_per_group=32)),
    "re": replace(SMALL, task="re", max_length=80, labels=("a", "b", "c"), resnet=ResNetConfig("basic", (1, 1, 1, 1))),
    "1t3": replace(SMALL, variant="1t3", resnet=ResNetConfig("basic", (1, 1, 1, 1))),
    "text_only": replace(SMALL, variant="text_only", resnet=None),
}

FREE = {
    "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.position_embeddings.weight",
    "bert.embeddings.token_type_embeddings.weight",
}
"""Tensors whose number of rows nothing else tells."""


def missing(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {other: tensor for other, tensor in state.items() if other != name}


def resized(axis: int, state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    shape = list(state[name].shape)
    shape[axis] += 1
    return state | {name: torch.empty(shape, device="meta")}


def transposed(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return state | {name: state[name].T}


def damages(state: dict[str, Tensor]) -> list[tuple[str, Callable[..., dict[str, Tensor]]]]:
    found: list[tuple[str, Callable[..., dict[str, Tensor]]]] = []
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        found.append((name, missing))
        found += [
            (name, functools.partial(resized, axis))
            for axis in range(1 if name in FREE else 0, min(2, tensor.dim()))
        ]  # fmt: skip
        if tensor.dim() == 2 and tensor.shape[0] != tensor.shape[1]:
            found.append((name, transposed))
    return found


def complaint(config: HVPNeTConfig, state: dict[str, Tensor]) -> str | None:
    """The error on loading these tensors; None where the right model is found, which then names what is wrong."""
    try:
        inferred = infer_config(shapes(state), Hints(labels=config.labels))
        if inferred != config:
            build(inferred, state)
    except CheckpointError as error:
        return str(error)
    return None if inferred == config else ""


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_tensor_is_named(kind: str) -> None:
    config = DAMAGED[kind]
    state = tensors(config)
    for name, damage in damages(state):
        message = complaint(config, damage(state, name))
        assert message is None or (name in message and "\n" not in message), (name, damage)


SURPLUS = (
    "bert.encoder.layer.3.extra",
    "bert.extra",
    "classifier.weight",
    "crf.transitions",
    "encoder_conv.0.0.weight",
    "encoder_conv.4.weight",
    "extra",
    "fc.weight",
    "gates.3.weight",
    "image_model.resnet.layer1.0.conv3.weight",
    "image_model.resnet.layer1.1.extra",
    "image_model.resnet.layer5.0.conv1.weight",
)


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_surplus_tensor_is_named(kind: str) -> None:
    config = DAMAGED[kind]
    state = tensors(config)
    for name in set(SURPLUS) - set(state):
        extended = state | {name: torch.empty(3, 5, device="meta")}
        with pytest.raises(CheckpointError) as caught:
            build(infer_config(shapes(extended), hints(config)), extended)
        assert name in str(caught.value)


# Label files


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ('{"b": 1, "a": 0, "None": 2}', ("a", "b", "None")),
        ('["x", "y"]', ("x", "y")),
        ("PAD\nO\nB-PER\n", ("PAD", "O", "B-PER")),
        ("PAD\r\n  O \r\n\r\nB-PER", ("PAD", "O", "B-PER")),
        ('\ufeff["x", "y"]', ("x", "y")),
        ("/per/per/peer\nnone of these\n", ("/per/per/peer", "none of these")),
    ],
)
def test_label_files(tmp_path: Path, content: str, labels: tuple[str, ...]) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content.encode())
    assert read_labels(path) == labels


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), min_size=1, unique=True))
def test_the_three_kinds_of_label_files_agree(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels"
    for text in (json.dumps(names), json.dumps({name: index for index, name in enumerate(names)})):
        path.write_text(text, "utf-8")
        assert read_labels(path) == tuple(names)
    if not all(name.isdigit() for name in names[:1]) and names[0] not in ("NaN", "Infinity", "null", "true", "false"):
        path.write_text("\n".join(names), "utf-8")
        assert read_labels(path) == tuple(names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "b": 2}', "does not number its 2 labels 0 to 1"),
        (b'{"a": 0, "b": 0}', "does not number its 2 labels 0 to 1"),
        (b'{"a": 0.0, "b": 1.0}', "does not number its 2 labels 0 to 1"),
        (b'{"a": "O", "b": null}', "does not number its 2 labels 0 to 1"),
        (b'{"a": true, "b": false}', "does not number its 2 labels 0 to 1"),
        (b"{}", "holds no list of names"),
        (b"[]", "holds no list of names"),
        (b"", "holds no list of names"),
        (b"12", "holds no list of names"),
        (b"[1, 2]", "holds no list of names"),
        (b"a\nb\na\n", "names a label twice"),
        (b'["a", "a"]', "names a label twice"),
        (b"\x80\x02}q\x00.", "cannot be read"),
        (b"\x00\xff" * 50, "cannot be read"),
        (b"[" * 100_000, "cannot be read: it is nested too deep"),
        (b'{"a": ' * 100_000, "cannot be read: it is nested too deep"),
        (b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", "does not number its 1 labels"),
        (b"a\n" * 2**20, "cannot be read: it has more than 1048576 bytes"),
    ],
)
def test_wrong_label_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_labels(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_label_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_labels(path)


def test_hints_accept_any_sequence() -> None:
    labels = cast("Any", list(NER_LABELS))
    assert infer_config(shapes(tensors(SMALL)), Hints(labels=labels)) == SMALL
