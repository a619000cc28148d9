"""Configurations refuse what no model can be, and survive JSON."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvpnet import BertConfig, HVPNeTConfig, ResNetConfig
from hvpnet.errors import ConfigError
from hvpnet_runtime.bundle import Variant

LABELS = st.builds("B-{}".format, st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1))

FULL = HVPNeTConfig(task="ner", labels=("O", "B-PER"), bert=BertConfig(), resnet=ResNetConfig())


@pytest.mark.parametrize(
    ("variant", "pictures", "channels"),
    [
        ("full", 4, (256 + 512 + 1024 + 2048,)),
        ("flat", 4, (2048,)),
        ("1t3", 4, (256, 512, 1024, 2048)),
        ("only_obj", 3, (3840,)),
    ],
)
def test_pictures_and_channels_of_variants(variant: Any, pictures: int, channels: tuple[int, ...]) -> None:
    config = replace(FULL, variant=variant)
    assert (config.pictures, config.projected_channels, config.feature_channels) == (pictures, channels, sum(channels))


def test_text_only_has_no_pictures() -> None:
    config = replace(FULL, variant="text_only", resnet=None)
    assert (config.pictures, config.projected_channels, config.feature_channels) == (0, (), 0)


def test_stage_channels() -> None:
    assert ResNetConfig().stage_channels == (256, 512, 1024, 2048)
    assert ResNetConfig(block="basic", layers=(2, 2, 2, 2)).stage_channels == (64, 128, 256, 512)


def test_lists_become_tuples() -> None:
    config = replace(FULL, labels=["O", "B-b"], resnet=ResNetConfig(layers=[1, 2, 3, 4]))  # type: ignore[arg-type]
    assert config.labels == ("O", "B-b")
    assert config.resnet is not None
    assert config.resnet.layers == (1, 2, 3, 4)
    assert hash(config) == hash(replace(config))


WRONG_MODELS: list[tuple[dict[str, Any], str]] = [
    ({"task": "pos"}, "task: Input should be 'ner' or 're', not 'pos'"),
    ({"variant": "half"}, "variant: Input should be 'full', 'flat', '1t3', 'only_obj' or 'text_only', not 'half'"),
    ({"variant": None}, "variant: Input should be 'full', .*, not None"),
    ({"head": "mean"}, "head: Input should be 'markers' or 'cls', not 'mean'"),
    ({"labels": ("O",)}, "labels must be at least two different names"),
    ({"labels": ("O", "O", "B")}, "labels must be at least two different names"),
    ({"labels": ("O", 1)}, r"labels\.1: Input should be a valid string, not 1"),
    ({"labels": ("O", ["B"])}, r"labels\.1: Input should be a valid string"),
    ({"labels": ("O", "S-PER")}, "labels: 'S-PER' is no label of entities"),
    ({"labels": ("O", "B_PER")}, "labels: 'B_PER' is no label of entities"),
    ({"resnet": None}, "resnet must be given for every variant but text_only"),
    ({"variant": "text_only"}, "resnet must be given for every variant but text_only"),
    ({"prefix_length": 0}, "prefix_length: Input should be greater than or equal to 1, not 0"),
    ({"prefix_length": 4.0}, "prefix_length: Input should be a valid integer, not 4.0"),
    ({"prefix_length": True}, "prefix_length: Input should be a valid integer, not True"),
    ({"prefix_length": 7}, "prefix_length 7 does not divide the 15360 features"),
    ({"splits": -1}, "splits: Input should be greater than or equal to 1, not -1"),
    ({"projection_size": "800"}, "projection_size: Input should be a valid integer, not '800'"),
    ({"max_length": 2}, "max_length 2 is not between 3 and the 512 positions"),
    ({"max_length": 513}, "max_length 513 is not between 3 and the 512 positions"),
    ({"max_length": "128"}, "max_length: Input should be a valid integer, not '128'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_MODELS)
def test_impossible_models(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(FULL, **change)


def test_a_deep_or_long_value_makes_a_short_message() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, ["x"] * 10**6, "x" * 10**6):
        with pytest.raises(ConfigError) as caught:
            replace(FULL, labels=(value, "O", value))
        assert len(str(caught.value)) < 2000
    assert replace(FULL, task="re", labels=("S-PER", "b")).labels == ("S-PER", "b")  # relations have any names


def test_prefix_length_must_divide_every_stage_of_1t3() -> None:
    resnet = ResNetConfig(block="basic", layers=(2, 2, 2, 2))
    assert replace(FULL, resnet=resnet, prefix_length=3).prefix_length == 3  # 3840 features at once
    with pytest.raises(ConfigError, match="prefix_length 3 does not divide the 256 features"):
        replace(FULL, resnet=resnet, prefix_length=3, variant="1t3")


WRONG_BERTS: list[tuple[dict[str, Any], str]] = [
    ({"vocab_size": 10**18}, "vocab_size: Input should be less than or equal to 1000000"),
    ({"hidden_size": 2**40}, "hidden_size: Input should be less than or equal to 1000000"),
    ({"num_hidden_layers": 10_000_000}, "num_hidden_layers: Input should be less than or equal to 200"),
    ({"vocab_size": 0}, "vocab_size: Input should be greater than or equal to 1, not 0"),
    ({"hidden_size": 768.0}, "hidden_size: Input should be a valid integer, not 768.0"),
    ({"num_hidden_layers": 0}, "num_hidden_layers: Input should be greater than or equal to 1, not 0"),
    ({"num_attention_heads": 0}, "num_attention_heads: Input should be greater than or equal to 1, not 0"),
    ({"num_attention_heads": 7}, "hidden_size 768 is not a multiple of num_attention_heads 7"),
    ({"intermediate_size": None}, "intermediate_size: Input should be a valid integer, not None"),
    ({"max_position_embeddings": "512"}, "max_position_embeddings: Input should be a valid integer, not '512'"),
    ({"type_vocab_size": 0}, "type_vocab_size: Input should be greater than or equal to 1, not 0"),
    ({"layer_norm_eps": 0}, "layer_norm_eps: Input should be greater than 0, not 0"),
    ({"layer_norm_eps": 1}, "layer_norm_eps: Input should be less than 1, not 1"),
    ({"layer_norm_eps": float("nan")}, "layer_norm_eps: Input should be a finite number, not nan"),
    ({"layer_norm_eps": "1e-12"}, "layer_norm_eps: Input should be a valid number, not '1e-12'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_BERTS)
def test_impossible_text_encoders(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BertConfig(**change)


WRONG_RESNETS: list[tuple[dict[str, Any], str]] = [
    ({"block": "dense"}, "block: Input should be 'basic' or 'bottleneck', not 'dense'"),
    ({"layers": (3, 10**7, 6, 3)}, r"layers\.1: Input should be less than or equal to 200"),
    ({"layers": (3, 4, 6)}, r"layers\.3: missing"),
    ({"layers": (3, 4, 6, 3, 3)}, "layers: Tuple should have at most 4 items"),
    ({"layers": (3, 4, 6, 0)}, r"layers\.3: Input should be greater than or equal to 1, not 0"),
    ({"groups": 0}, "groups: Input should be greater than or equal to 1, not 0"),
    ({"width_per_group": 1.5}, "width_per_group: Input should be a valid integer, not 1.5"),
    ({"block": "basic", "groups": 32}, "basic blocks have groups 1"),
    ({"block": "basic", "width_per_group": 128}, "basic blocks have groups 1"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_RESNETS)
def test_impossible_picture_encoders(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResNetConfig(**change)


@st.composite
def configs(draw: st.DrawFn) -> HVPNeTConfig:
    variant: Variant = draw(st.sampled_from(get_args(Variant)))
    heads = draw(st.integers(1, 16))
    bert = BertConfig(
        vocab_size=draw(st.integers(1, 10**6)),
        hidden_size=heads * draw(st.integers(1, 128)),
        num_hidden_layers=draw(st.integers(1, 24)),
        num_attention_heads=heads,
        hidden_act=draw(st.sampled_from(["gelu", "relu"])),
        layer_norm_eps=draw(st.sampled_from([1e-12, 1e-5])),
    )
    block: Any = draw(st.sampled_from(["basic", "bottleneck"]))
    depths = draw(st.tuples(*[st.integers(1, 36)] * 4))
    return HVPNeTConfig(
        task=draw(st.sampled_from(["ner", "re"])),
        labels=tuple(draw(st.lists(LABELS, min_size=2, max_size=5, unique_by=str.casefold))),
        bert=bert,
        resnet=None if variant == "text_only" else ResNetConfig(block=block, layers=depths),
        variant=variant,
        head=draw(st.sampled_from(["markers", "cls"])),
        prefix_length=draw(st.sampled_from([1, 2, 4, 8, 16])),
        splits=draw(st.integers(1, 8)),
        projection_size=draw(st.integers(1, 1000)),
        max_length=draw(st.integers(3, 512)),
    )


@settings(deadline=None)
@given(configs())
def test_survives_json(config: HVPNeTConfig) -> None:
    assert HVPNeTConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_survives_a_file(tmp_path: Path) -> None:
    config = replace(FULL, labels=("O", "B-Ω"))
    config.write(tmp_path / "config.json")
    assert HVPNeTConfig.read(tmp_path / "config.json") == config
    (tmp_path / "config.json").write_text("\ufeff" + (tmp_path / "config.json").read_text("utf-8"), "utf-8")
    assert HVPNeTConfig.read(tmp_path / "config.json") == config  # an editor may put a byte order mark before it


def edited(**changes: Any) -> dict[str, Any]:
    return asdict(FULL) | changes


WRONG_DICTS: list[tuple[dict[str, Any], str]] = [
    ({}, "task: missing; labels: missing; bert: missing; resnet: missing"),
    ({"bert": {}, "resnet": None}, "task: missing; labels: missing"),
    (edited(bert=None), "bert: expected a table"),
    (edited(bert=[1, 2]), "bert: expected a table"),
    (edited(bert={"hidden": 768}), r"bert\.hidden: unknown key"),
    (edited(resnet={"depth": 50, "blocks": 3}), r"resnet\.depth: unknown key; resnet\.blocks: unknown key"),
    (edited(resnet={"layers": 5}), r"resnet\.layers: Input should be a valid tuple, not 5"),
    (edited(resnet={"layers": "3463"}), r"resnet\.layers: Input should be a valid tuple, not '3463'"),
    (edited(labels=None), "labels: Input should be a valid tuple, not None"),
    (edited(label=["O"]), "label: unknown key"),
    (edited(splits=None), "splits: Input should be a valid integer, not None"),
]


@pytest.mark.parametrize(("values", "message"), WRONG_DICTS)
def test_edited_configurations(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        HVPNeTConfig(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable configuration"),
        (b"{", "not a readable configuration"),
        (b"\xff\xfe{}", "not a readable configuration"),
        (b"[]", "expected a table"),
        (b"null", "expected a table"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        HVPNeTConfig.read(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a readable configuration"):
        HVPNeTConfig.read(tmp_path / "config.json")
