"""A model to train: BERT and ResNet from their weights or from scratch, everything else random."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from hvpnet.errors import ConfigError
from hvpnet.modeling.checkpoint import (
    check_finite,
    matching_state,
    read_bert_config,
    read_pickle,
    read_safetensors,
)
from hvpnet.modeling.config import DEFAULT_MAX_LENGTH, BertConfig, HVPNeTConfig
from hvpnet.modeling.model import HVPNeT
from hvpnet.training.config import BertSizes, ModelOptions
from hvpnet_runtime.bundle import Task
from hvpnet_runtime.preprocessing.encode_text import MARKERS

logger = logging.getLogger(__name__)

_BERT_UNUSED = re.compile(r"pooler\.|embeddings\.(position|token_type)_ids$")
_RESNET_UNUSED = re.compile(r"fc\.|.*\.num_batches_tracked$")
_WORDS = "embeddings.word_embeddings.weight"


def new_model(options: ModelOptions, task: Task, labels: Sequence[str], tokenizer: Tokenizer) -> HVPNeT:
    """A model whose ResNet is frozen and in evaluation mode.

    What is random comes from PyTorch's global generator: seed it first. The embeddings of relation markers are random
    also in a BERT with weights, as published.

    Args:
        options: sizes, and where weights lie.
        task: of the data set.
        labels: of the data set, by index.
        tokenizer: for this task, of the BERT's vocabulary.

    Raises:
        ConfigError: sizes are impossible, or the BERT has another vocabulary.
        CheckpointError: weights cannot be read, or are not those of such a model; the message names them.
    """
    vocabulary = tokenizer.get_vocab_size()
    config = HVPNeTConfig(
        task=task,
        labels=tuple(labels),
        bert=_bert_config(options.bert, vocabulary),
        resnet=None if options.variant == "text_only" else options.resnet,
        variant=options.variant,
        head=options.head,
        prefix_length=options.prefix_length,
        projection_size=options.projection_size,
        max_length=options.max_length or DEFAULT_MAX_LENGTH[task],
    )
    _check_memory(config)
    model = HVPNeT(config)
    if isinstance(options.bert, Path):
        _load_bert(model.bert, options.bert, len(MARKERS) if task == "re" else 0)
    else:
        logger.info("BERT: no weights given, trained from scratch")
    if config.resnet is not None:
        if options.resnet_weights is not None:
            _load(model.image_model.resnet, read_pickle(options.resnet_weights), _RESNET_UNUSED, options.resnet_weights)
        model.image_model.eval().requires_grad_(requires_grad=False)
    return model


def _check_memory(config: HVPNeTConfig) -> None:
    """Refuse a model that is larger than the machine before any of its memory is taken."""
    if not hasattr(os, "sysconf"):  # Windows, which lends memory from its page file and refuses the rest itself
        return
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in HVPNeT(config).parameters())
    size, memory = 4 * parameters, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # bytes
    if size > memory:
        raise ConfigError(
            f"a model of these sizes takes {size / 2**30:,.0f} GiB, and the machine has {memory / 2**30:,.0f}: lower"
            f" model.projection_size or the sizes of {config.bert}"
        )


def _bert_config(bert: Path | BertSizes, vocabulary: int) -> BertConfig:
    if isinstance(bert, BertSizes):
        return bert.config(vocabulary)
    values = read_bert_config(bert)
    if values is None:
        raise ConfigError(f"{bert} has no config.json: name the folder of a BERT")
    known: dict[str, Any] = {field.name: values[field.name] for field in fields(BertConfig) if field.name in values}
    return replace(BertConfig(**known), vocab_size=vocabulary)


def _load_bert(bert: nn.Module, folder: Path, added: int) -> None:
    """Loads a `BertModel`, or the encoder of a model that has one as `bert`; its other parts are left out.

    The last `added` rows of the word embeddings may be missing, and then stay as they are.
    """
    safetensors = folder / "model.safetensors"
    state = read_safetensors(safetensors) if safetensors.is_file() else read_pickle(folder / "pytorch_model.bin")
    encoder = {name.removeprefix("bert."): tensor for name, tensor in state.items() if name.startswith("bert.")}
    state = {  # bert-base-uncased still has the names of TensorFlow
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): tensor
        for name, tensor in (encoder or state).items()
    }
    words = bert.get_parameter(_WORDS).detach()  # [vocabulary, hidden]
    given = state.get(_WORDS)  # [vocabulary, hidden]
    if given is not None and given.shape[1:] == words.shape[1:]:
        if len(words) - len(given) not in (0, added):
            raise ConfigError(
                f"the tokenizer has {len(words)} pieces, the BERT in {folder} {len(given)}: name its own tokenizer"
            )
        state[_WORDS] = torch.cat([given, words[len(given) :]])
    _load(bert, state, _BERT_UNUSED, folder)


def _load(module: nn.Module, state: Mapping[str, Tensor], unused: re.Pattern[str], source: Path) -> None:
    state = matching_state(module, state, unused, f"{source} does not hold the weights of this model")
    check_finite(state, str(source))
    module.load_state_dict(state, strict=False)  # what is missing is in `unused`
