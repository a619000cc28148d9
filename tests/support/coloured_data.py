"""Data sets in the published layouts without crops, whose pictures have the colours that the tiny grounder finds."""

from pathlib import Path

import numpy as np
from PIL import Image
from tiny_grounder import COLOURS

BOXES = {"red": (4, 8, 24, 40), "blue": (40, 0, 64, 12), "green": (0, 52, 10, 64)}
RELATION = "{'token': ['Red', 'met', 'Blue', '!'], 'h': {'name': 'Red', 'pos': [0, 1]}, 't': {'name': 'Blue', 'pos': [2, 3]}, 'img_id': '%s', 'relation': 'None'}\n"  # noqa: E501


def draw(path: Path, seed: int, *colours: str) -> None:
    """A picture of its own, grey, with the colours where they are wanted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    image = Image.fromarray(np.repeat(rng.integers(90, 160, (64, 64, 1), np.uint8), 3, axis=2))
    for colour in colours:
        image.paste(COLOURS[colour], BOXES[colour])
    image.save(path, "png")


def write_twitter(root: Path) -> Path:
    """The published layout of Twitter-2015 without crops: a picture of nothing, one that two tweets show."""
    pictures = {"1": ("red",), "2": ("red", "blue"), "3": (), "4": ("green", "blue", "red")}
    for number, (name, colours) in enumerate(pictures.items()):
        draw(root.parent / f"{root.name}_images/{name}.jpg", number, *colours)
    for split, names in {"train": "4124", "valid": "31", "test": "122"}.items():
        tweets = "".join(
            f"IMGID:{name}\nJordan\tB-PER\nin\tO\nMadison\tB-LOC\ncar{row}\tO\n\n" for row, name in enumerate(names)
        )
        root.mkdir(parents=True, exist_ok=True)
        (root / f"{split}.txt").write_text(tweets, "utf-8")
    return root


def write_mnre(root: Path) -> Path:
    """The published layout of MNRE without crops; the same name is another picture in another split."""
    for split, pictures in {
        "train": {"a.jpg": ("red",), "b.jpg": ()},
        "val": {"a.jpg": ("red", "blue", "green")},
    }.items():
        for number, (name, colours) in enumerate(pictures.items()):
            draw(root / "img_org" / split / name, number + len(split), *colours)
        (root / "txt").mkdir(exist_ok=True)
        (root / f"txt/ours_{split}.txt").write_text("".join(RELATION % name for name in [*pictures, "a.jpg"]), "utf-8")
    (root / "ours_rel2id.json").write_text('{"None": 0}', "utf-8")
    return root
