"""Load published checkpoints as they are, and load and save our own format.

Published: a `.pth` file, a bare state dict of `HMNeTNERModel` or `HMNeTREModel`. Ours: a folder with
`model.safetensors` and `config.json`. Neither can run code when loaded.
"""

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hvpnet.errors import CheckpointError
from hvpnet.modeling.config import HVPNeTConfig
from hvpnet.modeling.infer_config import Hints, infer_config
from hvpnet.modeling.model import HVPNeT

WEIGHTS, CONFIG = "model.safetensors", "config.json"

_UNUSED = re.compile(
    r"bert\.pooler\.|bert\.embeddings\.(position|token_type)_ids$|image_model\.resnet\.fc\.|.*\.num_batches_tracked$"
)
"""Tensors that published checkpoints may carry and no forward pass reads."""


def load_checkpoint(path: Path | str, hints: Hints | None = None) -> HVPNeT:
    """Load a model in evaluation mode.

    Args:
        path: a published `.pth` file, or a folder that `save_checkpoint` wrote.
        hints: what a published checkpoint's tensors cannot tell; our own format knows everything itself.

    Raises:
        CheckpointError: the file cannot be read, holds pickled code, or its tensors are not those of an HVPNeT model;
            a missing, surplus or misshapen tensor is named.
        ConfigError: the folder's `config.json` is missing or edited.
    """
    path, hints = Path(path), hints or Hints()
    if path.is_dir():
        config = HVPNeTConfig.read(path / CONFIG)
        _agree(config, hints)
        state = read_safetensors(path / WEIGHTS)
    else:
        state = read_pickle(path)
        config = infer_config({name: tuple(tensor.shape) for name, tensor in state.items()}, hints)
    return build(config, state)


def build(config: HVPNeTConfig, state: Mapping[str, Tensor]) -> HVPNeT:
    """A model of this configuration with exactly these tensors, in evaluation mode.

    Raises:
        CheckpointError: a tensor is missing, surplus, misshapen, or not of dense floats.
    """
    with torch.device("meta"):  # the checkpoint's tensors take the place of initialised ones
        model = HVPNeT(config)
    state = matching_state(model, state, _UNUSED, "the checkpoint is not one of this model")
    counters = {name: torch.tensor(0) for name in model.state_dict() if name not in state}
    model.load_state_dict({**{name: tensor.float() for name, tensor in state.items()}, **counters}, assign=True)
    for name, buffer in list(model.bert.embeddings.named_buffers()):  # index buffers that we do not read
        setattr(model.bert.embeddings, name, torch.zeros_like(buffer, device="cpu"))
    return model.eval()


def save_checkpoint(model: HVPNeT, folder: Path | str) -> Path:
    """Write `model.safetensors` and `config.json` into a folder, which is made if need be.

    Returns:
        The folder.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
    model.config.write(folder / CONFIG)
    return folder


def read_bert_config(folder: Path) -> dict[str, object] | None:
    """What `config.json` beside a tokenizer says of the text encoder, or None without such a file.

    Raises:
        CheckpointError: the file is there but is not JSON.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no configuration: expected a JSON object")
    return values


def _agree(config: HVPNeTConfig, hints: Hints) -> None:
    for name in ("task", "variant", "max_length", "labels"):
        wanted, found = getattr(hints, name), getattr(config, name)
        if wanted is not None and (tuple(wanted) if name == "labels" else wanted) != found:
            raise CheckpointError(f"the checkpoint's {name} is {found!r}, not {wanted!r}")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a bare state dict that `torch.save` wrote; no code in it is run.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything but tensors by name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guesses at what else the file may be: the error says it
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a bare state dict: it holds pickled code or a whole model (save its state_dict() alone),"
            " or is no PyTorch file"
        ) from error
    except Exception as error:  # arbitrary bytes make the unpickler fail in any way
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise CheckpointError(
            f"{path} cannot be read as a PyTorch checkpoint: {type(error).__name__} {reason}"
        ) from error
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise CheckpointError(f"{path} is not a bare state dict of tensors, as the published code saves it")
    return dict(loaded)


def matching_state(
    module: nn.Module, state: Mapping[str, Tensor], unused: re.Pattern[str], otherwise: str
) -> dict[str, Tensor]:
    """The tensors of a state dict but for the unused ones, which are exactly those of the module.

    Raises:
        CheckpointError: a tensor is missing, surplus, misshapen, or not of dense floats; begins with `otherwise`.
    """
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items() if not unused.match(name)}
    state = {name: tensor for name, tensor in state.items() if not unused.match(name)}
    missing = [name for name in wanted if name not in state]
    surplus = [name for name in state if name not in wanted]
    common = [(name, state[name]) for name in wanted if name in state]
    misshapen = [
        f"{name} is {list(found.shape)} instead of {list(wanted[name])}"
        for name, found in common
        if found.shape != wanted[name]
    ]
    mistyped = [
        f"{name} is {found.dtype}"
        for name, found in common
        if not found.is_floating_point() or found.layout is not torch.strided
    ]
    groups = {"missing": missing, "surplus": surplus, "misshapen": misshapen, "not dense floats": mistyped}
    problems = [f"{kind}: {_few(names)}" for kind, names in groups.items() if names]
    if problems:
        raise CheckpointError(f"{otherwise}: {'; '.join(problems)}")
    return state


def _few(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
