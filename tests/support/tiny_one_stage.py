"""A narrow one-stage grounder with random weights, none of them neutral, whose boxes differ between queries."""

from pathlib import Path

import torch

from hvpnet import BertConfig
from hvpnet.modeling.grounding.one_stage import OneStageGrounder, OneStageSizes
from hvpnet.modeling.tokenizer import load_tokenizer


def one_stage(
    tokenizer: Path, seed: int = 0, size: int = 64, embedding: int = 16, width: int = 2, light: bool = False
) -> OneStageGrounder:
    words = load_tokenizer(tokenizer, "ner")
    bert = BertConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=128,
        num_hidden_layers=5,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=24,
    )
    torch.manual_seed(seed)
    model = OneStageGrounder(OneStageSizes(bert, embedding, width, light), words, size)
    for name, tensor in model.state_dict().items():
        _draw(name, tensor)
    return model.eval()


def _draw(name: str, tensor: torch.Tensor) -> None:
    if not tensor.is_floating_point():
        return
    if name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):  # also scales of norms
        tensor.uniform_(0.8, 1.2)
    elif tensor.dim() == 1:
        tensor.normal_(std=0.1)
    elif tensor.dim() == 2:
        tensor.normal_(std=1.5 / tensor.shape[1] ** 0.5)
    else:  # what follows normalised features is larger, and so are boxes' logits
        gain = 4.0 if name.startswith("fcn_emb.") and ".0.conv" in name else 0.7 if tensor.shape[0] == 15 else 1.2
        tensor.normal_(std=gain / tensor[0].numel() ** 0.5)
