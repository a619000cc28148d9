"""Load checkpoints of the published one-stage grounder as its training script saves them.

Such a file holds a state dict under the name `state_dict`, beside `epoch`, `best_loss` and `optimizer`, with the prefix
`module.` of DataParallel before every name. A bare state dict and one without the prefix load too.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer

from hvpnet.errors import CheckpointError, ConfigError
from hvpnet.modeling.checkpoint import assign, read_bert_config, read_pickle
from hvpnet.modeling.grounding.one_stage import (
    FLICKR30K,
    LAST_LAYERS,
    SIZE,
    Anchors,
    OneStageGrounder,
    OneStageSizes,
)
from hvpnet.modeling.infer_config import Shapes, SizeError, bert_config, size_of
from hvpnet.modeling.tokenizer import load_tokenizer

_UNUSED = re.compile(
    r"textmodel\.pooler\.|textmodel\.embeddings\.(position|token_type)_ids$|.*\.num_batches_tracked$"
    r"|visumodel\.module_list\.(80|81|92|93|103|104|105)\."
)
"""Tensors of published checkpoints that no forward pass reads: YOLOv3's own detectors are among them."""


def load_one_stage(path: Path, tokenizer: Path, size: int = SIZE, anchors: Anchors = FLICKR30K) -> OneStageGrounder:
    """Load a model in evaluation mode; whether it is full or `light`, and its sizes, are read off its tensors.

    Args:
        path: the checkpoint's file.
        tokenizer: folder of the BERT that was trained on; a `config.json` there tells the attention heads where the
            hidden size does not.
        size: side of the input in pixels, a multiple of 32; no tensor tells it.
        anchors: those that it was trained with, three for each grid, coarse to fine; no tensor tells them.

    Raises:
        CheckpointError: the file cannot be read, holds pickled code, or its tensors are not those of such a model; a
            missing, surplus or misshapen tensor is named, and so is one with a value that is no number.
        ConfigError: the folder has no tokeniser that reads as BERT's uncased ones, or size or anchors are impossible.
    """
    state = read_pickle(path)
    sizes = infer_sizes({name: tuple(tensor.shape) for name, tensor in state.items()}, read_bert_config(tokenizer))
    words = load_tokenizer(tokenizer, "ner")
    _check_vocabulary(words, sizes, tokenizer)
    with torch.device("meta"):  # the checkpoint's tensors take the place of initialised ones
        model = OneStageGrounder(sizes, words, size, anchors)
    assign(model, model.textmodel.embeddings, state, _UNUSED, "the checkpoint is not one of the one-stage grounder")
    grounder: OneStageGrounder = model.eval()
    return grounder


def infer_sizes(shapes: Shapes, described: Mapping[str, object] | None = None) -> OneStageSizes:
    """Sizes of the model that a state dict of these shapes belongs to.

    Args:
        shapes: of the tensors, by name.
        described: BERT's own configuration, where there is one.

    Raises:
        CheckpointError: the tensors are not those of such a model.
    """
    if any(name.startswith("textmodel.rnn.") for name in shapes):
        raise CheckpointError("the grounder's text encoder is an LSTM (--lstm of its training): only BERT is read")
    try:
        sizes = OneStageSizes(
            bert=bert_config(shapes, "textmodel", described),
            embedding=size_of(shapes, ("mapping_visu.*", 0), ("fcn_emb.*", 0), ("mapping_lang.*", 0)),
            width=size_of(shapes, ("visumodel.module_list.0.*", 0)),
            light=not any(re.match(r"fcn_emb\.\d\.[12]\.|fcn_out\.\d\.1\.", name) for name in shapes),
        )
    except SizeError as error:
        raise CheckpointError(f"not a checkpoint of the one-stage grounder: {error}") from error
    except ConfigError as error:
        raise CheckpointError(f"the checkpoint makes no one-stage grounder: {error}") from error
    if sizes.bert.num_hidden_layers < LAST_LAYERS:
        raise CheckpointError(
            f"the grounder's text encoder has {sizes.bert.num_hidden_layers} layers, its last {LAST_LAYERS} are read"
        )
    return sizes


def _check_vocabulary(tokenizer: Tokenizer, sizes: OneStageSizes, folder: Path) -> None:
    found, wanted = tokenizer.get_vocab_size(), sizes.bert.vocab_size
    if found != wanted:
        raise ConfigError(
            f"the tokeniser in {folder} has {found} pieces, the grounder was trained with {wanted}: give the folder of"
            " the BERT it was trained on"
        )
