import hvpnet.modeling.torchvision_compat  # noqa: F401  lets transformers be imported below

# isort: split

import numpy as np
import pytest
from PIL import Image
from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil

from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.grounding.pictures import fit
from hvpnet_runtime.preprocessing.pictures import open_picture

pytestmark = pytest.mark.heavy


def drawn(mode, size):
    """A picture of this mode, of noise and a gradient."""
    rng = np.random.default_rng(size[0] * 1009 + size[1])
    pixels = rng.integers(0, 256, (size[1], size[0], 4)) // 2 + np.linspace(0, 127, size[0])[None, :, None]
    image = Image.fromarray(pixels.astype(np.uint8), "RGBA")
    return image if mode == "RGBA" else image.convert(mode)


def published(picture, size):
    """What the processor makes of a picture before it rescales and normalises, uint8 [S, S, 3]."""
    processor = OwlViTImageProcessorPil(size={"height": size, "width": size}, do_rescale=False, do_normalize=False)
    return np.moveaxis(processor(picture, return_tensors="np")["pixel_values"][0], 0, -1)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "LA", "1"])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (37, 23), (96, 96), (97, 301), (640, 5)])
def test_owl_vit_pixels_are_those_of_transformers(mode, size):
    picture = drawn("RGBA", size).convert("L").convert("LA") if mode == "LA" else drawn(mode, size)
    image = np.asarray(open_picture(picture, PictureSpec()))
    fitted = fit(image, "owl-vit", 96)
    assert (fitted.pixels.dtype, fitted.pixels.shape) == (np.uint8, (96, 96, 3))
    np.testing.assert_array_equal(fitted.pixels, published(picture, 96))


def test_owl_vit_pixels_of_an_array_with_strides():
    image = np.asarray(drawn("RGB", (60, 41)))
    np.testing.assert_array_equal(fit(image[:, ::-1], "owl-vit", 64).pixels, published(image[:, ::-1].copy(), 64))


def test_owl_vit_boxes_in_the_picture():
    fitted = fit(np.zeros((30, 200, 3), np.uint8), "owl-vit", 96)
    boxes = np.array([[0, 0, 1, 1], [0.25, 0.5, 0.5, 1.1], [-0.1, 0, 0.1, 0.2]], np.float32)
    found = fitted.to_picture(boxes)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0, 0, 200, 30], [50, 15, 100, 33], [-20, 0, 20, 6]], atol=1e-4)
