"""BERT whose attention also sees the prefix keys and values of the pictures.

Embeddings, weights and configuration are transformers' `BertModel`; the attention is ours, because transformers 5
has no place for a prefix per layer. Source: published code, `modeling_bert.py`.
"""

import hvpnet.modeling.torchvision_compat  # noqa: F401  first, because transformers imports torchvision too

# isort: split
from collections.abc import Callable
from dataclasses import asdict
from typing import TypeAlias, cast

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the field's name for it
from transformers import BertConfig as TransformersBertConfig
from transformers import BertModel
from transformers.activations import ACT2FN
from transformers.models.bert.modeling_bert import BertEmbeddings, BertLayer, BertSelfAttention

from hvpnet.errors import ConfigError
from hvpnet.modeling.config import BertConfig
from hvpnet_runtime.errors import brief

MASKED = -10000.0
"""What a masked score is lowered by (published code): finite, so FP16 holds it and no row becomes NaN."""


def build_bert(config: BertConfig) -> BertModel:
    """A `BertModel` of these sizes, without its pooler, which HVPNeT does not read.

    Raises:
        ConfigError: transformers has no such activation.
    """
    if config.hidden_act not in ACT2FN:
        raise ConfigError(f"hidden_act must be one of {', '.join(ACT2FN)}, not {brief(config.hidden_act)}")
    return BertModel(TransformersBertConfig(**asdict(config)), add_pooling_layer=False)


Attention: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""(query, key, value, additive mask, dropout) -> context [B, heads, T, head_size]."""


def plain_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """[B, heads, T, size], [B, heads, K, size] twice, additive mask [B, 1, 1, K] -> [B, heads, T, size].

    The operators that TensorRT fuses to one kernel from version 8 to 11; for graphs to be exported.
    """
    return scaled_attention(query * query.shape[-1] ** -0.5, key, value, mask, dropout)


def scaled_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, _dropout: float) -> Tensor:
    """`plain_attention` of queries that are divided by sqrt(size) already, which their projection's weights can do."""
    scores = query @ key.transpose(2, 3) + mask  # [B, heads, T, K], FP32 as the mask is
    return torch.softmax(scores, dim=-1).to(value.dtype) @ value


def encode_text(
    bert: BertModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    prefix: Tensor | None,
    attention: Attention = F.scaled_dot_product_attention,
) -> Tensor:
    """The last hidden states [B, T, hidden] of `hidden_states`, whose arguments it has."""
    return hidden_states(bert, input_ids, attention_mask, prefix, attention)[-1]


def hidden_states(
    bert: BertModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    prefix: Tensor | None,
    attention: Attention = F.scaled_dot_product_attention,
) -> list[Tensor]:
    """Run BERT over the text with the pictures' prefix in front of the keys and values of every layer.

    Args:
        bert: the encoder; dropout follows its training mode.
        input_ids: [B, T] int64.
        attention_mask: [B, T], 1 = token. The prefix is never masked, blank pictures included.
        prefix: [B, pictures, layers, 2, prefix_length * hidden], or None for text alone.
        attention: how to attend, by default with PyTorch's fused kernel; an exporter writes it in the operators its
            target fuses.

    Returns:
        The hidden states [B, T, hidden] behind every layer.
    """
    hidden = _embed(bert.embeddings, input_ids)  # [B, T, hidden]
    mask = (1.0 - attention_mask[:, None, None, :].to(hidden.dtype)) * MASKED  # [B, 1, 1, T]
    pairs = None
    if prefix is not None:
        pairs = _split_heads(prefix, bert.config.num_attention_heads, hidden.shape[-1])
        mask = F.pad(mask, (pairs.shape[-2], 0))  # [B, 1, 1, pictures * P + T]
    states = []
    for index, layer in enumerate(cast("list[BertLayer]", bert.encoder.layer)):
        self_attention = cast("BertSelfAttention", layer.attention.self)
        query, key, value = (
            projection(hidden).unflatten(2, (-1, self_attention.attention_head_size)).transpose(1, 2)
            for projection in (self_attention.query, self_attention.key, self_attention.value)
        )  # [B, heads, T, head_size]
        if pairs is not None:
            key = torch.cat([pairs[2 * index], key], dim=2)  # [B, heads, pictures * P + T, head_size]
            value = torch.cat([pairs[2 * index + 1], value], dim=2)
        dropout = self_attention.dropout.p if bert.training else 0.0
        context = attention(query, key, value, mask, dropout).transpose(1, 2).flatten(2)  # [B, T, hidden]
        attended = layer.attention.output(context, hidden)  # [B, T, hidden]
        hidden = layer.output(layer.intermediate(attended), attended)  # [B, T, hidden]
        states.append(hidden)
    return states


def _embed(embeddings: BertEmbeddings, input_ids: Tensor) -> Tensor:
    """Positions start at 0 whatever the prefix; token types are all 0. [B, T] -> [B, T, hidden]."""
    words = embeddings.word_embeddings(input_ids) + embeddings.token_type_embeddings.weight[0]  # [B, T, hidden]
    positions = embeddings.position_embeddings.weight[: input_ids.shape[1]]  # [T, hidden]
    embedded: Tensor = embeddings.dropout(embeddings.LayerNorm(words + positions))
    return embedded


def _split_heads(prefix: Tensor, heads: int, hidden: int) -> Tensor:
    """[B, pictures, layers, 2, P * hidden] -> [layers * 2, B, heads, pictures * P, head_size].

    Published order: pictures one after the other, flat, then *reshaped*, not transposed, to heads.
    """
    batch, _, layers, _, _ = prefix.shape
    by_layer = prefix.permute(2, 3, 0, 1, 4)  # [layers, 2, B, pictures, P * hidden]
    return by_layer.reshape(layers * 2, batch, heads, -1, hidden // heads)
