"""BERT with prefixes, held against plain loops and, without a prefix, against transformers' own."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hvpnet import BertConfig
from hvpnet.errors import ConfigError
from hvpnet.modeling.text_encoder import build_bert, encode_text


def tweets(model: Any, lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random pieces [B, T] int64 and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, model.config.bert.vocab_size, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return ids * mask, mask.long()


def prefixes(model: Any, batch: int, seed: int = 1) -> Tensor | None:
    """Random prefixes [B, pictures, layers, 2, prefix_length * hidden] float64."""
    config = model.config
    if not config.pictures:
        return None
    size = (batch, config.pictures, config.bert.num_hidden_layers, 2, config.prefix_length * config.bert.hidden_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def encode(model: Any, ids: Tensor, mask: Tensor, prefix: Tensor | None) -> Tensor:
    return encode_text(model.bert, ids, mask, prefix)


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"prefix_length": 1},
        {"prefix_length": 8, "bert": {"num_attention_heads": 4}},
        {"bert": {"num_attention_heads": 1, "num_hidden_layers": 3}},
        {"bert": {"num_attention_heads": 8, "layer_norm_eps": 1e-3, "type_vocab_size": 1}},
        {"variant": "only_obj"},
        {"variant": "text_only"},
    ],
    ids=str,
)
def test_hidden_states(random_model: Any, reference: Any, double: Any, kind: dict[str, Any]) -> None:
    model = random_model(**kind)
    ids, mask = tweets(model, [7, 3, 1])
    prefix = prefixes(model, 3)
    hidden = encode(double(model), ids, mask, prefix).numpy()
    for row in range(3):
        own = None if prefix is None else prefix[row].numpy()
        expected = reference(model).encode(ids[row].tolist(), mask[row].tolist(), own)
        np.testing.assert_allclose(hidden[row], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_without_a_prefix_it_is_transformers_bert(act: str) -> None:
    config = BertConfig(
        vocab_size=200,
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=128,
        max_position_embeddings=40,
        hidden_act=act,
        layer_norm_eps=1e-7,
    )
    torch.manual_seed(0)
    bert: Any = build_bert(config)
    bert.eval()
    for parameter in bert.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ids = torch.randint(0, 200, (4, 40))
    mask = (torch.arange(40)[None] < torch.tensor([40, 17, 3, 1])[:, None]).long()
    with torch.no_grad():
        expected = bert(input_ids=ids, attention_mask=mask).last_hidden_state
        found = encode_text(bert, ids, mask, None)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def make_double(random_model: Any, double: Any) -> Any:
    return cache(lambda variant: double(random_model(variant=variant)))


@settings(deadline=None, max_examples=20)
@given(
    length=st.integers(1, 10), padding=st.integers(0, 8), filler=st.integers(0, 59), pictures=st.booleans()
)  # fmt: skip
def test_padding_changes_nothing_at_the_tokens(
    make_double: Any, length: int, padding: int, filler: int, pictures: bool
) -> None:
    model = make_double("full" if pictures else "text_only")
    ids, mask = tweets(model, [length])
    prefix = prefixes(model, 1)
    longer = torch.cat([ids, torch.full((1, padding), filler)], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(1, padding, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(
        encode(model, longer, longer_mask, prefix)[:, :length], encode(model, ids, mask, prefix), rtol=0, atol=1e-10
    )


def test_tweets_of_a_batch_do_not_see_each_other(random_model: Any, double: Any) -> None:
    model = double(random_model())
    ids, mask = tweets(model, [9, 4, 6])
    prefix = prefixes(model, 3)
    assert prefix is not None
    together = encode(model, ids, mask, prefix)
    for row in range(3):
        alone = encode(model, ids[row : row + 1], mask[row : row + 1], prefix[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-11)


def test_order_of_pictures_matters(random_model: Any, double: Any) -> None:
    model = double(random_model(bert={"num_attention_heads": 8}))  # two heads read one picture
    ids, mask = tweets(model, [6])
    prefix = prefixes(model, 1)
    assert prefix is not None
    before = encode(model, ids, mask, prefix)
    for order in ([0, 2, 1, 3], [1, 0, 2, 3], [0, 1, 3, 2]):  # two objects, the whole picture with one, two objects
        assert (encode(model, ids, mask, prefix[:, order]) - before).abs().max() > 1e-2


def test_a_blank_picture_is_attended_to(random_model: Any, double: Any) -> None:
    model = double(random_model())
    ids, mask = tweets(model, [6])
    prefix = prefixes(model, 1)
    assert prefix is not None
    blank = prefix.clone()
    blank[:, 3] = 0  # keys and values of zero still take their share of the attention
    assert (encode(model, ids, mask, blank) - encode(model, ids, mask, prefix[:, :3])).abs().max() > 1e-2


def test_masked_tokens_are_not_attended_to(random_model: Any, double: Any) -> None:
    model = double(random_model())
    ids, mask = tweets(model, [6])
    prefix = prefixes(model, 1)
    holes = mask.clone()
    holes[0, 2] = 0
    other = ids.clone()
    other[0, 2] = (ids[0, 2] + 1) % model.config.bert.vocab_size
    kept = [0, 1, 3, 4, 5]
    torch.testing.assert_close(
        encode(model, other, holes, prefix)[:, kept], encode(model, ids, holes, prefix)[:, kept], rtol=0, atol=1e-12
    )


def test_dropout_follows_the_training_mode(random_model: Any) -> None:
    model = random_model()
    ids, mask = tweets(model, [6])
    prefix = prefixes(model, 1)
    assert prefix is not None
    evaluated = [encode(model, ids, mask, prefix.float()) for _ in range(2)]
    model.bert.train()
    trained = [encode(model, ids, mask, prefix.float()) for _ in range(2)]
    assert torch.equal(*evaluated)
    assert not torch.equal(*trained)


def test_attention_weights_are_dropped_in_training(random_model: Any) -> None:
    model = random_model(bert={"num_hidden_layers": 1})
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ids, mask = tweets(model, [6])
    quiet = [encode(model, ids, mask, None) for _ in range(2)]
    model.bert.encoder.layer[0].attention.self.dropout.p = 0.5
    noisy = [encode(model, ids, mask, None) for _ in range(2)]
    assert torch.equal(*quiet)
    assert not torch.equal(*noisy)


def test_half_precision_stays_finite(random_model: Any) -> None:
    model = random_model().to(torch.bfloat16)
    ids, mask = tweets(model, [6, 2])
    prefix = prefixes(model, 2)
    assert prefix is not None
    hidden = encode(model, ids, mask, prefix.bfloat16())
    assert hidden.dtype == torch.bfloat16
    assert hidden.isfinite().all()


def test_unknown_activation() -> None:
    with pytest.raises(ConfigError, match=r"hidden_act must be one of .*gelu.* not 'step'"):
        build_bert(BertConfig(hidden_act="step"))
