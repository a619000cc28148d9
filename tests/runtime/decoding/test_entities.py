"""Entities out of tags, and their scores out of the CRF."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from hvpnet_runtime.decoding.crf import CrfDecoder
from hvpnet_runtime.decoding.entities import EntityDecoder, TaggedWindow, entity_spans, softmax
from hvpnet_runtime.preprocessing.encode_text import Encoding, EntityWindow
from hvpnet_runtime.preprocessing.split_words import Word

TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])


@given(st.lists(TAGS))
def test_spans_are_seqevals(tags: list[str]) -> None:
    assert list(entity_spans(tags)) == get_entities(tags)


def test_an_inside_tag_alone_begins_an_entity() -> None:
    assert list(entity_spans(["I-PER", "I-PER", "O", "I-LOC", "B-LOC"])) == [
        ("PER", 0, 1),
        ("LOC", 3, 3),
        ("LOC", 4, 4),
    ]


LABELS = ("PAD", "O", "B-PER", "I-PER", "X")


def window(pieces: list[list[int]], offset: int, owned: tuple[int, int]) -> EntityWindow:
    """Words with these piece positions."""
    first = tuple(own[0] if own else None for own in pieces)
    ends = tuple(own[-1] + 1 if own else None for own in pieces)
    length = max((own[-1] for own in pieces if own), default=0) + 2
    return EntityWindow(Encoding((0,) * length, first, ends, 0), offset, owned)


def brute_force(crf: tuple[np.ndarray, ...], emissions: np.ndarray, first: int, path: list[int]) -> float:
    """P(the tags from `first` on are `path`), by enumerating every tag sequence."""
    start, end, transitions = (scores.astype(np.float64) for scores in crf)
    total = wanted = 0.0
    for tags in itertools.product(range(len(start)), repeat=len(emissions)):
        score = start[tags[0]] + end[tags[-1]] + sum(emissions[t][tag] for t, tag in enumerate(tags))
        score += sum(transitions[a][b] for a, b in itertools.pairwise(tags))
        total += np.exp(score)
        if list(tags[first : first + len(path)]) == path:
            wanted += np.exp(score)
    return wanted / total


def test_entities_with_offsets_and_marginals() -> None:
    rng = np.random.default_rng(3)
    crf = tuple(rng.standard_normal(shape).astype(np.float32) for shape in (5, 5, (5, 5)))
    decoder = EntityDecoder(LABELS, CrfDecoder(*crf))
    emissions = rng.standard_normal((6, 5)).astype(np.float32)
    # [CLS] | Anna (2 pieces) | Lee | zero-width | ran | -> tags B-PER X I-PER O
    tagged = TaggedWindow(window([[1, 2], [3], [], [4]], 0, (0, 4)), emissions, [0, 2, 4, 3, 1, 0])
    words = [Word("Anna", 0, 4), Word("Lee", 5, 8), Word("\u200b", 9, 10), Word("ran", 11, 14)]
    assert decoder.word_tags([tagged]) == ("B-PER", "I-PER", "O", "O")
    (entity,) = decoder.entities([tagged], "Anna Lee \u200b ran", words)
    assert (entity.text, entity.type, entity.start, entity.end) == ("Anna Lee", "PER", 0, 8)
    assert (entity.first_word, entity.last_word) == (0, 1)
    assert entity.score == pytest.approx(brute_force(crf, emissions, 1, [2, 4, 3]), rel=1e-5)


def test_labels_that_are_no_bio_tags_count_as_o() -> None:
    decoder = EntityDecoder(LABELS, CrfDecoder(*(np.zeros(shape, np.float32) for shape in (5, 5, (5, 5)))))
    tagged = TaggedWindow(window([[1], [2], [3]], 0, (0, 3)), np.zeros((5, 5), np.float32), [1, 0, 4, 2, 1])
    assert decoder.word_tags([tagged]) == ("O", "O", "B-PER")


def test_windows_are_stitched_where_they_own() -> None:
    zeros = CrfDecoder(*(np.zeros(shape, np.float32) for shape in (5, 5, (5, 5))))
    decoder = EntityDecoder(LABELS, zeros)
    emissions = np.zeros((5, 5), np.float32)
    left = TaggedWindow(window([[1], [2], [3]], 0, (0, 2)), emissions, [0, 1, 2, 1, 0])  # words 0-2: O B-PER O
    right = TaggedWindow(window([[1], [2], [3]], 1, (2, 4)), emissions, [0, 1, 3, 1, 0])  # words 1-3: O I-PER O
    words = [Word(letter, 2 * index, 2 * index + 1) for index, letter in enumerate("abcd")]
    assert decoder.word_tags([left, right]) == ("O", "B-PER", "I-PER", "O")
    (entity,) = decoder.entities([left, right], "a b c d", words)
    assert (entity.text, entity.first_word, entity.last_word) == ("b c", 1, 2)
    assert entity.score == pytest.approx(1 / 25)  # two positions, five equally likely labels each


def test_softmax() -> None:
    logits = np.array([[1000.0, 1000.0], [0.0, np.log(3)]], np.float32)
    np.testing.assert_allclose(softmax(logits), [[0.5, 0.5], [0.25, 0.75]], rtol=1e-6)
