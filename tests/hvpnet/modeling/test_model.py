"""The whole model: every variant, task and head against plain loops, and its decisions."""

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hvpnet import HVPNeT

MODELS: list[dict[str, Any]] = [
    {"task": "ner", "variant": "full"},
    {"task": "ner", "variant": "flat"},
    {"task": "ner", "variant": "1t3", "bert": {"num_hidden_layers": 4}},
    {"task": "ner", "variant": "1t3", "bert": {"num_hidden_layers": 6}, "prefix_length": 2},
    {"task": "ner", "variant": "only_obj"},
    {"task": "ner", "variant": "text_only"},
    {"task": "re", "head": "markers", "variant": "full"},
    {"task": "re", "head": "markers", "variant": "flat", "prefix_length": 8},
    {"task": "re", "head": "markers", "variant": "1t3", "bert": {"num_hidden_layers": 4}},
    {"task": "re", "head": "markers", "variant": "only_obj"},
    {"task": "re", "head": "markers", "variant": "text_only"},
    {"task": "re", "head": "cls", "variant": "full"},
    {"task": "re", "head": "cls", "variant": "text_only"},
]

LENGTHS = [6, 4]
POSITIONS = {"head_index": torch.tensor([1, 2]), "tail_index": torch.tensor([4, 3])}


def request_of(model: HVPNeT) -> tuple[Tensor, dict[str, Tensor]]:
    """Features [B, pictures, channels, 2, 2] float64 and text inputs of two tweets."""
    config, generator = model.config, torch.Generator().manual_seed(2)
    size = (2, config.pictures, config.feature_channels, 2, 2)
    features = torch.randn(size, generator=generator, dtype=torch.float64)
    mask = torch.arange(6)[None] < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(1, config.bert.vocab_size, (2, 6), generator=generator)
    text = {"input_ids": ids * mask, "attention_mask": mask.long()}
    return features, text | (POSITIONS if (config.task, config.head) == ("re", "markers") else {})


@torch.no_grad()
def run(model: Any, features: Tensor, text: dict[str, Tensor]) -> Any:
    if not model.config.pictures:
        return model(**text)
    prefix = model.prefix(features.flatten(0, 1))
    return model(**text, prefix=prefix.unflatten(0, features.shape[:2]))


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_outputs(random_model: Any, reference: Any, double: Any, kind: dict[str, Any]) -> None:
    model = random_model(**kind)
    features, text = request_of(model)
    outputs = run(double(model), features, text).numpy()
    truth = reference(model)
    for row in range(2):
        prefix = [truth.prefix(picture) for picture in features[row].numpy()]
        ids, mask = text["input_ids"][row].tolist(), text["attention_mask"][row].tolist()
        hidden = truth.encode(ids, mask, np.stack(prefix) if prefix else None)
        expected = truth.outputs(hidden, int(POSITIONS["head_index"][row]), int(POSITIONS["tail_index"][row]))
        np.testing.assert_allclose(outputs[row], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("task", ["ner", "re"])
def test_single_precision_agrees_with_double(random_model: Any, double: Any, task: str) -> None:
    model = random_model(task)
    features, text = request_of(model)
    torch.testing.assert_close(
        run(model, features.float(), text).double(), run(double(model), features, text), rtol=1e-4, atol=1e-4
    )


def test_pictures_are_encoded_by_pyramid_and_projection(random_model: Any) -> None:
    model = random_model()
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.encode_pictures(images), model.prefix(model.image_model(images)))


def test_swapping_two_object_crops_changes_the_output(random_model: Any, double: Any) -> None:
    model = double(random_model(bert={"num_attention_heads": 8}))  # two heads read one picture
    features, text = request_of(model)
    before = run(model, features, text)
    assert (run(model, features[:, [0, 1, 3, 2]], text) - before).abs().max() > 1e-3
    assert (run(model, features[:, [1, 0, 2, 3]], text) - before).abs().max() > 1e-3


@pytest.mark.parametrize("absent", ["head_index", "tail_index"])
def test_markers_head_needs_both_positions(random_model: Any, absent: str) -> None:
    model = random_model("re")
    features, text = request_of(model)
    del text[absent]
    with pytest.raises(TypeError, match="needs head_index and tail_index"):
        run(model, features.float(), text)


def test_cls_head_reads_no_positions(random_model: Any) -> None:
    model = random_model("re", head="cls")
    features, text = request_of(model)
    assert torch.equal(run(model, features.float(), text), run(model, features.float(), text | POSITIONS))


def best_path(model: HVPNeT, emissions: np.ndarray[Any, Any]) -> list[int]:
    """The best tags of [T, labels] by trying them all."""
    start, end, between = (
        getattr(model.crf, name).detach().double().numpy()
        for name in ("start_transitions", "end_transitions", "transitions")
    )

    def score(path: tuple[int, ...]) -> float:
        steps = sum(between[a, b] for a, b in pairwise(path))
        return float(start[path[0]] + end[path[-1]] + steps + sum(emissions[t, tag] for t, tag in enumerate(path)))

    paths: list[tuple[int, ...]] = list(product(range(emissions.shape[1]), repeat=len(emissions)))
    best = max(paths, key=score)
    return list(best)


@pytest.mark.parametrize("seed", range(5))
def test_tags_are_the_best_of_all_paths(random_model: Any, seed: int) -> None:
    model = random_model(labels=("O", "B-PER", "I-PER", "[SEP]"), seed=seed)
    emissions = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(seed))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    expected = [best_path(model, emissions[0].numpy()), best_path(model, emissions[1, :3].numpy())]
    assert model.decode(emissions, mask) == expected
    assert model.decode(emissions.bfloat16(), mask.bool()) == model.decode(emissions.bfloat16().float(), mask)


def test_relation_is_the_largest_logit(random_model: Any) -> None:
    logits = torch.tensor([[0.1, 3.0, -1.0], [2.0, 2.0, 2.0]])
    mask = torch.ones(2, 4, dtype=torch.int64)
    assert random_model("re", labels=("a", "b", "c")).decode(logits, mask) == [[1], [0]]


def test_attribute_names_are_those_of_the_published_checkpoints(random_model: Any) -> None:
    prefixes = {name.split(".")[0] for name in random_model("ner").state_dict()}
    assert prefixes == {"bert", "image_model", "encoder_conv", "gates", "fc", "crf"}
    prefixes = {name.split(".")[0] for name in random_model("re", "1t3").state_dict()}
    assert prefixes == {"bert", "image_model", "encoder_conv", "classifier"}
    assert {name.split(".")[0] for name in random_model("re", "text_only").state_dict()} == {"bert", "classifier"}
