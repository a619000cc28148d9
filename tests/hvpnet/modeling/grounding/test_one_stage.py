"""The one-stage grounder against its parts written out: concatenation, coordinates, anchors, BERT's last layers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_one_stage import one_stage

from hvpnet import BertConfig
from hvpnet.errors import ConfigError
from hvpnet.modeling.grounding.one_stage import (
    FLICKR30K,
    Fusion,
    OneStageGrounder,
    OneStageSizes,
    anchor_grid,
    coordinates,
)
from hvpnet.modeling.grounding.one_stage_checkpoint import infer_sizes

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module", params=[False, True], ids=["full", "light"])
def grounder(request: pytest.FixtureRequest, tokenizer_dir: Path) -> OneStageGrounder:
    return one_stage(tokenizer_dir, light=request.param)


def pictures(count: int, size: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size, 3), generator=torch.Generator().manual_seed(count)).byte()


@pytest.mark.golden
def test_modules_are_those_of_the_published_checkpoint(shared: Path) -> None:
    published = json.loads((shared / "golden/grounding.json").read_text("utf-8"))["state_dict"]
    sizes = infer_sizes({name: tuple(shape) for name, shape in published.items()})
    assert sizes == OneStageSizes(BertConfig())
    with torch.device("meta"):
        model = OneStageGrounder(sizes, None)
    own = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert own.items() <= published.items()
    unread = {name.split(".")[0] + "." + name.split(".")[2] for name in published.keys() - own.keys()}
    assert unread == {*(f"visumodel.{number}" for number in (80, 81, 92, 93, 103, 104, 105)), "textmodel.dense"}


@pytest.mark.parametrize(
    ("size", "anchors", "message"),
    [(100, FLICKR30K, "a multiple of 32"), (0, FLICKR30K, "a multiple of 32"), (64, FLICKR30K[:2], "3 grids"),
     (64, ((), (), ()), "3 grids")],
)  # fmt: skip
def test_impossible_inputs(size: int, anchors: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OneStageGrounder(OneStageSizes(BertConfig()), None, size, anchors)


def test_coordinates_count_rows_first() -> None:
    found = coordinates(4)[0].numpy()
    for row in range(4):
        for column in range(4):
            r, c = row / 2 - 1, column / 2 - 1
            expected = [r, c, r + 0.5, c + 0.5, r + 0.25, c + 0.25, 0.25, 0.25]
            np.testing.assert_allclose(found[:, row, column], expected, atol=1e-6)


@torch.no_grad()
def test_fusion_is_a_convolution_of_the_concatenation() -> None:
    torch.manual_seed(0)
    fusion = Fusion(6).eval()
    fusion.bn.running_mean.normal_()
    features, queries = torch.randn(2, 6, 4, 4), torch.randn(2, 3, 6)
    found = fusion(features, queries).unflatten(0, (2, 3))
    for picture in range(2):
        for query in range(3):
            parts = [features[picture], queries[picture, query][:, None, None].expand(-1, 4, 4), coordinates(4)[0]]
            expected = torch.relu(fusion.bn(fusion.conv(torch.cat(parts)[None])))[0]
            torch.testing.assert_close(found[picture, query], expected, rtol=1e-5, atol=1e-5)


def test_anchors_are_in_order_of_grid_anchor_row_and_column() -> None:
    grid = anchor_grid(64, FLICKR30K).numpy()
    expected = [
        [column / side, row / side, 1 / side, 1 / side, width / 416, height / 416]
        for side, shapes in zip((2, 4, 8), FLICKR30K, strict=True)
        for width, height in shapes
        for row in range(side)
        for column in range(side)
    ]
    np.testing.assert_allclose(grid, expected, rtol=1e-6)


@torch.no_grad()
def test_boxes_are_decoded_from_the_raw_outputs(grounder: OneStageGrounder) -> None:
    """The published test loop decodes one query and one anchor at a time, in pixels of the input."""
    images, queries = pictures(2), grounder.encode(["a red kite", "person", "x"]).expand(2, -1, -1)
    boxes, scores = (each.flatten(0, 1).numpy() for each in grounder(images, queries))
    raw = [each.double().numpy() for each in grounder.raw(images, queries)]
    for row in range(6):
        confidences = np.concatenate([each[row].reshape(3, 5, -1)[:, 4].reshape(-1) for each in raw])
        shares = np.exp(confidences) / np.exp(confidences).sum()
        assert scores[row] == pytest.approx(shares.max(), rel=1e-5)
        best, scale = int(confidences.argmax()), 0
        while best >= 3 * (2 * 2**scale) ** 2:
            best, scale = best - 3 * (2 * 2**scale) ** 2, scale + 1
        side = 2 * 2**scale
        anchor, y, x = np.unravel_index(best, (3, side, side))
        values = raw[scale][row].reshape(3, 5, side, side)[anchor, :, y, x]
        centre = (1 / (1 + np.exp(-values[:2])) + [x, y]) * 64 / side
        sides = np.exp(values[2:4]) * np.array(FLICKR30K[scale][anchor]) * 64 / 416
        expected = np.concatenate([centre - sides / 2, centre + sides / 2])
        np.testing.assert_allclose(boxes[row] * 64, expected, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_queries_are_the_mean_of_the_last_four_layers(grounder: OneStageGrounder) -> None:
    ids = torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]])
    mask = (ids > 0).long()
    states = grounder.textmodel(ids, attention_mask=mask, output_hidden_states=True).hidden_states[-4:]
    mapped = grounder.mapping_lang(sum(state[:, 0] for state in states) / 4)
    found = grounder.encode_queries(ids, mask)
    torch.testing.assert_close(found, mapped / mapped.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


@torch.no_grad()
def test_pictures_and_queries_do_not_change_each_other(grounder: OneStageGrounder) -> None:
    images, texts = pictures(3), ["a red kite", "person"]
    queries = grounder.encode(texts)
    boxes, scores = grounder(images, queries.expand(3, -1, -1))
    for picture in range(3):
        for query, text in enumerate(texts):
            alone = grounder(images[picture : picture + 1], grounder.encode([text])[None])
            torch.testing.assert_close(alone[0][0, 0], boxes[picture, query], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(alone[1][0, 0], scores[picture, query], rtol=1e-4, atol=1e-6)
    assert (boxes[0, 0] - boxes[0, 1]).abs().max() > 1e-3  # a grounder that always says the same would prove nothing


def test_queries_are_cut_at_the_published_length(grounder: OneStageGrounder) -> None:
    long = " ".join(["kite"] * 40)
    torch.testing.assert_close(grounder.encode([long]), grounder.encode([" ".join(["kite"] * 60)]))
