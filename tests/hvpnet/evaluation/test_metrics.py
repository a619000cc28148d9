import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvpnet.evaluation.metrics import F1, EntityScores, RelationScores, entity_scores, relation_scores
from hvpnet_runtime.errors import MissingExtraError


def test_entity_scores_by_hand():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"]]
    predicted = [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG", "B-PER"]]
    assert entity_scores(gold, predicted) == EntityScores(
        precision=2 / 4,
        recall=2 / 3,
        f1=pytest.approx(4 / 7),
        per_type={"LOC": F1(0, 0, 0), "ORG": F1(0.5, 1, pytest.approx(2 / 3)), "PER": F1(0.5, 1, pytest.approx(2 / 3))},
    )


@pytest.mark.parametrize(
    ("predicted", "correct"),
    [
        (["O", "I-PER", "I-PER"], True),  # an I- tag begins an entity
        (["O", "I-PER", "B-PER"], False),
        (["O", "B-PER", "I-LOC"], False),  # a change of type ends it
        (["O", "B-PER", "X"], False),
        (["X", "B-PER", "I-PER"], True),
        (["[SEP]", "B-PER", "I-PER"], True),
        (["PAD", "B-PER", "I-PER"], True),
    ],
)
def test_entity_boundaries(predicted, correct):
    assert entity_scores([["O", "B-PER", "I-PER"]], [predicted]).recall == float(correct)


@pytest.mark.parametrize("tag", ["X", "PAD", "[CLS]", "[SEP]"])
def test_special_tags_are_no_entities(tag):
    assert entity_scores([["B-PER", "O", "O"]], [["B-PER", tag, tag]]).precision == 1.0
    assert entity_scores([[tag]], [[tag]]) == EntityScores(0.0, 0.0, 0.0, {})


@pytest.mark.parametrize("tags", [[], [[]], [["O", "O"]]])
def test_no_entities_at_all(tags):
    assert entity_scores(tags, tags) == EntityScores(0.0, 0.0, 0.0, {})


def test_only_missed_and_only_spurious_entities():
    assert entity_scores([["B-PER"]], [["O"]]) == EntityScores(0.0, 0.0, 0.0, {"PER": F1(0.0, 0.0, 0.0)})
    assert entity_scores([["O"]], [["B-PER"]]) == EntityScores(0.0, 0.0, 0.0, {"PER": F1(0.0, 0.0, 0.0)})


@pytest.mark.parametrize(
    ("gold", "predicted"), [([["O"]], []), ([["O"]], [["O", "O"]]), ([["O"], ["O", "O"]], [["O", "O"], ["O"]])]
)
def test_lengths_of_tags_must_agree(gold, predicted):
    with pytest.raises(ValueError, match="differ in length"):
        entity_scores(gold, predicted)


def spans(tags):
    """(type, start, end) of every maximal run that a B- tag, a new type or the end closes."""
    found, start = set(), 0
    for index in range(1, len(tags) + 1):
        here = tags[index] if index < len(tags) else "O"
        if here[0] != "I" or here[2:] != tags[start][2:]:
            if tags[start][0] in "BI":
                found.add((tags[start][2:], start, index))
            start = index
    return found


TAGS = st.sampled_from(["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "X", "[SEP]"])
PAIRS = st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=8), min_size=1, max_size=5)


@given(PAIRS)
def test_entity_scores_against_naive_spans(pairs):
    gold = [[tag for tag, _ in tweet] for tweet in pairs]
    predicted = [[tag for _, tag in tweet] for tweet in pairs]
    gold_spans = {(row, *span) for row, tags in enumerate(gold) for span in spans(tags)}
    predicted_spans = {(row, *span) for row, tags in enumerate(predicted) for span in spans(tags)}
    scores = entity_scores(gold, predicted)
    assert_scores(scores, gold_spans, predicted_spans)
    assert set(scores.per_type) == {span[1] for span in gold_spans | predicted_spans}
    for name, score in scores.per_type.items():
        assert_scores(score, *({span for span in found if span[1] == name} for found in (gold_spans, predicted_spans)))


def assert_scores(scores, gold, predicted):
    correct = len(gold & predicted)
    assert scores.precision == pytest.approx(correct / max(1, len(predicted)))
    assert scores.recall == pytest.approx(correct / max(1, len(gold)))
    assert scores.f1 == pytest.approx(2 * correct / max(1, len(gold) + len(predicted)))


def test_relation_scores_by_hand():
    # none is 3: correct and not none 0 and 1; predicted not none 4; gold not none 3; 3 of 6 right.
    scores = relation_scores(gold=[0, 1, 2, 3, 3, 3], predicted=[0, 1, 3, 3, 0, 1], none=3)
    assert scores == RelationScores(2 / 4, 2 / 3, pytest.approx(4 / 7), accuracy=0.5)


def test_relation_scores_without_a_none_class_are_the_accuracy():
    scores = relation_scores([0, 1, 2, 2], [0, 1, 1, 2], none=None)
    assert (scores.precision, scores.recall, scores.f1, scores.accuracy) == (0.75, 0.75, 0.75, 0.75)


def test_relation_scores_of_nothing():
    assert relation_scores([], [], none=0) == RelationScores(0.0, 0.0, 0.0, accuracy=0.0)
    assert relation_scores([0, 0], [0, 0], none=0) == RelationScores(0.0, 0.0, 0.0, accuracy=1.0)


def test_relation_scores_need_as_many_predictions():
    with pytest.raises(ValueError, match="differ in length"):
        relation_scores([0, 1], [0], none=None)


def test_entity_scores_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "seqeval.metrics", None)
    with pytest.raises(MissingExtraError, match=r"seqeval: pip install 'hvpnet\[eval\]'"):
        entity_scores([["O"]], [["O"]])
