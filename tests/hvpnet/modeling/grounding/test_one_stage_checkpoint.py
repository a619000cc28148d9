"""Checkpoints of the one-stage grounder: every layout loads to the same model, and what is wrong is named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_one_stage import one_stage

from hvpnet.errors import CheckpointError, ConfigError
from hvpnet.modeling.grounding import load_grounder
from hvpnet.modeling.grounding.one_stage import OneStageGrounder

pytestmark = pytest.mark.heavy

State = dict[str, torch.Tensor]
UNREAD = {
    "visumodel.module_list.81.conv_81.bias": torch.zeros(255),
    "visumodel.module_list.104.batch_norm_104.weight": torch.full((4,), float("nan")),
    "textmodel.pooler.dense.weight": torch.zeros(128, 128),
    "textmodel.embeddings.position_ids": torch.arange(24)[None],
}


@pytest.fixture(scope="module")
def grounder(tokenizer_dir: Path) -> OneStageGrounder:
    return one_stage(tokenizer_dir)


@pytest.fixture
def state(grounder: OneStageGrounder) -> State:
    return dict(grounder.state_dict())


@pytest.fixture
def load(tmp_path: Path, tokenizer_dir: Path) -> Callable[[object], OneStageGrounder]:
    def loading(saved: object) -> OneStageGrounder:
        torch.save(saved, tmp_path / "best.pth.tar")
        return load_grounder(tmp_path / "best.pth.tar", tokenizer_dir)

    return loading


LAYOUTS: dict[str, Callable[[State], object]] = {
    "bare": lambda state: state,
    "of DataParallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "as published": lambda state: {
        "epoch": 3,
        "state_dict": {f"module.{name}": tensor for name, tensor in (state | UNREAD).items()},
        "best_loss": 0.5,
        "optimizer": {"state": {}, "param_groups": []},
    },
    "half": lambda state: {name: each.half() if each.is_floating_point() else each for name, each in state.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@torch.no_grad()
def test_layouts(
    layout: Callable[[State], object],
    load: Callable[[object], OneStageGrounder],
    grounder: OneStageGrounder,
    state: State,
) -> None:
    saved = layout(state)
    loaded = load(saved)
    assert (loaded.sizes.embedding, loaded.sizes.width, loaded.sizes.light) == (16, 2, False)
    assert loaded.size == 256
    assert not loaded.training
    rtol = 1e-2 if layout is LAYOUTS["half"] else 0
    for name, tensor in loaded.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, state[name], rtol=rtol, atol=rtol)
    torch.testing.assert_close(loaded.encode(["a kite"]), grounder.encode(["a kite"]), rtol=10 * rtol, atol=10 * rtol)


def test_light_is_told_by_the_tensors(load: Callable[[object], OneStageGrounder], tokenizer_dir: Path) -> None:
    light = one_stage(tokenizer_dir, light=True)
    assert "fcn_out.2.0.weight" in light.state_dict()
    assert load(dict(light.state_dict())).sizes.light


CONV = "fcn_emb.1.1.conv.weight"
DAMAGES: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (lambda state: state.pop(CONV), f"missing: {CONV}"),
    "surplus": (lambda state: state.update({"fcn_more.weight": torch.zeros(1)}), "surplus: fcn_more.weight"),
    "misshapen": (lambda state: state.update({CONV: torch.zeros(16, 16, 1, 1)}), f"{CONV} is .* instead of"),
    "integers": (lambda state: state.update({CONV: torch.zeros(16, 16, 3, 3).long()}), f"{CONV} is torch.int64"),
    "NaN": (lambda state: state.update({CONV: torch.full((16, 16, 3, 3), float("nan"))}), f"NaN or infinite: {CONV}"),
    "no Darknet": (
        lambda state: [state.pop(name) for name in list(state) if name.startswith("visumodel.")],
        "not a checkpoint of the one-stage grounder: it has no tensor visumodel.module_list.0",
    ),
    "nothing": (lambda state: state.clear(), "not a checkpoint of the one-stage grounder"),
    "LSTM": (lambda state: state.update({"textmodel.rnn.weight_ih_l0": torch.zeros(1)}), "LSTM"),
    "few layers": (
        lambda state: [state.pop(name) for name in list(state) if ".layer.3." in name or ".layer.4." in name],
        "has 3 layers, its last 4 are read",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_named(
    damage: Callable[[State], object], message: str, load: Callable[[object], OneStageGrounder], state: State
) -> None:
    damage(state)
    with pytest.raises(CheckpointError, match=message) as caught:
        load({"state_dict": state, "epoch": 1})
    assert "\n" not in str(caught.value)


def test_code_is_not_run(load: Callable[[object], OneStageGrounder]) -> None:
    with pytest.raises(CheckpointError, match="pickled code"):
        load({"state_dict": print})


def test_a_tokeniser_is_needed(tmp_path: Path, state: State) -> None:
    file = tmp_path / "best.pth.tar"
    with pytest.raises(CheckpointError, match=r"^the grounder .*best\.pth\.tar is not there: name the file or folder"):
        load_grounder(file, tmp_path)
    torch.save(state, file)
    with pytest.raises(ConfigError, match="comes without a tokenizer: name the folder of the BERT"):
        load_grounder(file)
    with pytest.raises(ConfigError, match=r"^the grounder's tokenizer .*bert is not there"):
        load_grounder(file, tmp_path / "bert")


def test_a_tokeniser_of_another_vocabulary(load: Callable[[object], OneStageGrounder], state: State) -> None:
    name = "textmodel.embeddings.word_embeddings.weight"
    state[name] = torch.cat([state[name], state[name]])
    with pytest.raises(ConfigError, match="the grounder was trained with"):
        load(state)
