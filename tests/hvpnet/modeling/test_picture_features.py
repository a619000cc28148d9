import copy

import numpy as np
import pytest
import torch
from PIL import Image

from hvpnet.errors import DataError
from hvpnet.modeling import picture_features as features
from hvpnet.modeling.picture_features import (
    PictureFeatures,
    load_images,
    load_pixels_of,
    picture_files,
    picture_slots,
)
from hvpnet.modeling.visual_prefix import PICTURES
from hvpnet_runtime.errors import PictureError
from hvpnet_runtime.preprocessing.pictures import load_pixels
from hvpnet_runtime.types import Tweet


def published(pixels):
    """Normalised by torchvision, [3, 224, 224]."""
    from torchvision import transforms

    normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return transforms.Compose([transforms.ToTensor(), normalize])(pixels)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Six pictures of noise."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(5)
    paths = [folder / f"{index}.png" for index in range(6)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (50, 60, 3), np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def models(make_model):
    return {variant: make_model("re", variant) for variant in ("full", "flat", "1t3", "only_obj", "text_only")}


@pytest.fixture(scope="module")
def tweets(files):
    a, b, c, d, e, _ = files
    return [
        Tweet(words=("a",), image=a, objects=(b,), id=0),
        Tweet(words=("b",), id=1),
        Tweet(words=("c",), image=c, objects=(b, d, e, a), id=2),
        Tweet(words=("d",), image=a, id=3),
    ]


@pytest.fixture(scope="module")
def images(files):
    """What the model reads of every file, [3, 224, 224]; None is the blank picture."""
    return {None: torch.zeros(3, 224, 224), **{path: published(load_pixels(path, PICTURES)) for path in files}}


def test_slots(models, files, tweets):
    a, b, c, d, e, _ = files
    assert [picture_slots(tweet, models["full"].config) for tweet in tweets] == [
        (a, b, None, None),
        (None, None, None, None),
        (c, b, d, e),
        (a, None, None, None),
    ]
    assert [picture_slots(tweet, models["only_obj"].config) for tweet in tweets] == [
        (b, None, None),
        (None, None, None),
        (b, d, e),
        (None, None, None),
    ]
    assert [picture_slots(tweet, models["text_only"].config) for tweet in tweets] == [(), (), (), ()]


def test_files_are_distinct_and_read_ones_only(models, files, tweets):
    a, b, c, d, e, _ = files
    assert picture_files(tweets, models["full"].config) == [a, b, c, d, e]
    assert picture_files(tweets, models["only_obj"].config) == [b, d, e]
    assert picture_files(tweets, models["text_only"].config) == []


@pytest.mark.parametrize("variant", ["full", "flat", "1t3", "only_obj"])
def test_features_and_prefixes_are_those_of_each_picture(models, tweets, images, variant):
    model = models[variant]
    table = PictureFeatures.compute(model, tweets)
    with torch.no_grad():
        prefix = table.prefix(model, tweets)
        features_of = {path: model.image_model(image[None])[0] for path, image in images.items()}
        for row, tweet in zip(prefix, tweets, strict=True):
            expected = torch.stack([features_of[path] for path in picture_slots(tweet, model.config)])
            torch.testing.assert_close(table.table[table.rows_of(tweet)], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(row, model.prefix(expected), rtol=1e-4, atol=1e-5)


def test_each_file_is_read_once(models, files, tweets, monkeypatch):
    read = []

    def load(path, spec):
        read.append(path)
        return load_pixels(path, spec)

    monkeypatch.setattr(features, "load_pixels", load)
    monkeypatch.setattr(features, "PICTURES_PER_RUN", 2)
    table = PictureFeatures.compute(models["full"], tweets)
    assert sorted(read) == files[:5]
    assert table.table.shape == (6, 960, 2, 2)
    assert not table.table.requires_grad


def test_text_only_has_none(models, tweets):
    table = PictureFeatures.compute(models["text_only"], tweets)
    assert table.prefix(models["text_only"], tweets) is None
    assert table.table.numel() == 0


def test_gradients_are_those_of_one_projection_per_slot(models, tweets):
    """A picture seen by several tweets gathers the gradients of all."""
    shared, apart = copy.deepcopy(models["full"]), copy.deepcopy(models["full"])
    table = PictureFeatures.compute(shared, tweets)
    weights = torch.randn(4, 4, 4, 2, 4 * 128, generator=torch.Generator().manual_seed(0))
    (table.prefix(shared, tweets) * weights).sum().backward()
    slots = torch.stack([table.table[table.rows_of(tweet)] for tweet in tweets])  # [4, 4, 960, 2, 2]
    (apart.prefix(slots.flatten(0, 1)).unflatten(0, (4, 4)) * weights).sum().backward()
    for name, parameter in apart.named_parameters():
        if name.startswith(("encoder_conv", "gates")):
            torch.testing.assert_close(shared.get_parameter(name).grad, parameter.grad, rtol=1e-3, atol=1e-4)
        else:
            assert shared.get_parameter(name).grad is None


def test_computing_leaves_the_batch_norms_alone(models, tweets):
    model = copy.deepcopy(models["full"]).train()
    before = copy.deepcopy(model.state_dict())
    PictureFeatures.compute(model, tweets)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_pixels_are_the_runtimes(files):
    pixels, (images,) = load_pixels_of(files[:3]), load_images(files[:3])
    expected = np.stack([load_pixels(path, PICTURES) for path in files[:3]])
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, expected)
    assert images.dtype == torch.float32
    assert torch.equal(images, torch.stack([published(picture) for picture in expected]))


@pytest.mark.parametrize(
    "tweet",
    [
        Tweet(words=("a",), image="a.jpg", boxes=((0, 0, 1, 1),), id=4),
        Tweet(words=("a",), image=np.zeros((9, 9, 3), np.uint8), id=4),
        Tweet(words=("a",), objects=(b"",), id=4),
    ],
)
def test_pictures_that_are_no_files(models, tweet):
    with pytest.raises(DataError, match="tweet 4: pictures of a data set are files"):
        PictureFeatures.compute(models["full"], [tweet])


def test_unreadable_picture_is_named(models, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff nothing more")
    with pytest.raises(PictureError, match=r"broken\.jpg"):
        PictureFeatures.compute(models["full"], [Tweet(words=("a",), image=path)])
