"""Published checkpoints load as they are, our own format loses nothing, and everything else is refused in one line."""

import copy
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from kinds import KINDS
from torch import Tensor, nn

from hvpnet import HVPNeT, load_checkpoint, save_checkpoint
from hvpnet.data import NER_LABELS
from hvpnet.errors import CheckpointError, ConfigError, HvpnetError
from hvpnet.modeling.checkpoint import build, read_bert_config
from hvpnet.modeling.infer_config import Hints
from hvpnet.modeling.torchvision_compat import BasicBlock, ResNet

pytestmark = pytest.mark.heavy


def published(model: HVPNeT) -> dict[str, Tensor]:
    """The state dict as the published code saves it, with the tensors that nothing reads."""
    state = OrderedDict(model.state_dict())
    hidden = model.config.bert.hidden_size
    state["bert.embeddings.position_ids"] = torch.arange(model.config.bert.max_position_embeddings)[None]
    state["bert.pooler.dense.weight"] = torch.randn(hidden, hidden)
    state["bert.pooler.dense.bias"] = torch.randn(hidden)
    if model.config.resnet is not None:
        state["image_model.resnet.fc.weight"] = torch.randn(1000, model.config.resnet.stage_channels[-1])
        state["image_model.resnet.fc.bias"] = torch.randn(1000)
        assert "image_model.resnet.bn1.num_batches_tracked" in state
    return state


def hints(model: HVPNeT, **more: Any) -> Hints:
    """What the tensors of a tiny model cannot tell: it has 16, not 64, units a head."""
    config = model.config
    return Hints(
        variant="only_obj" if config.variant == "only_obj" else None,
        labels=config.labels,
        bert={"hidden_size": config.bert.hidden_size, "num_attention_heads": config.bert.num_attention_heads} | more,
    )


@torch.no_grad()
def answer(model: HVPNeT) -> Tensor:
    config, generator = model.config, torch.Generator().manual_seed(3)
    ids = torch.randint(0, config.bert.vocab_size, (2, 5), generator=generator)
    text: dict[str, Tensor] = {"input_ids": ids, "attention_mask": torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])}
    if config.pictures:
        prefix = model.encode_pictures(torch.randn(2 * config.pictures, 3, 64, 64, generator=generator))
        text["prefix"] = prefix.unflatten(0, (2, config.pictures))
    if (config.task, config.head) == ("re", "markers"):
        text |= {"head_index": torch.tensor([1, 0]), "tail_index": torch.tensor([3, 2])}
    found: Tensor = model(**text)
    return found


def assert_same_model(found: HVPNeT, expected: HVPNeT) -> None:
    assert found.config == expected.config
    assert not any(module.training for module in found.modules())
    state, wanted = found.state_dict(), expected.state_dict()
    assert list(state) == list(wanted)
    for name, tensor in wanted.items():
        if not name.endswith("num_batches_tracked"):  # nothing reads it
            assert state[name].dtype == torch.float32
            assert torch.equal(state[name], tensor), name
    assert all(tensor.device.type == "cpu" for tensor in (*found.parameters(), *found.buffers()))
    assert torch.equal(answer(found), answer(expected))


@pytest.mark.parametrize(("task", "variant", "head"), KINDS)
def test_published_checkpoint(random_model: Any, tmp_path: Path, task: str, variant: str, head: str) -> None:
    model = random_model(task, variant, head)
    torch.save(published(model), tmp_path / "best_model.pth")
    assert_same_model(load_checkpoint(tmp_path / "best_model.pth", hints(model)), model)


@pytest.mark.parametrize(("task", "variant", "head"), KINDS)
def test_own_format(random_model: Any, tmp_path: Path, task: str, variant: str, head: str) -> None:
    model = random_model(task, variant, head)
    folder = save_checkpoint(model, tmp_path / "run" / "best")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert_same_model(load_checkpoint(folder), model)
    assert_same_model(load_checkpoint(str(folder), Hints(task=task, variant=variant)), model)  # type: ignore[arg-type]


def test_labels_may_be_left_out_for_the_published_tags(random_model: Any, tmp_path: Path) -> None:
    model = random_model("ner")
    torch.save(published(model), tmp_path / "ner.pth")
    found = load_checkpoint(tmp_path / "ner.pth", Hints(bert=hints(model).bert))
    assert found.config.labels == NER_LABELS


def test_older_file_format(random_model: Any, tmp_path: Path) -> None:
    model = random_model()
    torch.save(published(model), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same_model(load_checkpoint(tmp_path / "old.pth", hints(model)), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_load_as_float32(random_model: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    model = random_model()
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    torch.save(state, tmp_path / "half.pth")
    found = load_checkpoint(tmp_path / "half.pth", hints(model)).state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            assert found[name].dtype == torch.float32
            assert torch.equal(found[name], tensor.float())


def test_parameters_can_be_trained(random_model: Any, tmp_path: Path) -> None:
    found = load_checkpoint(save_checkpoint(random_model(), tmp_path / "run"))
    assert all(isinstance(parameter, nn.Parameter) and parameter.requires_grad for parameter in found.parameters())
    found.fc.weight.sum().backward()
    assert found.fc.weight.grad is not None


def test_saving_what_was_loaded(random_model: Any, tmp_path: Path) -> None:
    model = random_model()
    first = save_checkpoint(load_checkpoint(save_checkpoint(model, tmp_path / "a")), tmp_path / "b")
    for name in ("config.json", "model.safetensors"):
        assert (first / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


# Tensors that do not fit


def loading(state: Any, path: Path, asked: Hints | None = None) -> str:
    """The error on loading this object."""
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


DEEP = "bert.encoder.layer.1.attention.self.query.weight"


def test_missing_surplus_and_misshapen_tensors_are_named(random_model: Any, tmp_path: Path) -> None:
    model = random_model()
    state = published(model)
    path = tmp_path / "x.pth"
    without = {name: tensor for name, tensor in state.items() if name != DEEP}
    assert loading(without, path, hints(model)) == f"the checkpoint is not one of this model: missing: {DEEP}"
    assert loading(state | {"bert.adapter": torch.zeros(1)}, path, hints(model)).endswith("surplus: bert.adapter")
    wrong = loading(state | {DEEP: torch.zeros(32, 31)}, path, hints(model))
    assert wrong.endswith(f"misshapen: {DEEP} is [32, 31] instead of [32, 32]")
    all_at_once = loading(without | {"a": torch.zeros(1), "crf.transitions": torch.zeros(13)}, path, hints(model))
    assert all_at_once.endswith(
        f"missing: {DEEP}; surplus: a; misshapen: crf.transitions is [13] instead of [13, 13]"
    )  # fmt: skip


def test_many_wrong_tensors_are_counted(random_model: Any, tmp_path: Path) -> None:
    model = random_model()
    state = {name: tensor for name, tensor in published(model).items() if "layer.1.attention" not in name}
    message = loading(state, tmp_path / "x.pth", hints(model))
    assert DEEP in message
    assert message.endswith("and 5 more")


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.zeros(32, 32, dtype=torch.int64), "torch.int64"),
        (torch.zeros(32, 32, dtype=torch.bool), "torch.bool"),
        (torch.zeros(32, 32, dtype=torch.complex64), "torch.complex64"),
        (torch.zeros(32, 32).to_sparse(), "torch.float32"),
    ],
    ids=["int64", "bool", "complex64", "sparse"],
)
def test_other_than_dense_floats_are_refused(random_model: Any, tmp_path: Path, tensor: Tensor, kind: str) -> None:
    model = random_model()
    message = loading(published(model) | {DEEP: tensor}, tmp_path / "x.pth", hints(model))
    assert message.endswith(f"not dense floats: {DEEP} is {kind}")


def test_wrong_label_count(random_model: Any, tmp_path: Path) -> None:
    model = random_model("re")
    asked = Hints(labels=("a", "b"), bert=hints(model).bert)
    message = loading(published(model), tmp_path / "x.pth", asked)
    assert message == "the label file names 2 relations, the checkpoint (classifier.weight) has 5"


def test_hidden_size_that_is_no_multiple_of_64(random_model: Any, tmp_path: Path) -> None:
    message = loading(published(random_model()), tmp_path / "x.pth", Hints(labels=NER_LABELS))
    assert "attention heads cannot be read off hidden size 32: put the text encoder's config.json" in message


def test_unknown_activation(random_model: Any, tmp_path: Path) -> None:
    model = random_model()
    torch.save(published(model), tmp_path / "x.pth")
    with pytest.raises(ConfigError, match="hidden_act must be one of"):
        load_checkpoint(tmp_path / "x.pth", hints(model, hidden_act="step"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["crf.transitions", "crf.start_transitions", "bert.embeddings.word_embeddings.weight"])
@pytest.mark.parametrize("folder", [True, False])
def test_values_that_are_no_numbers(random_model: Any, tmp_path: Path, name: str, value: float, folder: bool) -> None:
    model = copy.deepcopy(random_model())
    model.state_dict()[name].view(-1)[-1] = value  # a single one, which a random case need not meet
    path = save_checkpoint(model, tmp_path / "run") if folder else tmp_path / "x.pth"
    if not folder:
        torch.save(published(model), path)
    with pytest.raises(CheckpointError, match=f"NaN or infinite: {name}: its training diverged"):
        load_checkpoint(path, None if folder else hints(model))


def test_a_value_beyond_float32(random_model: Any, tmp_path: Path) -> None:
    model = random_model()
    large = {name: tensor.double() for name, tensor in published(model).items()}
    large["fc.bias"] = torch.full((13,), 1e300, dtype=torch.float64)
    assert "NaN or infinite: fc.bias" in loading(large, tmp_path / "x.pth", hints(model))


# Saved by other code


def wrapped(name: str) -> Any:
    return lambda state: {"epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}, name: state}


@pytest.mark.parametrize(
    "save",
    [
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        *(wrapped(name) for name in ("model", "state_dict", "model_state_dict")),
        lambda state: wrapped("state_dict")({f"module.{name}": tensor for name, tensor in state.items()}),
        lambda state: {"model": {"state_dict": state, "config": {}}},
    ],
    ids=["module", "compiled", "model", "state_dict", "model_state_dict", "both", "twice"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_checkpoints(random_model: Any, tmp_path: Path, save: Any, zipped: bool) -> None:
    model = random_model()
    torch.save(save(published(model)), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert_same_model(load_checkpoint(tmp_path / "x.pth", hints(model)), model)


def test_a_wrapped_state_dict_of_another_model(tmp_path: Path) -> None:
    assert "not an HVPNeT checkpoint" in loading({"state_dict": {"conv.weight": torch.zeros(2)}}, tmp_path / "x.pth")
    message = loading({"module.fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}, tmp_path / "x.pth")
    assert "not an HVPNeT checkpoint" in message


def test_a_wrapper_that_holds_itself(tmp_path: Path) -> None:
    own: dict[str, Any] = {}
    own["model"] = own
    assert "is not a bare state dict" in loading(own, tmp_path / "x.pth")


def test_the_best_checkpoint_of_a_runs_folder(random_model: Any, tmp_path: Path) -> None:
    model = random_model()
    save_checkpoint(model, tmp_path / "run" / "best")
    assert_same_model(load_checkpoint(tmp_path / "run"), model)


# Files that would take more memory than they have bytes


def repacked(path: Path, **how: Any) -> Path:
    """The same archive, its members written anew."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", **how) as new:
        for name, content in members.items():
            new.writestr(name, content)
    return path


def test_a_compressed_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"fc.weight": torch.zeros(2**22)}, path)
    repacked(path, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    with pytest.raises(CheckpointError, match="in it is compressed: save it again without compression"):
        load_checkpoint(path)


def test_an_archive_whose_members_share_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"fc.weight": torch.zeros(2**16)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        data = next(each for each in archive.infolist() if each.filename.endswith("data/0"))
        for number in range(1, 5):
            shared = copy.copy(data)
            shared.filename = data.filename.replace("data/0", f"data/{number}")
            archive.filelist.append(shared)
            archive._didModify = True
    with pytest.raises(CheckpointError, match=r"its members have .* bytes, the file .*: they share bytes"):
        load_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_view_that_repeats_one_number(random_model: Any, tmp_path: Path, zipped: bool, dtype: torch.dtype) -> None:
    path = tmp_path / "x.pth"
    state = published(random_model()) | {"fc.weight": torch.zeros(1, dtype=dtype).expand(10**6, 10**6)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"its tensors have .* bytes, the file .*: they are views"):
        load_checkpoint(path)


def test_tensors_without_numbers(tmp_path: Path) -> None:
    assert "without their numbers" in loading({"fc.weight": torch.empty(2, 2, device="meta")}, tmp_path / "x.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_makes_bytes(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pth"
    torch.save({"fc.weight": torch.zeros(2), "x": bytearray(10)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="it makes a bytearray, which no state dict has"):
        load_checkpoint(path)


# Files that are no checkpoint of ours


def test_other_architectures(random_model: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    assert "no tensor bert." in loading(ResNet(BasicBlock, [2, 2, 2, 2]).state_dict(), path)
    bert = random_model().bert.state_dict()
    assert "neither crf.transitions (entities) nor classifier.weight" in loading(bert, path)
    assert "neither crf.transitions" in loading({f"bert.{name}": tensor for name, tensor in bert.items()}, path)


@pytest.mark.parametrize(
    "content",
    [
        {"epoch": 3, "weights": {"fc.weight": torch.zeros(2, 2)}},
        {"epoch": 3, "state_dict": {"fc.weight": "text"}},
        {"lr": 1e-3},
        {1: torch.zeros(1)},
        [torch.zeros(1)],
        torch.zeros(3),
        "text",
        None,
    ],
    ids=["other name", "no tensors", "numbers", "integer names", "list", "tensor", "text", "None"],
)
def test_objects_that_are_no_state_dict(tmp_path: Path, content: object) -> None:
    assert "is not a bare state dict of tensors" in loading(content, tmp_path / "x.pth")


def test_more_than_one_state_dict(tmp_path: Path) -> None:
    one, other = {"fc.weight": torch.zeros(2)}, {"fc.weight": torch.ones(2)}
    for content in ({"model": one, "state_dict": other}, {"model": {"state_dict": other, "model": one}}):
        message = loading(content, tmp_path / "x.pth")
        assert "it has more than one state dict, named model and state_dict: save the one to use alone" in message


def test_empty_state_dict(tmp_path: Path) -> None:
    assert "not an HVPNeT checkpoint: it has neither" in loading({}, tmp_path / "x.pth")


class Code:
    """Unpickles to a shell command that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("wrap", [lambda code: code, lambda code: {"fc.weight": code}], ids=["bare", "in a dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_does_not_run(tmp_path: Path, wrap: Any, zipped: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "x.pth"
    torch.save(wrap(Code(trace)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="holds pickled code or a whole model") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # it would have run
    assert trace.exists()


def test_code_pickled_without_torch_does_not_run(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "x.pth"
    path.write_bytes(pickle.dumps(Code(trace)))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not trace.exists()


def test_whole_pickled_model(random_model: Any, tmp_path: Path) -> None:
    assert "save its state_dict() alone" in loading(random_model(), tmp_path / "x.pth")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(tmp_path: Path) -> None:
    traced = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(traced, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"just some text\n",
        b"PK\x03\x04",
        b"\x80\x02",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        *(bytes([first]) + b"abc\n123." for first in range(0, 256, 5)),
    ],
)
def test_files_that_are_no_checkpoint(
    tmp_path: Path, content: bytes, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_checkpoints(random_model: Any, tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pth"
    torch.save(random_model(variant="text_only").state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in (1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=str(path)) as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        load_checkpoint(tmp_path / "none.pth")


# Damage to our own format


@pytest.fixture
def saved(random_model: Any, tmp_path: Path) -> Path:
    return save_checkpoint(random_model(), tmp_path / "run")


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, -1])
def test_truncated_safetensors(saved: Path, keep: float) -> None:
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors") as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


def test_damaged_safetensors_header(saved: Path) -> None:
    weights = saved / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[8:40] = b"\xff" * 32
    weights.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_missing_part(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(HvpnetError, match=name):
        load_checkpoint(saved)


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), "utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 0.1}, "dropout: unknown key"),
        ({"task": "pos"}, "task: Input should be 'ner' or 're', not 'pos'"),
        ({"prefix_length": 7}, "prefix_length 7 does not divide"),
        ({"splits": "4"}, "splits: Input should be a valid integer, not '4'"),
        ({"bert": None}, "bert: expected a table"),
        ({"bert": {"num_hidden_layers": 10_000_000}}, "num_hidden_layers: Input should be less than or equal to 200"),
        ({"labels": ["O", "S-PER"]}, "'S-PER' is no label of entities"),
    ],
)
def test_edited_config(saved: Path, changes: dict[str, Any], message: str) -> None:
    edit(saved, **changes)
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prefix_length": 8}, "encoder_conv.0.weight"),
        ({"splits": 2}, "gates.0.weight"),
        ({"variant": "text_only", "resnet": None}, r"surplus: encoder_conv.0.bias, .* and \d+ more"),
        ({"task": "re"}, "missing: classifier.weight"),
        ({"labels": ["O", "B-PER"]}, "fc.weight"),
    ],
)
def test_config_of_another_model(saved: Path, changes: dict[str, Any], named: str) -> None:
    edit(saved, **changes)
    with pytest.raises(CheckpointError, match=named):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Hints(task="re"), "the checkpoint's task is 'ner', not 're'"),
        (Hints(variant="only_obj"), "the checkpoint's variant is 'full', not 'only_obj'"),
        (Hints(max_length=23), "the checkpoint's max_length is 24, not 23"),
        (Hints(heads=4), "the checkpoint has 2 attention heads, not 4"),
        (Hints(labels=["O", "B-PER"]), "the checkpoint's labels is"),
    ],
)
def test_hints_that_our_format_contradicts(saved: Path, asked: Hints, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved, asked)


# Building, and the text encoder's configuration


def test_build_takes_the_tensors_given(random_model: Any) -> None:
    model = random_model()
    state = model.state_dict()
    found = build(model.config, state)
    assert found.fc.weight.data_ptr() == state["fc.weight"].data_ptr()  # no second copy in memory


def test_text_encoders_configuration(tmp_path: Path) -> None:
    assert read_bert_config(tmp_path) is None
    path = tmp_path / "config.json"
    for mark in ("", "\ufeff"):
        path.write_text(mark + '{"hidden_size": 384}', "utf-8")
        assert read_bert_config(tmp_path) == {"hidden_size": 384}
    for content, message in (
        (b"[]", "holds no configuration"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON: it is nested too deep"),
        (b"[" + b" " * 2**20 + b"]", "is not JSON: it has more than 1048576 bytes"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_bert_config(tmp_path)
