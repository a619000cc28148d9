"""Load published checkpoints as they are, and load and save our own format.

Published: a `.pth` file, a state dict of `HMNeTNERModel` or `HMNeTREModel`, bare or as other code wraps it. Ours: a
folder with `model.safetensors` and `config.json`. Neither can run code when loaded, nor take more memory than its files
have bytes.
"""

import re
from collections.abc import Mapping
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor, nn

from hvpnet.errors import CheckpointError
from hvpnet.files import CONFIGURATION, check_storage, load_torch, read_json
from hvpnet.modeling.config import HVPNeTConfig
from hvpnet.modeling.infer_config import Hints, infer_config
from hvpnet.modeling.model import HVPNeT
from hvpnet_runtime.errors import brief

WEIGHTS, CONFIG = "model.safetensors", "config.json"

_UNUSED = re.compile(
    r"bert\.pooler\.|bert\.embeddings\.(position|token_type)_ids$|image_model\.resnet\.fc\.|.*\.num_batches_tracked$"
)
"""Tensors that published checkpoints may carry and no forward pass reads."""

_WRAPPERS = ("model", "state_dict", "model_state_dict")
"""What others call a state dict that they save beside its epoch, optimiser or settings."""

_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


def load_checkpoint(path: Path | str, hints: Hints | None = None) -> HVPNeT:
    """Load a model in evaluation mode.

    Args:
        path: a published `.pth` file, or a folder that `save_checkpoint` wrote, or that of a training run, whose best
            checkpoint is meant.
        hints: what a published checkpoint's tensors cannot tell; our own format knows everything itself.

    Raises:
        CheckpointError: the file cannot be read, holds pickled code, or its tensors are not those of an HVPNeT model;
            a missing, surplus or misshapen tensor is named, and so is one with a value that is no number.
        ConfigError: the folder's `config.json` is missing or edited.
    """
    path, hints = checkpoint_folder(Path(path)), hints or Hints()
    if path.is_dir():
        config = HVPNeTConfig.read(path / CONFIG)
        _agree(config, hints)
        state = read_safetensors(path / WEIGHTS)
    else:
        state = read_pickle(path)
        config = infer_config({name: tuple(tensor.shape) for name, tensor in state.items()}, hints)
    return build(config, state)


def checkpoint_folder(path: Path) -> Path:
    """The best checkpoint of a training run, where this is the run's folder; any other path as it is."""
    best = path / "best"
    return best if (best / CONFIG).is_file() and not (path / CONFIG).exists() else path


def build(config: HVPNeTConfig, state: Mapping[str, Tensor]) -> HVPNeT:
    """A model of this configuration with exactly these tensors, in evaluation mode.

    Raises:
        CheckpointError: a tensor is missing, surplus, misshapen, not of dense floats, or holds NaN or infinity.
    """
    with torch.device("meta"):  # the checkpoint's tensors take the place of initialised ones
        model = HVPNeT(config)
    assign(model, model.bert.embeddings, state, _UNUSED, "the checkpoint is not one of this model")
    return model.eval()


def assign(
    model: nn.Module, embeddings: nn.Module, state: Mapping[str, Tensor], unused: re.Pattern[str], otherwise: str
) -> None:
    """Give a model that was made on the device `meta` exactly the tensors of a state dict, as float32.

    Args:
        model: whose tensors they are.
        embeddings: those of its text encoder.
        state: by name, as the model names them.
        unused: what the state dict may have beside the model's tensors, and lack of them.
        otherwise: what messages begin with.

    Raises:
        CheckpointError: a tensor is missing, surplus, misshapen, not of dense floats, or holds NaN or infinity.
    """
    state = matching_state(model, state, unused, otherwise)
    state = {name: tensor.float() for name, tensor in state.items()}
    check_finite(state, "the checkpoint")
    counters = {name: torch.tensor(0) for name in model.state_dict() if name not in state}
    model.load_state_dict({**state, **counters}, assign=True)
    for name, buffer in list(embeddings.named_buffers()):  # index buffers that we do not read
        setattr(embeddings, name, torch.zeros_like(buffer, device="cpu"))


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
        values = read_json(path, CONFIGURATION)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no configuration: expected a JSON object")
    return values


def _agree(config: HVPNeTConfig, hints: Hints) -> None:
    if hints.heads not in (None, config.bert.num_attention_heads):
        raise CheckpointError(
            f"the checkpoint has {config.bert.num_attention_heads} attention heads, not {hints.heads}"
        )
    for name in ("task", "variant", "max_length", "labels"):
        wanted, found = getattr(hints, name), getattr(config, name)
        if wanted is not None and (tuple(wanted) if name == "labels" else wanted) != found:
            raise CheckpointError(f"the checkpoint's {name} is {brief(found)}, not {brief(wanted)}")


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
    """The tensors of a state dict that `torch.save` wrote; no code in it is run.

    It may be bare, as published, or stand under the name `model`, `state_dict` or `model_state_dict` of a dictionary.
    The prefixes that DataParallel and torch.compile give to every name are taken off.

    Raises:
        CheckpointError: the file is missing, damaged, holds anything but tensors by name, or would take more memory
            than it has bytes.
    """
    try:
        state = _state_dict(load_torch(path))
        if state is not None:
            check_storage(path, list(state.values()))
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read as a PyTorch checkpoint: {error}") from error
    if state is None:
        raise CheckpointError(
            f"{path} is not a bare state dict of tensors, as the published code saves it, nor has it one under the name"
            f" {', '.join(_WRAPPERS[:-1])} or {_WRAPPERS[-1]}"
        )
    return state


def _state_dict(loaded: object) -> dict[str, Tensor] | None:
    """The state dict that was saved, bare or in a wrapper; None where there is none.

    Raises:
        ValueError: there is more than one.
    """
    for _ in range(3):  # a wrapper may have one of its own; a pickle can also hold itself
        if not isinstance(loaded, Mapping):
            return None
        state = {name: each for name, each in loaded.items() if isinstance(name, str) and isinstance(each, Tensor)}
        if len(state) == len(loaded):
            return _without_prefixes(state)
        inside = [name for name in _WRAPPERS if isinstance(loaded.get(name), Mapping)]
        if len(inside) > 1:
            raise ValueError(
                f"it has more than one state dict, named {' and '.join(inside)}: save the one to use alone"
            )
        loaded = loaded[inside[0]] if inside else None
    return None


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((each for each in _PREFIXES if state and all(map(str.startswith, state, repeat(each)))), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


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


def check_finite(state: Mapping[str, Tensor], what: str) -> None:
    """Refuse values that are no numbers: random inputs need not meet them, and answers that do are wrong or none.

    Raises:
        CheckpointError: a tensor of floats has NaN or infinity; it is named.
    """
    names = [name for name, tensor in state.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if names:
        raise CheckpointError(
            f"{what} has values that are NaN or infinite: {_few(names)}: its training diverged, or the file was edited"
            " (a transition is forbidden by a number such as -10000)"
        )


def _few(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
