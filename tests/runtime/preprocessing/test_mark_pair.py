"""Marked pairs in characters of a raw text."""

import ast
from typing import Any

import pytest
from bert_vocabulary import bert
from hypothesis import given
from hypothesis import strategies as st
from places import SHARED

from hvpnet_runtime import Mention, TextError
from hvpnet_runtime.preprocessing.encode_text import TextEncoder
from hvpnet_runtime.preprocessing.mark_pair import mark_characters, mention
from hvpnet_runtime.preprocessing.split_words import split_words


def mark(text: str, head: Any, tail: Any) -> tuple[list[str], Mention, Mention]:
    words, *spans = mark_characters(text, split_words(text), head, tail)
    head, tail = (mention(text, words, span) for span in spans)
    return [word.text for word in words], head, tail


@pytest.mark.parametrize(
    ("text", "head", "tail", "split", "marked"),
    [
        (
            "Deripaska, met with Mueller", (0, 9), (20, 27),
            ["Deripaska", ",", "met", "with", "Mueller"], ("Deripaska", "Mueller"),
        ),
        ("Rubin-Musk feud", (0, 5), (6, 10), ["Rubin", "-", "Musk", "feud"], ("Rubin", "Musk")),
        ("#Ford's CEO", (1, 5), (8, 11), ["#", "Ford", "'s", "CEO"], ("Ford", "CEO")),
        ("The New York Times", (3, 12), [13, 18], ["The", "New", "York", "Times"], ("New York", "Times")),
        ("\u4e1c\u4eac\u5e02", (0, 2), (2, 3), ["\u4e1c\u4eac", "\u5e02"], ("\u4e1c\u4eac", "\u5e02")),
        ("\U0001f600 Rome, Italy", (2, 6), (8, 13), ["\U0001f600", "Rome", ",", "Italy"], ("Rome", "Italy")),
        ("Rome and Rome", (0, 13), (9, 13), ["Rome", "and", "Rome"], ("Rome and Rome", "Rome")),
    ],
)  # fmt: skip
def test_spans_count_characters(text: str, head: Any, tail: Any, split: list[str], marked: tuple[str, str]) -> None:
    words, *found = mark(text, head, tail)
    assert words == split
    assert tuple(each.text for each in found) == marked
    assert [text[each.start : each.end] for each in found] == list(marked)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ((0, 1), r"head \[0, 1\) is 'D', a part of the word 'Deripaska': give all of its characters"),
        ((2, 9), "a part of the word 'Deripaska'"),
        ((9, 10), r"head \[9, 10\) has no visible character"),
        ((3, 3), "empty or outside the text of 13 characters"),
        ((0, 14), "empty or outside the text of 13 characters"),
        ((-4, 9), "empty or outside"),
        ((0.0, 9.0), r"head must be \[start, end\) in characters, not \(0.0, 9.0\)"),
        ("Deripaska", "in characters, not 'Deripaska'"),
        (7, "in characters, not 7"),
    ],
)
def test_impossible_spans_are_refused(head: Any, message: str) -> None:
    with pytest.raises(TextError, match=message):
        mark("Deripaska met", head, (10, 13))


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("\u05de\u05d5\u05d7\u05de\u05d3 met", 2),
        ("\u0645\u062d\u0645\u062f met", 2),
        ("\u0928\u0930\u0947\u0928 met", 1),
        ("\U0001f468\u200d\U0001f469 met", 1),
        ("\U0001f468\u200d\U0001f469 met", 2),
        ("\U0001f1fa\U0001f1f8 met", 1),
        ("\U0001f44d\U0001f3fd met", 1),
    ],
)
def test_words_of_every_spaced_script_and_emoji_stay_whole(text: str, cut: int) -> None:
    with pytest.raises(TextError, match="a part of the word"):
        mark(text, (0, cut), (len(text) - 3, len(text)))


@pytest.mark.parametrize("unseen", ["\u200b", "\u00ad\u200d", "\x07"])
def test_an_invisible_mention_is_refused(unseen: str) -> None:
    with pytest.raises(TextError, match="has no visible character"):
        mark(f"{unseen} met Ana", (0, len(unseen)), (len(unseen) + 5, len(unseen) + 8))


def test_a_particle_follows_its_name_in_hangul() -> None:
    assert mark("\uc11c\uc6b8\uc5d0\uc11c met", (0, 2), (5, 8))[1].text == "\uc11c\uc6b8"


def test_an_accent_belongs_to_its_letter() -> None:
    with pytest.raises(TextError, match="a part of the word"):
        mark("Jose\u0301 met Ana", (0, 4), (10, 13))
    assert mark("Jose\u0301 met Ana", (0, 5), (10, 13))[1].text == "Jose\u0301"


@given(st.text("aB1 \u00e9,'-#@.\u6771\U0001f600\u0301", min_size=1), st.data())
def test_what_is_marked_is_what_was_given(text: str, data: st.DataObject) -> None:
    edges = st.integers(0, len(text))
    spans = [sorted((data.draw(edges), data.draw(edges))) for _ in range(2)]
    try:
        words, *marked = mark(text, *spans)
    except TextError:
        return
    assert "".join(words) == "".join(text.split())
    for (start, end), found in zip(spans, marked, strict=True):
        assert found.text == text[start:end].strip()
        assert found.text == text[found.start : found.end]


@pytest.mark.skipif(not (SHARED / "data/mnre").is_dir(), reason="needs MNRE")
def test_characters_of_joined_words_give_the_published_pieces() -> None:
    """Splitting words differs from the data's own, BERT's pieces do not: every pair of MNRE's test split."""
    encoder = TextEncoder(bert(markers=True), 512, markers=True)
    for line in (SHARED / "data/mnre/test.txt").read_text("utf-8").splitlines():
        row = ast.literal_eval(line)
        tokens, places = row["token"], (row["h"]["pos"], row["t"]["pos"])
        text = " ".join(tokens)
        starts = [len(" ".join([*tokens[:place], ""])) for place in range(len(tokens) + 1)]
        spans = [(starts[start], starts[end - 1] + len(tokens[end - 1])) for start, end in places]
        words, head, tail = mark_characters(text, split_words(text), *spans)
        marked = encoder.encode_relation([word.text for word in words], head, tail)
        assert marked.input_ids == encoder.encode_relation(tokens, *places).input_ids, text
        assert mention(text, words, head).text == " ".join(tokens[slice(*places[0])])
