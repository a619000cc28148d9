"""The graphs of an OWL-ViT against a float64 oracle, and graphs that are wrong in one way or another."""

from functools import partial

import numpy as np
import pytest
import torch
from owl_vit_graphs import export_encode, export_ground
from random_owl_vit import write_random_owl_vit

from hvpnet.modeling.grounding.owl_vit import load_owl_vit
from hvpnet_export.errors import ParityError
from hvpnet_export.grounding_parity import compare_grounder, random_grounding_cases

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def grounder(tmp_path_factory):
    return load_owl_vit(write_random_owl_vit(tmp_path_factory.mktemp("owl")))


def test_exported_graphs(grounder, tmp_path):
    graph, encode = export_ground(grounder, tmp_path), export_encode(grounder, tmp_path)
    report = compare_grounder(grounder, graph, encode).require()
    assert report.decisions == 1 * 4 + 2 * 1 + 1 * 2
    assert report.wrong == 0
    assert 0 < report.query_error <= report.query_bound < 1e-3
    assert 0 < report.score_error <= report.score_bound < 0.01
    assert 0 < report.box_error <= report.box_bound < 0.01
    for pictures, queries in ((1, 1), (3, 1), (2, 7)):
        images = torch.randint(0, 256, (pictures, grounder.size, grounder.size, 3), dtype=torch.uint8)
        vectors = torch.randn(pictures, queries, grounder.query_size)
        found, wanted = graph(images, vectors), grounder(images, vectors)
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)
    for texts in (["x"], ["person", "a mug and a phone", ""]):
        torch.testing.assert_close(encode(*pieces_of(grounder, texts)), grounder.encode(texts), atol=1e-5, rtol=0)


def pieces_of(grounder, texts):
    """Pieces and mask of texts, padded to the longest."""
    pieces = [grounder.tokenizer.encode(text).ids[: grounder.max_length] for text in texts]
    length = max(map(len, pieces))
    rows = (
        [[*row, *[0] * (length - len(row))] for row in pieces],
        [[1] * len(row) + [0] * (length - len(row)) for row in pieces],
    )
    return tuple(torch.from_numpy(np.array(each, dtype=np.int64)) for each in rows)


def test_the_eager_model_itself_passes(grounder):
    report = compare_grounder(grounder, grounder.forward, grounder.encode_queries)
    assert report.passed
    assert report.differing == report.wrong == 0
    assert report.to_dict()["passed"] is True
    assert report.box_error < 1e-4
    assert "0 of 8 boxes are others" in report.summary


@pytest.mark.parametrize(("oracle", "runs"), [(torch.float32, 3), (torch.float64, 6)])
def test_the_model_runs_once_where_it_is_the_oracle_itself(grounder, monkeypatch, oracle, runs):
    """A case is answered by the model in float32, and by a copy of another type if that is the oracle."""
    calls, candidates = [], type(grounder).candidates
    monkeypatch.setattr(type(grounder), "oracle", oracle)
    monkeypatch.setattr(type(grounder), "candidates", lambda self, *case: calls.append(case) or candidates(self, *case))
    report = compare_grounder(grounder, grounder.forward, grounder.encode_queries)
    assert report.passed
    assert len(calls) == runs
    if oracle is torch.float32:
        assert (report.box_bound, report.score_bound, report.query_bound) == (1e-4, 1e-3, 1e-4)


def runner_up(grounder, images, queries):
    """The second best of every query."""
    boxes, logits = grounder.proposals(images, queries)
    second = logits.topk(2).indices[..., 1:]  # [N, Q, 1]
    return boxes.gather(1, second.expand(-1, -1, 4)), logits.gather(-1, second)[..., 0].sigmoid()


def moved(grounder, images, queries):
    boxes, scores = grounder(images, queries)
    return boxes + torch.tensor([0, 0, 0.01, 0]), scores


def other_score(grounder, images, queries):
    boxes, scores = grounder(images, queries)
    return boxes, scores * 1.05


def not_a_number(grounder, images, queries):
    boxes, scores = grounder(images, queries)
    boxes[0, 0, 0] = torch.nan
    return boxes, scores


@pytest.mark.parametrize("wrong", [runner_up, moved, other_score, not_a_number])
def test_a_wrong_graph_fails(grounder, wrong):
    report = compare_grounder(grounder, partial(wrong, grounder))
    assert not report.passed
    assert report.wrong == {runner_up: 8, moved: 8, other_score: 0, not_a_number: 3}[wrong]
    with pytest.raises(ParityError, match="the grounder's graphs differ too much"):
        report.require()


def test_ties_may_be_decided_either_way(grounder):
    def twins(images, queries):
        """Two patches with the same scores, of which the second is taken."""
        boxes, scores = grounder.candidates(images, queries)
        return boxes[:, :, 1].expand(-1, queries.shape[1], -1), scores[..., 1]

    class Twins(type(grounder)):
        def proposals(self, images, queries):
            boxes, logits = super().proposals(images, queries)
            logits[..., :2] = logits.max(dim=-1, keepdim=True).values + 1
            return boxes, logits

    grounder.__class__, kept = Twins, grounder.__class__
    try:
        report = compare_grounder(grounder, twins)
    finally:
        grounder.__class__ = kept
    assert report.passed
    assert (report.differing, report.wrong) == (8, 0)


def test_wrong_queries_fail(grounder):
    report = compare_grounder(grounder, grounder.forward, lambda ids, mask: grounder.encode_queries(ids, mask) * 1.01)
    assert not report.passed
    assert report.query_error == pytest.approx(0.01, rel=0.01)


def test_another_shape_fails(grounder):
    with pytest.raises(ParityError, match=r"answers boxes \[1, 4, 1\], the eager model \[1, 4, 4\]"):
        compare_grounder(grounder, lambda *case: (grounder(*case)[0][..., :1], grounder(*case)[1]))


def test_fp16_is_held_less_tightly(grounder):
    def rough(images, queries):
        boxes, scores = grounder(images, queries)
        return boxes + 0.01, scores * 1.05

    assert not compare_grounder(grounder, rough).passed
    assert compare_grounder(grounder, rough, precision="fp16").passed


def test_random_cases_differ(grounder):
    cases = list(random_grounding_cases(grounder))
    for images, queries in cases:
        assert images.dtype == torch.uint8
        assert images.float().std() > 30
        flat = queries.flatten(0, 1)
        assert len(flat.unique(dim=0)) == len(flat)
