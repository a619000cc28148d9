import copy
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from hvpnet.data import Sizes, load_split, write_picture_tweets
from hvpnet.modeling.picture_features import PictureFeatures
from hvpnet.modeling.text_batches import encode, example_labels, text_encoder
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet.training.config import RunOptions
from hvpnet.training.trainer import Optimisation

OPTIONS = RunOptions(Path(), epochs=2, batch_size=4, lr=1e-3, head_lr=1e-2, weight_decay=0.3, warmup_ratio=0.2)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny products are faster so, above all beside other programs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Six generated tweets with pictures, by task."""
    return {
        task: load_split(write_picture_tweets(tmp_path_factory.mktemp(task), task, Sizes(6, 1, 1)), "train").examples
        for task in ("ner", "re")
    }


@pytest.fixture
def begin(make_model, tokenizer_dir, examples):
    """Puts a model into training on the examples."""

    def begin(task, variant="full", seed=1234):
        model = copy.deepcopy(make_model(task, variant))
        if model.config.pictures:
            model.image_model.requires_grad_(requires_grad=False)
        table = PictureFeatures.compute(model, [example.tweet for example in examples[task]])
        options = RunOptions(**vars(OPTIONS) | {"seed": seed})
        return model, table, Optimisation(model, load_tokenizer(tokenizer_dir, task), examples[task], table, options)

    return begin


def forward_algorithm(crf, emissions):
    """Log of the sum over all paths of one tweet, emissions [T, labels], one position at a time."""
    scores = crf.start_transitions + emissions[0]
    for emission in emissions[1:]:
        scores = torch.stack([torch.logsumexp(scores + into, 0) for into in crf.transitions.T]) + emission
    return torch.logsumexp(scores + crf.end_transitions, 0)


def path_score(crf, emissions, path):
    score = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
    score = score + sum(emission[label] for emission, label in zip(emissions, path, strict=True))
    return score + sum(crf.transitions[one, other] for one, other in pairwise(path))


def test_learning_rates_rise_and_fall(begin):
    """Four steps in all, of which 0.8 of one is warm-up: from 0 to the peak, and then to 0 in a straight line."""
    _, _, optimisation = begin("ner", "text_only")
    rates = []
    for _ in range(5):
        rates.append(optimisation.scheduler.get_last_lr())
        optimisation.optimizer.step()
        optimisation.scheduler.step()
    assert rates == [
        pytest.approx([peak * part for peak in (1e-3, 1e-2)]) for part in (0, 3 / 3.2, 2 / 3.2, 1 / 3.2, 0)
    ]


@pytest.mark.parametrize(("task", "head"), [("ner", {"fc", "crf"}), ("re", {"classifier"})])
def test_groups(begin, task, head):
    """BERT and prefix at `lr`, CRF and classifier at `head_lr`, everything decayed, the ResNet in neither."""
    model, _, optimisation = begin(task)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = optimisation.optimizer.param_groups
    parts = [{names[parameter].partition(".")[0] for parameter in group["params"]} for group in groups]
    assert parts == [{"bert", "encoder_conv", "gates"}, head]
    trained = [name for name in names.values() if not name.startswith("image_model.")]
    assert sum(len(group["params"]) for group in groups) == len(trained)
    assert [(group["initial_lr"], group["weight_decay"]) for group in groups] == [(1e-3, 0.3), (1e-2, 0.3)]


@pytest.mark.parametrize("task", ["ner", "re"])
def test_loss_is_the_mean_over_tweets(begin, examples, tokenizer_dir, task):
    """Each tweet alone, without padding, by the definition of the likelihood."""
    model, table, optimisation = begin(task)
    model.eval()
    encoder, losses = text_encoder(load_tokenizer(tokenizer_dir, task), model.config), []
    with torch.no_grad():
        for example in examples[task]:
            encoding = encode(encoder, example)
            gold = example_labels(encoding, example, model.config.labels)
            ids, prefix = (
                torch.tensor([encoding.input_ids]),
                model.prefix(table.table[table.rows_of(example.tweet)])[None],
            )
            markers = [torch.tensor([place]) for place in (encoding.head_index, encoding.tail_index) if place]
            (outputs,) = model(ids, torch.ones_like(ids), prefix, *markers)
            if task == "re":
                losses.append(torch.logsumexp(outputs, 0) - outputs[gold[0]])
            else:
                losses.append(forward_algorithm(model.crf, outputs) - path_score(model.crf, outputs, gold))
        loss = optimisation._loss(range(len(losses)))
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", ["ner", "re"])
def test_an_epoch_trains_all_but_the_resnet(begin, task):
    model, _, optimisation = begin(task)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimisation.epoch(1)
    same = {name.partition(".")[0] for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert same == {"image_model"}
    frozen = [name for name in before if name.startswith("image_model.")]
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in frozen)


def test_an_epoch_depends_on_seed_and_number(begin):
    def weights(number, seed):
        torch.manual_seed(int(torch.randint(1000, ())))  # what came before does not matter
        model, _, optimisation = begin("ner", "text_only", seed)
        return optimisation.epoch(number), model.bert.embeddings.word_embeddings.weight

    loss, words = weights(1, 5)
    again, same_words = weights(1, 5)
    assert loss == again
    assert torch.equal(words, same_words)
    assert weights(2, 5)[0] != loss
    assert weights(1, 7)[0] != loss


def test_loss_of_an_epoch_is_the_mean_of_its_steps(begin, monkeypatch):
    _, _, optimisation = begin("re", "text_only")
    losses, original = [], optimisation._loss

    def record(rows):
        loss = original(rows)
        losses.append((sorted(rows), loss.item()))
        return loss

    monkeypatch.setattr(optimisation, "_loss", record)
    assert optimisation.epoch(1) == pytest.approx(sum(loss for _, loss in losses) / 2)
    assert [len(rows) for rows, _ in losses] == [4, 2]
    assert sorted(row for rows, _ in losses for row in rows) == [0, 1, 2, 3, 4, 5]
