"""Four 600 x 450 JPEGs to normalised float32 [4, 3, 224, 224], against the published loader's transforms.

The published loader decodes and transforms one picture after the other, on one thread, as every worker of a DataLoader
does. The pixels are the same in every bit.
"""

import io

import numpy as np
import pytest
import torch
from pairing import paired
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

import hvpnet.modeling.torchvision_compat  # noqa: F401  lets torchvision be imported below
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_runtime import Pipeline, Tweet
from hvpnet_runtime.bundle import PictureSpec

WIDTH, HEIGHT = 600, 450


def jpeg(seed: int) -> bytes:
    """Large shapes, edges and texture; about 60 KB, like a photograph of this size."""
    rng = np.random.default_rng(seed)
    mixed = np.zeros((HEIGHT, WIDTH, 3))
    for rows, share in ((6, 0.6), (48, 0.25), (200, 0.15)):
        layer = Image.fromarray(rng.integers(0, 256, (rows, rows * 4 // 3, 3), dtype=np.uint8))
        mixed += share * np.asarray(layer.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    file = io.BytesIO()
    Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


@pytest.mark.parametrize("threads", [1, 2])
def test_preprocessing(benchmark: BenchmarkFixture, files, threads: int) -> None:
    from torchvision import transforms

    spec = PictureSpec()
    tail = [transforms.ToTensor(), transforms.Normalize(mean=list(spec.mean), std=list(spec.std))]
    published = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *tail])
    pictures = [jpeg(seed) for seed in range(4)]
    pipeline = Pipeline.load(files.bundle, "onnxruntime-cpu", threads=threads)
    tweet = Tweet(text="Jordan", image=pictures[0], objects=pictures[1:])

    def ours() -> torch.Tensor:
        pixels = [each.pixels for each in pipeline.prepare(tweet).pictures if each is not None]
        return normalise(torch.from_numpy(np.stack(pixels)))

    def theirs() -> torch.Tensor:
        return torch.stack([published(Image.open(io.BytesIO(data)).convert("RGB")) for data in pictures])

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.equal(ours(), theirs())
        paired(benchmark, ours, theirs, rounds=100)
    finally:
        torch.set_num_threads(before)
        pipeline.close()
