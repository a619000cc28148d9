from dataclasses import replace

import numpy as np
import pytest
import torch

from hvpnet.data import EntityExample, RelationExample, Sizes, load_split, write_picture_tweets
from hvpnet.errors import DataError
from hvpnet.evaluation.eager import evaluate, predict, score
from hvpnet.evaluation.metrics import entity_scores, relation_scores
from hvpnet.modeling.picture_features import PictureFeatures
from hvpnet.modeling.text_batches import encode, text_encoder
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_runtime import Pipeline
from hvpnet_runtime.decoding.crf import CrfDecoder
from hvpnet_runtime.decoding.entities import EntityDecoder, TaggedWindow
from hvpnet_runtime.preprocessing.encode_text import EntityWindow
from hvpnet_runtime.types import EntityResult, Tweet

TRANSITIONS = ("start_transitions", "end_transitions", "transitions")


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Generated tweets with pictures, by task."""
    sizes = Sizes(train=1, dev=1, test=9)
    return {
        task: load_split(write_picture_tweets(tmp_path_factory.mktemp(task), task, sizes), "test").examples
        for task in ("ner", "re")
    }


@pytest.fixture(scope="module")
def tokenizers(tokenizer_dir):
    return {task: load_tokenizer(tokenizer_dir, task) for task in ("ner", "re")}


@pytest.fixture(scope="module")
def with_pictures(make_model, examples):
    """A model of each task, and the features of all pictures."""
    models = {task: make_model(task, seed=3) for task in ("ner", "re")}
    return {
        task: (model, PictureFeatures.compute(model, [example.tweet for example in examples[task]]))
        for task, model in models.items()
    }


def outputs_alone(model, tokenizer, example, table):
    """Emissions [T, labels] or logits [relations] of one tweet: no padding, every picture projected apart."""
    encoding = encode(text_encoder(tokenizer, model.config), example)
    ids = torch.tensor([encoding.input_ids])
    markers = (torch.tensor([place]) for place in (encoding.head_index, encoding.tail_index) if place is not None)
    with torch.no_grad():
        prefix = model.prefix(table.table[table.rows_of(example.tweet)])[None] if model.config.pictures else None
        return encoding, model(ids, torch.ones_like(ids), prefix, *markers)[0]


def without_pictures(example):
    return replace(example, tweet=replace(example.tweet, image=None, objects=()))


def tagged(words, tags):
    return EntityExample(Tweet(words=tuple(words.split()), id=0), tuple(tags.split()))


def always(model, label):
    """Makes the emissions prefer one label by far."""
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.zero_()
        model.fc.bias[model.config.labels.index(label)] = 100
    return model


def test_tags_are_the_runtimes(with_pictures, examples, tokenizers):
    """The same rule from emissions to word tags as `EntityDecoder`, in C++ and numpy, tweet by tweet."""
    model, table = with_pictures["ner"]
    crf = CrfDecoder(*(getattr(model.crf, name).detach().numpy() for name in TRANSITIONS))
    decoder, expected = EntityDecoder(model.config.labels, crf), []
    for example in examples["ner"]:
        encoding, emissions = outputs_alone(model, tokenizers["ner"], example, table)
        (path,) = decoder.decode(emissions[None].numpy(), np.ones((1, len(emissions)), np.int64))
        window = EntityWindow(encoding, 0, (0, len(example.tweet.words)))
        expected.append(decoder.word_tags([TaggedWindow(window, emissions.numpy(), path)]))
    assert len({tag for tags in expected for tag in tags}) > 2
    assert predict(model, tokenizers["ner"], examples["ner"], table, batch_size=5) == expected


def test_relations_are_the_best_logit(with_pictures, examples, tokenizers):
    model, table = with_pictures["re"]
    best = [int(outputs_alone(model, tokenizers["re"], example, table)[1].argmax()) for example in examples["re"]]
    assert len(set(best)) > 1
    expected = [model.config.labels[index] for index in best]
    assert predict(model, tokenizers["re"], examples["re"], table, batch_size=5) == expected
    gold = [model.config.labels.index(example.relation) for example in examples["re"]]
    none = model.config.labels.index("None")
    assert evaluate(model, tokenizers["re"], examples["re"], table) == relation_scores(gold, best, none)


def test_head_on_cls(make_model, examples, tokenizers):
    model = make_model("re", "text_only", "cls")
    with torch.no_grad():
        model.classifier.bias.zero_()
        model.classifier.bias[1] = 100
    assert predict(model, tokenizers["re"], examples["re"][:2]) == [model.config.labels[1]] * 2


@pytest.mark.parametrize("task", ["ner", "re"])
def test_the_runtime_predicts_the_same(make_model, bundle_of, examples, tokenizers, task):
    with Pipeline.load(bundle_of(task)) as pipeline:
        served = pipeline([example.tweet for example in examples[task]])
    found = [each.tags if isinstance(each, EntityResult) else each.relation for each in served]
    assert found == predict(make_model(task), tokenizers[task], examples[task])


@pytest.mark.parametrize("task", ["ner", "re"])
def test_batches_do_not_matter(with_pictures, examples, tokenizers, task):
    model, table = with_pictures[task]
    one = predict(model, tokenizers[task], examples[task], table, batch_size=1)
    assert predict(model, tokenizers[task], examples[task], table, batch_size=4) == one
    assert predict(model, tokenizers[task], examples[task][::-1], table) == one[::-1]


def test_gold_is_not_read(with_pictures, examples, tokenizers):
    model, table = with_pictures["ner"]
    blind = [replace(example, tags=("O",) * len(example.tags)) for example in examples["ner"]]
    expected = predict(model, tokenizers["ner"], examples["ner"], table)
    assert predict(model, tokenizers["ner"], blind, table) == expected


def test_pictures_are_read(with_pictures, examples, tokenizers):
    model, table = with_pictures["ner"]
    withheld = [without_pictures(example) for example in examples["ner"]]
    seen, unseen = (predict(model, tokenizers["ner"], each, table) for each in (examples["ner"], withheld))
    assert seen != unseen
    assert predict(model, tokenizers["ner"], withheld) == unseen  # features computed on the way


def test_text_only_reads_none(make_model, examples, tokenizers):
    model = make_model("ner", "text_only")
    withheld = [without_pictures(example) for example in examples["ner"]]
    assert predict(model, tokenizers["ner"], withheld) == predict(model, tokenizers["ner"], examples["ner"])


@pytest.mark.parametrize(("label", "tag"), [("PAD", "O"), ("X", "O"), ("[SEP]", "O"), ("I-LOC", "I-LOC")])
def test_labels_that_are_no_tags_count_as_outside(make_model, tokenizers, label, tag):
    model = always(make_model("ner", "text_only"), label)
    assert predict(model, tokenizers["ner"], [tagged("Jordan is zqz", "O O O")]) == [(tag,) * 3]


def test_unseen_words(make_model, tokenizers):
    """Words beyond the limit or without a piece are O, and count neither as gold nor as predicted."""
    model = always(make_model("ner", "text_only"), "B-PER")
    model.config = replace(model.config, max_length=4)  # [CLS] jordan is [SEP]
    example = tagged("\u200d Jordan is Paris Paris", "B-PER B-PER O B-PER B-LOC")
    assert predict(model, tokenizers["ner"], [example]) == [("O", "B-PER", "B-PER", "O", "O")]
    scores = evaluate(model, tokenizers["ner"], [example])
    assert scores == entity_scores([["B-PER", "O"]], [["B-PER", "B-PER"]])
    assert (scores.precision, scores.recall) == (0.5, 1)


def test_score_takes_any_predictions(make_model, examples, tokenizers):
    config, gold = make_model("ner", "text_only").config, [example.tags for example in examples["ner"]]
    assert score(config, tokenizers["ner"], examples["ner"], gold).f1 == 1
    with pytest.raises(ValueError, match=r"argument \d is shorter"):
        score(config, tokenizers["ner"], examples["ner"], gold[:-1])


def test_no_dropout(make_model, examples, tokenizers):
    model = make_model("ner", "text_only").train()
    first = predict(model, tokenizers["ner"], examples["ner"])
    assert not model.training
    assert predict(model.train(), tokenizers["ner"], examples["ner"]) == first


def test_errors(make_model, tokenizers):
    model = make_model("re", "text_only")
    empty = RelationExample(Tweet(words=(), head=(0, 1), tail=(0, 1), id=3), "None")
    unknown = RelationExample(Tweet(words=("a", "b"), head=(0, 1), tail=(1, 2), id=3), "/loc/loc/contain")
    with pytest.raises(DataError, match=r"tweet 3 .*: the text is empty"):
        predict(model, tokenizers["re"], [empty])
    with pytest.raises(DataError, match="'/loc/loc/contain' is not among"):
        evaluate(model, tokenizers["re"], [unknown])
