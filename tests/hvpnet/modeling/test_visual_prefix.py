"""Pictures to prefixes, held against plain loops."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hvpnet import ResNetConfig
from hvpnet.modeling.visual_prefix import PICTURES, ImageModel, blank_picture, normalise
from hvpnet_runtime.preprocessing.pictures import load_pixels

BOTTLENECK = ResNetConfig("bottleneck", (1, 2, 1, 1), groups=4, width_per_group=8)


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def published(pixels: Any) -> Tensor:
    """The published transforms of values, by torchvision: [side, side, 3] -> [3, side, side]."""
    from torchvision import transforms

    normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    tensor: Tensor = transforms.Compose([transforms.ToTensor(), normalize])(pixels)
    return tensor


def test_every_value_is_normalised_as_by_torchvision() -> None:
    """All 256 values in each channel, in every bit."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    pixels = np.stack([np.concatenate([values, values + 85, 255 - values], axis=2), np.roll(values, 3).repeat(3, 2)])
    found = normalise(torch.from_numpy(pixels))
    assert (found.dtype, found.shape) == (torch.float32, (2, 3, 16, 16))
    assert torch.equal(found, torch.stack([published(picture) for picture in pixels]))
    assert all(len(channel.unique()) == 256 for channel in found[0])


@pytest.mark.golden
@pytest.mark.parametrize("task", ["ner", "re"])
def test_golden_pictures_are_normalised_as_by_torchvision(golden_tweets: Any, task: Any) -> None:
    tweets = golden_tweets(task)
    files = [path for tweet in tweets for path in (tweet.image, *tweet.objects) if path]
    pixels = np.stack([load_pixels(path, PICTURES) for path in files])
    assert len(pixels) > 10
    assert torch.equal(normalise(torch.from_numpy(pixels)), torch.stack([published(each) for each in pixels]))


def test_the_blank_picture_is_zero_after_normalisation() -> None:
    assert torch.equal(blank_picture(), torch.zeros(1, 3, 224, 224))
    assert blank_picture().dtype == torch.float32


@pytest.mark.parametrize("variant", ["full", "1t3"])
def test_no_pictures_have_no_prefixes(random_model: Any, variant: str) -> None:
    model = random_model(variant=variant)
    with torch.no_grad():
        some, none = (model.encode_pictures(pictures(count, 64).float()) for count in (2, 0))
    assert none.shape == (0, *some.shape[1:])


@pytest.mark.parametrize(
    ("side", "variant"), [(64, "full"), (160, "full"), (160, "flat"), (176, "full"), (224, "full")]
)  # layer4 has sides 2, 5, 5, 6, 7
def test_pyramid(random_model: Any, reference: Any, double: Any, side: int, variant: str) -> None:
    model = random_model(variant=variant)
    images = pictures(1, side)
    expected = np.stack([reference(model).features(image) for image in images])
    with torch.no_grad():
        features = double(model).image_model(images).numpy()
    assert features.shape == (1, model.config.feature_channels, 2, 2)
    np.testing.assert_allclose(features, expected, rtol=1e-9, atol=1e-12)


def test_an_odd_side_loses_its_last_row_and_column(random_model: Any) -> None:
    image_model = random_model(variant="flat").image_model
    seen: list[Tensor] = []
    hook = image_model.resnet.layer4.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        features = image_model(pictures(1, 224).float())
    hook.remove()
    assert seen[0].shape[-1] == 7
    torch.testing.assert_close(features[..., 1, 1], seen[0][..., 3:6, 3:6].mean((-2, -1)))


MODELS: list[dict[str, Any]] = [
    {"variant": "full"},
    {"variant": "full", "prefix_length": 1, "splits": 1},
    {"variant": "full", "prefix_length": 8, "splits": 3},
    {"variant": "full", "prefix_length": 15},
    {"variant": "full", "resnet": BOTTLENECK, "prefix_length": 16},
    {"variant": "flat"},
    {"variant": "flat", "prefix_length": 2, "splits": 5},
    {"variant": "only_obj"},
    {"variant": "1t3", "bert": {"num_hidden_layers": 4}},
    {"variant": "1t3", "bert": {"num_hidden_layers": 6}, "prefix_length": 2},
    {"variant": "1t3", "bert": {"num_hidden_layers": 12}, "resnet": BOTTLENECK, "prefix_length": 8},
    {"variant": "1t3", "bert": {"num_hidden_layers": 2}, "prefix_length": 1},
]


@pytest.mark.parametrize("kind", MODELS)
def test_prefix(random_model: Any, reference: Any, double: Any, kind: dict[str, Any]) -> None:
    model = random_model(**kind)
    config = model.config
    features = np.random.default_rng(0).normal(size=(3, config.feature_channels, 2, 2))
    expected = np.stack([reference(model).prefix(picture) for picture in features])
    with torch.no_grad():
        prefix = double(model).prefix(torch.from_numpy(features)).numpy()
    size = config.prefix_length * config.bert.hidden_size
    assert prefix.shape == (3, config.bert.num_hidden_layers, 2, size)
    np.testing.assert_allclose(prefix, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("layers", "stages"),
    [
        (4, [0, 1, 2, 3]),
        (6, [0, 0, 1, 2, 2, 3]),
        (12, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]),
        (24, [stage for stage in range(4) for _ in range(6)]),
    ],
)
def test_stage_that_feeds_each_layer_of_1t3(random_model: Any, layers: int, stages: list[int]) -> None:
    model = random_model(variant="1t3", bert={"num_hidden_layers": layers})
    channels = model.config.resnet.stage_channels
    features = torch.randn(1, sum(channels), 2, 2)
    with torch.no_grad():
        before = model.prefix(features)[0]
        for stage in range(4):
            changed = features.clone()
            changed[:, sum(channels[:stage]) : sum(channels[: stage + 1])] += 1
            moved = (model.prefix(changed)[0] != before).flatten(1).any(1)  # [layers]
            assert moved.tolist() == [fed == stage for fed in stages]


@pytest.mark.parametrize("variant", ["full", "1t3"])
def test_what_a_picture_adds_does_not_depend_on_the_others(random_model: Any, double: Any, variant: str) -> None:
    model = double(random_model(variant=variant))
    images = pictures(3, 64)
    with torch.no_grad():
        together = model.encode_pictures(images)
        alone = torch.cat([model.encode_pictures(image[None]) for image in images])
        shuffled = model.encode_pictures(images.flip(0)).flip(0)
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(together, shuffled, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(together[0], together[1], rtol=1e-2)


def test_gates_weigh_layers_apart(random_model: Any) -> None:
    with torch.no_grad():
        prefix = random_model().encode_pictures(pictures(1, 64).float())[0]
    assert not torch.allclose(prefix[0], prefix[1], rtol=1e-2)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [  # torchvision's documented counts, without the classifier's 1000 * (features + 1)
        (ResNetConfig("basic", (2, 2, 2, 2)), 11_689_512 - 513_000),
        (ResNetConfig("bottleneck", (3, 4, 6, 3)), 25_557_032 - 2_049_000),
        (ResNetConfig("bottleneck", (3, 4, 23, 3), groups=32, width_per_group=8), 88_791_336 - 2_049_000),
        (ResNetConfig("bottleneck", (3, 4, 6, 3), width_per_group=128), 68_883_240 - 2_049_000),
    ],
    ids=["resnet18", "resnet50", "resnext101_32x8d", "wide_resnet50_2"],
)
def test_picture_encoders_are_torchvisions(config: ResNetConfig, parameters: int) -> None:
    with torch.device("meta"):
        resnet = ImageModel(config).resnet
    assert sum(parameter.numel() for parameter in resnet.parameters()) == parameters
    assert not [name for name in resnet.state_dict() if name.startswith("fc.")]
