"""What pictures cost that were seen before, and what `jpeg="scaled"` gains, costs in pixels, and costs in F1.

    python benchmarks/pictures.py BUNDLE --out FILE.json [--data DATA --trained BUNDLE]

Pictures are drawn: scenes of picture-tweets at 600, 1200 and 2048 pixels, with texture and grain, as JPEGs. Ways take
turns in one run. With `--data`, a data set in the published layout such as `demo/data`, the test split is scored in
full and scaled, every picture drawn large: enlarged to a shorter side of 1536 pixels, with the same texture and grain.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from io import BytesIO
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from hvpnet import Pipeline, Tweet
from hvpnet.bench.machine import describe_machine
from hvpnet.bench.statistics import Ratio, Summary, interleave
from hvpnet.data import Split, load_split
from hvpnet.data.synthetic.scenes import draw_scene
from hvpnet.evaluation.scoring import score_pipeline
from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.preprocessing import encoded_picture
from hvpnet_runtime.preprocessing.encoded_picture import EncodedPicture
from hvpnet_runtime.preprocessing.pictures import Jpeg

SIZES = ((600, 450), (1200, 900), (2048, 1536))
KINDS = ("PER", "LOC", "ORG", "MISC")
LARGE = 1536
WAYS: tuple[Jpeg, Jpeg] = ("full", "scaled")


def texture(side: int = 520) -> np.ndarray:
    """Differences [side, side, 3]: shapes of some 20 pixels, and grain as a sensor's."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (side // 20, side // 20, 3), dtype=np.uint8))
    shapes = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32) - 128
    return 0.15 * shapes + rng.normal(0, 5, (side, side, 3)).astype(np.float32)


TEXTURE = texture()


def enlarged(picture: Image.Image, width: int, height: int, *, textured: bool = True) -> bytes:
    """A JPEG of this size."""
    large = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), np.float32)
    file = BytesIO()
    tiles = np.tile(TEXTURE, (-(-height // len(TEXTURE)), -(-width // len(TEXTURE)), 1))[:height, :width]
    grained = (large + textured * tiles).clip(0, 255).astype(np.uint8)
    Image.fromarray(grained).save(file, "JPEG", quality=85)
    return file.getvalue()


def drawn(width: int, height: int, *, textured: bool = True) -> list[bytes]:
    scenes = [draw_scene(kind, np.random.default_rng(seed)).picture for seed, kind in enumerate(KINDS)]
    return [enlarged(scene, width, height, textured=textured) for scene in scenes]


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def milliseconds(timings: list[float]) -> dict[str, float]:
    return {name: round(1e3 * value, 3) for name, value in asdict(Summary.of(timings)).items() if name != "count"}


def with_spare(spare: float, read: Callable[[], Any]) -> Any:
    """What is read while pictures keep so many pixels for each that they are resized to."""
    usual, encoded_picture.SPARE = encoded_picture.SPARE, spare
    try:
        return read()
    finally:
        encoded_picture.SPARE = usual


def scaling(rounds: int) -> dict[str, Any]:
    """Bytes to the model's input, of one picture after the other, and how far the pixels are apart.

    Beside the two ways that there are, two that keep fewer pixels than `scaled` does.
    """
    results = {}
    for (width, height), textured in product(SIZES, (True, False)):
        files = drawn(width, height, textured=textured)
        full, scaled = ([EncodedPicture.read(data, PictureSpec(), way) for data in files] for way in WAYS)
        reads: dict[str, Callable[[], list[Any]]] = {
            "full": lambda full=full: [each.pixels() for each in full],
            "scaled": lambda scaled=scaled: [each.pixels() for each in scaled],
            "scaled, 1.5 times": lambda scaled=scaled: with_spare(1.5, lambda: [each.pixels() for each in scaled]),
            "scaled, 1 time": lambda scaled=scaled: with_spare(1, lambda: [each.pixels() for each in scaled]),
        }
        ways = {name: lambda _, read=read: seconds(read) / len(KINDS) for name, read in reads.items()}
        taken = interleave(ways, least=rounds)
        pixels = {name: np.stack(read()).astype(int) for name, read in reads.items()}  # [files, crop, crop, 3]
        apart = {name: np.abs(pixels["full"] - own) for name, own in pixels.items()}
        case = f"{width} x {height}, {'with texture and grain' if textured else 'smooth'}"
        results[case] = {
            "bytes": [len(data) for data in files],
            "milliseconds": {name: milliseconds(own) for name, own in taken.items()},
            "full_over": {name: asdict(Ratio.of(taken["full"], own)) for name, own in taken.items()},
            "of_255": {name: {"mean": float(own.mean()), "max": int(own.max())} for name, own in apart.items()},
        }
    return results


def seen(bundle: Path, rounds: int) -> dict[str, Any]:
    """A tweet from the bytes of four pictures that were seen before: its text graph, and in turn all the rest."""
    image, *objects = drawn(*SIZES[0])
    with Pipeline.load(bundle) as pipeline:
        tweet = Tweet(text="Jordan was great in Madison today", image=image, objects=objects)
        if pipeline.bundle.task == "re":
            tweet = replace(tweet, head=(0, 6), tail=(20, 27))
        encode, known = pipeline.backend.encode_text, {}

        def remembered(*inputs):
            """Instead of the text graph: what it said the first time."""
            if not known:
                known["inputs"], known["output"] = inputs, encode(*inputs)
            return known["output"]

        pipeline.backend.encode_text = remembered
        expected = pipeline([tweet])
        ways = {
            "text_graph": lambda _: seconds(lambda: encode(*known["inputs"])),
            "rest": lambda _: seconds(lambda: pipeline([tweet])),
            "rest_prepare": lambda _: seconds(lambda: pipeline.prepare(tweet)),
        }
        taken = interleave(ways, least=rounds, warm_up=5)
        assert pipeline([tweet]) == expected
        return {
            "sizes": asdict(pipeline.bundle.sizes),
            "backend": [pipeline.backend.name, pipeline.backend.precision],
            "picture_bytes": [len(each) for each in (image, *objects)],
            "computed": pipeline.cache.misses,
            "milliseconds": {name: milliseconds(own) for name, own in taken.items()},
        }


def scored(bundle: Path, data: Path) -> dict[str, Any]:
    """F1 on the test split with every picture large."""
    results: dict[str, Any] = {"data": data.absolute().name}
    with TemporaryDirectory() as folder:
        with Pipeline.load(bundle) as pipeline:
            given = load_split(data, "test", labels=pipeline.bundle.labels, pictures=pipeline.bundle.pictures)
            results["as_they_are"] = asdict(score_pipeline(pipeline, given))
        split = large(given, Path(folder))
        tags = {}
        for way in WAYS:
            with Pipeline.load(bundle, jpeg=way) as pipeline:
                results[way] = asdict(score_pipeline(pipeline, split))
                tags[way] = [answer(each) for each in pipeline([example.tweet for example in split.examples])]
    pairs = [pair for each in zip(tags["full"], tags["scaled"], strict=True) for pair in zip(*each, strict=True)]
    return results | {"decisions": len(pairs), "differing": sum(one != other for one, other in pairs)}


def answer(result) -> tuple[str, ...]:
    return result.tags if hasattr(result, "tags") else (result.relation,)


def large(split: Split, folder: Path) -> Split:
    """The same tweets, every picture and crop enlarged."""
    made: dict[Path, Path] = {}

    def enlarge(path: Path) -> Path:
        if path not in made:
            picture = Image.open(path)
            scale = LARGE / min(picture.size)
            made[path] = folder / f"{len(made)}.jpg"
            made[path].write_bytes(enlarged(picture, *(round(scale * side) for side in picture.size)))
        return made[path]

    examples = [
        replace(
            example,
            tweet=replace(
                example.tweet,
                image=example.tweet.image and enlarge(Path(example.tweet.image)),
                objects=[enlarge(Path(each)) for each in example.tweet.objects or ()],
            ),
        )
        for example in split.examples
    ]
    return replace(split, examples=examples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="score its test split too, with the bundle trained on it")
    parser.add_argument("--trained", type=Path, help="the bundle that --data is scored with (default: BUNDLE)")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    result = {
        "machine": describe_machine(),
        "seen_before": seen(options.bundle, 10 * options.rounds),
        "scaled": scaling(options.rounds),
    }
    if options.data:
        result["f1"] = scored(options.trained or options.bundle, options.data)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
