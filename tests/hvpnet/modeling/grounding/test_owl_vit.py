import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from random_owl_vit import write_random_owl_vit
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer, OwlViTForObjectDetection, OwlViTProcessor
from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil

from hvpnet.errors import CheckpointError, ConfigError
from hvpnet.modeling.grounding.owl_vit import load_owl_vit
from hvpnet_runtime.grounding.pictures import fit

pytestmark = pytest.mark.heavy

WORDS = ["person", "a mug", "Two towers, mountains!", "x"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_random_owl_vit(tmp_path_factory.mktemp("owl"))


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(checkpoint, tmp_path / "owl")


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((9, 20), (30, 6))]
    return [picture.resize(size) for picture, size in zip(coarse, ((201, 90), (64, 301)), strict=True)]


@pytest.fixture(scope="module")
def published(checkpoint, pictures):
    """transformers' own outputs, and its results of every patch by picture."""
    model = OwlViTForObjectDetection.from_pretrained(checkpoint).eval()
    processor = OwlViTProcessor(
        image_processor=OwlViTImageProcessorPil.from_pretrained(checkpoint),
        tokenizer=CLIPTokenizer.from_pretrained(checkpoint, model_max_length=16),
    )
    inputs = processor(text=[WORDS] * 2, images=pictures, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    sizes = [(picture.height, picture.width) for picture in pictures]
    return outputs, processor.post_process_grounded_object_detection(outputs, threshold=0.0, target_sizes=sizes)


@torch.no_grad()
def test_boxes_and_scores_are_those_of_transformers(checkpoint, pictures, published):
    outputs, results = published
    grounder = load_owl_vit(checkpoint)
    fitted = [fit(np.asarray(picture), "owl-vit", grounder.size) for picture in pictures]
    queries = grounder.encode(WORDS)
    images = torch.from_numpy(np.stack([each.pixels for each in fitted]))
    boxes, scores = grounder(images, queries.expand(2, -1, -1))
    torch.testing.assert_close(queries.expand(2, -1, -1), outputs.text_embeds, atol=1e-5, rtol=0)
    best = outputs.logits.max(dim=1)  # of the patches, [N, Q]
    torch.testing.assert_close(scores, best.values.sigmoid(), atol=1e-5, rtol=0)
    assert len(best.indices.unique()) > 2
    for place, picture in enumerate(fitted):
        expected = results[place]["boxes"][best.indices[place]]  # all patches are there, in their order [Q, 4]
        found = torch.from_numpy(picture.to_picture(boxes[place].numpy()))
        torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)


@torch.no_grad()
def test_pictures_and_queries_do_not_depend_on_each_other(checkpoint):
    grounder = load_owl_vit(checkpoint)
    images = torch.randint(0, 256, (3, grounder.size, grounder.size, 3), dtype=torch.uint8)
    queries = torch.randn(3, 5, grounder.query_size)
    boxes, scores = grounder(images, queries)
    for row in range(3):
        one = grounder(images[row : row + 1], queries[row : row + 1, 2:3])
        torch.testing.assert_close(one, (boxes[row : row + 1, 2:3], scores[row : row + 1, 2:3]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_largest_logit_wins_where_scores_are_rounded_to_one(checkpoint):
    grounder = load_owl_vit(checkpoint)
    grounder.model.class_head.logit_shift.bias.fill_(10.0)
    images = torch.randint(0, 256, (2, grounder.size, grounder.size, 3), dtype=torch.uint8)
    queries = torch.randn(2, 4, grounder.query_size)
    patches, logits = grounder.proposals(images, queries)
    boxes, scores = grounder(images, queries)
    assert (scores == 1).all()
    best = logits.argmax(dim=-1)  # [N, Q]
    for row in range(2):
        torch.testing.assert_close(boxes[row], patches[row][best[row]])


@torch.no_grad()
def test_padding_does_not_matter(checkpoint):
    grounder = load_owl_vit(checkpoint)
    ids = torch.tensor([grounder.tokenizer.encode("a mug").ids])
    short = grounder.encode_queries(ids, torch.ones_like(ids))
    last = grounder.tokenizer.get_vocab_size() - 1
    for pad in (0, 3, last):
        padded = torch.nn.functional.pad(ids, (0, 4), value=pad)
        mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 4))
        torch.testing.assert_close(grounder.encode_queries(padded, mask), short, atol=1e-6, rtol=0)


def test_a_queries_case_does_not_matter(checkpoint):
    tokenizer = load_owl_vit(checkpoint).tokenizer
    assert tokenizer.encode("A  Mug").tokens == tokenizer.encode("a mug").tokens
    assert tokenizer.encode("person").tokens == ["<|startoftext|>", "person</w>", "<|endoftext|>"]


def test_pickled_and_half_weights(checkpoint, folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    extra = {"owlvit.text_model.embeddings.position_ids": torch.arange(16)[None]}  # as in older checkpoints
    torch.save({name: tensor.half() for name, tensor in state.items()} | extra, folder / "pytorch_model.bin")
    found = load_owl_vit(folder).state_dict()
    wanted = load_owl_vit(checkpoint).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name].half().float()) for name in wanted if "box_bias" not in name)


def test_the_normalisation_of_the_folder(folder):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2] * 3}))
    grounder = load_owl_vit(folder)
    torch.testing.assert_close(grounder.mean.flatten(), torch.tensor([0.5, 0.4, 0.3]))
    path.unlink()
    torch.testing.assert_close(load_owl_vit(folder).mean.flatten(), torch.tensor([0.48145466, 0.4578275, 0.40821073]))


def test_a_tokenizer_of_another_folder(folder, tmp_path):
    other = tmp_path / "tokenizer"
    other.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(other / name)
    assert load_owl_vit(folder, other).tokenizer.encode("mug").tokens[1] == "mug</w>"
    with pytest.raises(ConfigError, match="has no tokenizer of CLIP"):
        load_owl_vit(folder)


def spoil(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "values", "error", "message"),
    [
        ("config.json", {"model_type": "owlv2"}, CheckpointError, "model_type 'owlv2'"),
        ("config.json", {"text_config": 3}, CheckpointError, "is no configuration of an OWL-ViT"),
        ("preprocessor_config.json", {"do_center_crop": True}, ConfigError, "do_center_crop True"),
        ("preprocessor_config.json", {"size": {"height": 64, "width": 64}}, ConfigError, "size .*64"),
        ("preprocessor_config.json", {"resample": 2}, ConfigError, "resample 2"),
    ],
)
def test_a_wrong_value(folder, name, values, error, message):
    spoil(folder, name, **values)
    with pytest.raises(error, match=message) as raised:
        load_owl_vit(folder)
    assert "\n" not in str(raised.value)


def test_missing_and_wrong_tensors(folder):
    state = load_file(folder / "model.safetensors")
    name = "class_head.dense0.weight"
    for change, message in (
        ({}, f"missing: {name}"),
        ({name: torch.zeros(3, 3), "more": torch.zeros(1)}, "surplus: more; misshapen: class_head.dense0.weight is"),
        ({name: state[name] * torch.nan}, "NaN or infinite: class_head.dense0.weight"),
    ):
        save_file({key: tensor for key, tensor in state.items() if key != name} | change, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            load_owl_vit(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load_owl_vit(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_owl_vit(folder)


def test_a_tokenizer_with_more_pieces_than_the_model(folder):
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["vocab"]["surplus"] = 100_000
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="the grounder's tokenizer has 100001 pieces"):
        load_owl_vit(folder)
