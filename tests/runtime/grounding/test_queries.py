"""What pictures are searched for: fixed words, head and tail, or noun phrases."""

import re
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrite import rewrite
from tiny_grounder import add_grounder, query_tokenizer, vectors
from tokenizers import Tokenizer

from hvpnet_runtime import Bundle, BundleError, Mention, MissingExtraError, split_words
from hvpnet_runtime.backends import load_backend
from hvpnet_runtime.backends.grounder import MAX_QUERIES
from hvpnet_runtime.grounding import noun_phrases as module
from hvpnet_runtime.grounding.noun_phrases import noun_phrases
from hvpnet_runtime.grounding.queries import MAX_CHARACTERS, Encode, Queries, load_encoder, load_queries


def words(text: str) -> list[str]:
    return [word.text for word in split_words(text)]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("Lebron James and the big red dog of New York", ["Lebron James", "big red dog", "New York"]),
        ("RT @nba : Kevin Durant enters Oracle Arena http://t.co/abc #Cavs", ["Kevin Durant", "Oracle Arena", "Cavs"]),
        ("Jordan's great new team won! \N{GRINNING FACE} pizza/pasta", ["Jordan", "great new team", "pizza", "pasta"]),
        ("it was very good", []),
        ("\N{GRINNING FACE} !!! ...", []),
        ("rt @someone www.example.org", []),
    ],
)
def test_noun_phrases(text: str, phrases: list[str]) -> None:
    assert noun_phrases(words(text)) == phrases


def test_a_word_that_is_left_out_ends_a_phrase() -> None:
    assert noun_phrases(["Chicago", "@bulls", "basketball"]) == ["Chicago", "basketball"]


def test_no_phrases_of_no_words() -> None:
    assert noun_phrases([]) == []
    assert noun_phrases(["", "#"]) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=12))
def test_any_words_give_runs_of_them(given_words: list[str]) -> None:
    plain = [word.lstrip("#\uff03") for word in given_words]
    runs = {" ".join(plain[a:b]) for a in range(len(plain)) for b in range(a + 1, len(plain) + 1)}
    assert set(noun_phrases(given_words)) <= runs


@settings(max_examples=300, deadline=None)
@given(st.text("JN.", max_size=60))
def test_phrases_are_the_longest_runs_that_end_in_a_noun(kinds: str) -> None:
    assert list(module._spans(kinds)) == [match.span() for match in re.finditer("[JN]*N", kinds)]


def test_a_long_run_of_adjectives_is_read_once() -> None:
    """As an expression that tries every end of it, this would take an hour."""
    assert list(module._spans("J" * 1_000_000 + ".JN")) == [(1_000_001, 1_000_003)]


def test_the_lexicon_comes_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("it asks the network"))
    module._tagger.cache_clear()
    assert noun_phrases(["New", "York"]) == ["New York"]


def test_without_textblob_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module._tagger.cache_clear()
    monkeypatch.setitem(sys.modules, "textblob.en", None)
    with pytest.raises(MissingExtraError, match=r"needs the package textblob: pip install 'hvpnet\[grounding\]'"):
        noun_phrases(["New", "York"])


def loaded(bundle: Path) -> tuple[Queries, Encode]:
    read = Bundle.load(bundle)
    return load_queries(read), load_encoder(read, load_backend(read, "onnxruntime-cpu").load_grounder())


@pytest.fixture
def copy(ner_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ner_bundle, tmp_path / "bundle"))


def test_fixed_words_whatever_the_text(copy: Path) -> None:
    queries, encode = loaded(add_grounder(copy, words=("blue", "red")))
    assert queries(["Jordan"], ()) == ("blue", "red")
    np.testing.assert_array_equal(encode(("blue", "red")), vectors(("blue", "red")))


def test_queries_of_the_text(copy: Path) -> None:
    """Lower-cased, each once, encoded in the order asked, padded and cut at eight pieces."""
    queries, encode = loaded(add_grounder(copy, "text"))
    assert queries(words("Big RED house, a green  Tree and the big red House"), ()) == (
        "big red house",
        "green tree",
    )
    assert queries(["good"], ()) == ()
    assert len(queries(" and ".join(f"thing{n}" for n in range(40)).split(), ())) == MAX_QUERIES
    asked = ("a green tree", "blue", "red red red red red red blue", "house")
    expected = [(0, 1, 0), (0, 0, 1), (1, 0, 0), (0, 0, 0)]
    np.testing.assert_array_equal(encode(asked), np.array(expected, np.float32))


def test_a_long_query_is_cut(copy: Path) -> None:
    queries, _ = loaded(add_grounder(copy, "text"))
    (query,) = queries(["house"] * 10_000, ())
    assert query == " ".join(["house"] * 33) + " ho"
    assert len(query) == MAX_CHARACTERS
    assert queries((), (Mention("a" * 199 + " bc", 0, 1), Mention("a" * 199 + " Xy", 1, 2))) == ("a" * 199,)


def test_head_and_tail_of_a_relation(re_bundle: Path, tmp_path: Path) -> None:
    queries, _ = loaded(add_grounder(Path(shutil.copytree(re_bundle, tmp_path / "bundle")), "text"))
    pair = (Mention("Kim \n West", 0, 9), Mention("Kanye", 10, 15))
    assert queries(["whatever"], pair) == ("kim west", "kanye")
    assert queries(["whatever"], (pair[1], Mention("KANYE", 20, 25))) == ("kanye",)


def test_a_tokeniser_of_another_vocabulary_is_named(copy: Path) -> None:
    tokenizer = Tokenizer.from_str(query_tokenizer())
    tokenizer.add_tokens(["eighth"])
    rewrite(add_grounder(copy, "text"), "grounder_tokenizer.json", tokenizer.to_str().encode())
    with pytest.raises(BundleError, match=r"queries\.onnx does not read its piece 7: .*hvpnet ground add"):
        loaded(copy)


def test_a_tokeniser_without_an_unknown_piece_is_named(copy: Path) -> None:
    content = query_tokenizer().replace('"unk_token":"[UNK]"', '"unk_token":"[NOT]"').replace('"[UNK]"', '"person"')
    rewrite(add_grounder(copy, "text"), "grounder_tokenizer.json", content.encode())
    with pytest.raises(BundleError, match=r"is no tokeniser of queries \(WordLevel error: Missing \[UNK\]"):
        loaded(copy)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"model": {"type": "Nothing"}}'])
def test_a_damaged_tokeniser_is_named(copy: Path, content: bytes) -> None:
    rewrite(add_grounder(copy, "text"), "grounder_tokenizer.json", content)
    with pytest.raises(BundleError, match=r"grounder_tokenizer\.json is no tokeniser") as raised:
        loaded(copy)
    assert "\n" not in str(raised.value)
