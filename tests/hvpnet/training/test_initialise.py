import json
import re

import pytest
import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import update_bn

from hvpnet import ResNetConfig
from hvpnet.data import NER_LABELS
from hvpnet.errors import CheckpointError, ConfigError
from hvpnet.modeling.checkpoint import load_checkpoint, save_checkpoint
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet.modeling.visual_prefix import ImageModel
from hvpnet.training.config import BertSizes, ModelOptions
from hvpnet.training.initialise import new_model

SIZES = BertSizes(64, 2, 4, 96, 80)
RESNET = ResNetConfig("basic", (1, 1, 1, 1))
RELATIONS = ("None", "/per/per/peer")


@pytest.fixture(scope="module")
def tokenizers(tokenizer_dir):
    return {task: load_tokenizer(tokenizer_dir, task) for task in ("ner", "re")}


def make(tokenizers, task="ner", **options):
    torch.manual_seed(0)
    values = {"bert": SIZES, "resnet": RESNET, "variant": "text_only", "projection_size": 8, "max_length": 64}
    labels = NER_LABELS if task == "ner" else RELATIONS
    return new_model(ModelOptions(tokenizer="unread", **values | options), task, labels, tokenizers[task])


@pytest.fixture
def bert(tmp_path, tokenizers):
    """A folder of a BERT with four heads, and its tensors as BertModel names them."""
    torch.manual_seed(9)
    vocabulary = tokenizers["ner"].get_vocab_size()
    state = {name: torch.randn_like(tensor) for name, tensor in make(tokenizers).bert.state_dict().items()}
    config = {
        "model_type": "bert", "vocab_size": vocabulary, "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 80, "hidden_act": "relu",
        "layer_norm_eps": 1e-6, "hidden_dropout_prob": 0.1,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path, state


def test_a_fresh_model(tokenizers):
    model = make(tokenizers, "re", variant="full")
    assert model.config.bert.vocab_size == tokenizers["re"].get_vocab_size()
    assert (model.config.labels, model.config.head, model.config.max_length) == (RELATIONS, "markers", 64)
    for name in ("embeddings.word_embeddings", "encoder.layer.1.attention.self.query", "encoder.layer.0.output.dense"):
        assert model.bert.get_parameter(f"{name}.weight").std().item() == pytest.approx(0.02, rel=0.05)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("image_model.")}
    assert not model.image_model.training


def test_default_lengths(tokenizers):
    sizes = BertSizes(64, 1, 1, 64, 512)
    for task, length in (("ner", 128), ("re", 80)):
        assert make(tokenizers, task, bert=sizes, max_length=None).config.max_length == length
    with pytest.raises(ConfigError, match="max_length 128 is not between 3 and the 80 positions"):
        make(tokenizers, max_length=None)


@pytest.mark.parametrize("task", ["ner", "re"])
@pytest.mark.parametrize("layout", ["plain", "prefixed", "pickled", "tensorflow"])
def test_bert_weights(tokenizers, bert, task, layout):
    folder, state = bert
    extra = {"pooler.dense.weight": torch.zeros(64, 64), "embeddings.position_ids": torch.arange(80)[None]}
    prefix = "" if layout == "plain" else "bert."
    written = {f"{prefix}{name}": tensor for name, tensor in (state | extra).items()}
    if layout == "tensorflow":
        old = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
        for new_name, old_name in old:
            written = {name.replace(new_name, old_name): tensor for name, tensor in written.items()}
        written["cls.predictions.bias"] = torch.zeros(3)
    if layout == "pickled":
        torch.save(written, folder / "pytorch_model.bin")
    else:
        save_file(written, folder / "model.safetensors")
    model = make(tokenizers, task, bert=folder)
    assert (model.config.bert.num_attention_heads, model.config.bert.hidden_act) == (4, "relu")
    assert model.config.bert.layer_norm_eps == 1e-6
    for name, tensor in model.bert.state_dict().items():
        assert torch.equal(tensor[: len(state[name])], state[name]), name
    words = model.bert.embeddings.word_embeddings.weight
    added = words[len(state["embeddings.word_embeddings.weight"]) :]
    assert len(added) == (4 if task == "re" else 0)
    if task == "re":
        assert 0.01 < added.std() < 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.layer.0.output.dense.bias": None}, "missing: encoder.layer.0.output.dense.bias"),
        ({"encoder.layer.2.output.dense.bias": torch.zeros(64)}, "surplus: encoder.layer.2.output.dense.bias"),
        ({"embeddings.LayerNorm.bias": torch.zeros(3)}, r"misshapen: embeddings.LayerNorm.bias is \[3\] instead of"),
    ],
)
def test_bert_weights_that_do_not_fit_are_named(tokenizers, bert, change, message):
    folder, state = bert
    save_file(
        {name: tensor for name, tensor in (state | change).items() if tensor is not None}, folder / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match=f"{re.escape(str(folder))} does not hold the weights .*{message}"):
        make(tokenizers, bert=folder)


def test_bert_weights_that_are_no_numbers_are_named(tokenizers, bert):
    folder, state = bert
    state["embeddings.LayerNorm.bias"][3] = float("nan")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"NaN or infinite: embeddings.LayerNorm.bias"):
        make(tokenizers, bert=folder)


def test_a_model_that_is_larger_than_the_machine(tokenizers):
    with pytest.raises(ConfigError, match=r"a model of these sizes takes .* GiB, and the machine has"):
        make(tokenizers, bert=BertSizes(10**6, 2, 10, 10**6, 512))


def test_bert_of_another_vocabulary(tokenizers, bert):
    folder, state = bert
    words = state["embeddings.word_embeddings.weight"]
    save_file(state | {"embeddings.word_embeddings.weight": words[:-1].clone()}, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=f"the tokenizer has {len(words)} pieces, the BERT in .* {len(words) - 1}"):
        make(tokenizers, bert=folder)


def test_markers_are_added_for_relations_alone(tokenizers, bert):
    folder, state = bert
    words = state["embeddings.word_embeddings.weight"]
    save_file(state | {"embeddings.word_embeddings.weight": words[:-4].clone()}, folder / "model.safetensors")
    with pytest.raises(ConfigError, match="name its own tokenizer"):
        make(tokenizers, "ner", bert=folder)


def test_folder_without_bert(tokenizers, bert, tmp_path):
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        make(tokenizers, bert=bert[0])
    with pytest.raises(ConfigError, match=r"nothing has no config\.json: name the folder of a BERT"):
        make(tokenizers, bert=tmp_path / "nothing")


def test_resnet_weights(tokenizers, tmp_path):
    torch.manual_seed(4)
    state = {name: torch.rand(tensor.shape) for name, tensor in ImageModel(RESNET).resnet.state_dict().items()
             if not name.endswith("num_batches_tracked")}  # fmt: skip
    torch.save(state | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet.pth")
    model = make(tokenizers, variant="full", resnet_weights=tmp_path / "resnet.pth")
    loaded = model.image_model.resnet.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    del state["layer2.0.conv1.weight"]
    torch.save(state, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"resnet\.pth does not hold .*missing: layer2\.0\.conv1\.weight"):
        make(tokenizers, variant="full", resnet_weights=tmp_path / "resnet.pth")


def test_checkpoint_of_a_new_model(tokenizers, tmp_path):
    model = make(tokenizers, variant="full").eval()
    loaded = load_checkpoint(save_checkpoint(model, tmp_path))
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_batch_norms_have_the_statistics_of_the_pictures():
    torch.manual_seed(2)
    model = ImageModel(RESNET).eval()
    model.requires_grad_(requires_grad=False)
    batches = [torch.randn(4, 3, 64, 64) * 2 + index for index in range(3)]
    first = [model.resnet.conv1(images) for images in batches]
    update_bn(iter(batches), model)
    assert not model.training
    norm = model.resnet.bn1
    mean = torch.stack([x.mean((0, 2, 3)) for x in first]).mean(0)
    variance = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in first]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-4)
    assert norm.momentum == 0.1
    deepest = []
    model.resnet.layer4[0].bn2.register_forward_hook(lambda _module, _inputs, output: deepest.append(output.clone()))
    model(torch.cat(batches))
    assert deepest[0].mean().abs() < 0.1
    assert 0.5 < deepest[0].std() < 2
