"""Pictures of several small figures, and scattered: picture-tweets that only crops of their pictures decide.

The figure that tells the type of the ambiguous name is small and lies where the model's cut out of the middle of the
whole picture does not reach; the other figures mean nothing. So a model is at chance unless it gets crops.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hvpnet.data.synthetic import figures
from hvpnet.data.synthetic.figures import Figure, Pen, jitter, pick
from hvpnet.data.synthetic.picture_tweets import Sizes, write_picture_tweets
from hvpnet.data.synthetic.scenes import OVERSAMPLING, Drawing, backdrop
from hvpnet_runtime.bundle import MAX_OBJECTS
from hvpnet_runtime.preprocessing.boxes import Edges

FIGURES: dict[str, tuple[Figure, tuple[str, ...]]] = {
    "person": (figures.person, ("tomato", "sandybrown", "palevioletred", "cadetblue")),
    "mountains": (figures.mountains, ("slategray", "steelblue")),
    "tower": (figures.tower, ("midnightblue", "darkslateblue", "navy")),
    "trophy": (figures.trophy, ("gold", "orange")),
    "house": (figures.house, ("linen", "wheat")),
    "heart": (figures.heart, ("crimson", "deeppink")),
    "mug": (figures.mug, ("whitesmoke", "lightgray", "slategray")),
    "phone": (figures.phone, ("whitesmoke", "lightgray", "slategray")),
}
"""The figures by what they are called, with the colours of which one gets one."""

FIGURE_OF = {"PER": "person", "LOC": "mountains", "ORG": "tower", "MISC": "trophy"}
"""Which figure shows an entity type; the others mean nothing."""

_CLUTTER = tuple(name for name in FIGURES if name not in FIGURE_OF.values())
_BACKDROPS = (
    "antiquewhite",
    "lightsalmon",
    "cornflowerblue",
    "lightcyan",
    "mediumpurple",
    "firebrick",
    "silver",
    "khaki",
)
_ASPECTS = (16 / 9, 1.9, 9 / 16, 1 / 1.9)
_SIDES = (0.28, 0.36)  # of a figure, as shares of the picture's shorter side
_SHOWN = 0.92  # share of the shorter side that the model sees in the middle of a picture: 224 / 256, and a margin
_LOOSENESS = 0.12  # most that an edge of a given box is off, as a share of the box: a detector's boxes are not tight
_TRIES, _TRIES_OF_THE_FIRST = 20, 10_000


@dataclass(frozen=True)
class FigureScene:
    """A picture of several figures, none of which hides another.

    Attributes:
        picture: RGB.
        names: what they are, keys of `FIGURES`, those that were asked for first.
        boxes: of each, as tight as it was drawn.
    """

    picture: Image.Image
    names: tuple[str, ...]
    boxes: tuple[Edges, ...]


def draw_figures(
    names: Sequence[str],
    size: NDArray[np.int_],
    rng: np.random.Generator,
    sides: tuple[float, float] = _SIDES,
    *,
    first_outside: bool = False,
) -> FigureScene:
    """Draws figures at random places of a backdrop that says nothing about them.

    Args:
        names: distinct keys of `FIGURES`; any but the first is left out where it finds no free place.
        size: width and height of the picture in pixels [2].
        rng: decides on everything else.
        sides: least and largest side of a figure's square, as shares of the picture's shorter side, at most 1.
        first_outside: keep the first figure out of the square in the middle that the model sees of a whole picture.
            There is room where the longer side is 1.7 times the shorter at least, and the figure's side 0.36 of it.

    Raises:
        ValueError: there is no room for the first figure.
    """
    canvas = backdrop(jitter(rng, _BACKDROPS), jitter(rng, _BACKDROPS), size, rng)
    taken: list[Edges] = []
    boxes: dict[str, Edges] = {}
    for name in names:
        first = not boxes
        seen = [_middle(size)] if first and first_outside else []
        places = islice(_places(size, sides, rng), _TRIES if boxes else _TRIES_OF_THE_FIRST)
        place = next((each for each in places if not any(_overlap(each, other) for other in taken + seen)), None)
        if place is None and first:
            raise ValueError(f"a picture of {' x '.join(map(str, size))} pixels has no room for the first figure")
        if place is not None:
            boxes[name] = _draw(canvas, name, place, rng)
            taken.append(place)
    return FigureScene(canvas.reduce(OVERSAMPLING), tuple(boxes), tuple(boxes.values()))


def draw_scattered(kind: str, rng: np.random.Generator) -> Drawing:
    """Draws a picture of scattered: long, with the deciding figure near an end and one to three others anywhere.

    Args:
        kind: an entity type.
        rng: decides on everything else.

    Returns:
        A picture of 180 to 684 pixels a side, and the boxes of at most three figures in any order, the deciding one
        among them, a little loose.
    """
    clutter = rng.permutation(_CLUTTER)[: rng.integers(1, 4)].tolist()
    scene = draw_figures([FIGURE_OF[kind], *clutter], picture_size(180, rng), rng, first_outside=True)
    boxes = scene.boxes[: rng.integers(1, MAX_OBJECTS + 1)]
    return Drawing(scene.picture, tuple(_loosened(boxes[place], scene, rng) for place in rng.permutation(len(boxes))))


def write_scattered(out: Path | str, sizes: Sizes | None = None, seed: int = 0) -> Path:
    """Writes the data set in the layout that `load_split` reads, with the crops of every picture.

    Words and labels are those of `write_picture_tweets`, whose arguments, result and errors it has.
    """
    return write_picture_tweets(out, "ner", sizes, seed, draw_scattered)


def picture_size(side: int, rng: np.random.Generator) -> NDArray[np.int_]:
    """Width and height [2] of a long picture, whose shorter side has `side` to twice as many pixels."""
    aspect, short = pick(rng, _ASPECTS), side * (1 + rng.random() ** 3)
    return np.rint(short * np.array((max(1, aspect), max(1, 1 / aspect)))).astype(int)


def _places(size: NDArray[np.int_], sides: tuple[float, float], rng: np.random.Generator) -> Iterator[Edges]:
    """Squares anywhere in a picture, without end."""
    while True:
        side = round(rng.uniform(*sides) * int(min(size)))
        left, top = rng.integers(0, size - side + 1).tolist()
        yield left, top, left + side, top + side


def _middle(size: NDArray[np.int_]) -> Edges:
    """What the model may see of a whole picture."""
    shown = round(_SHOWN * int(min(size)))
    left, top = ((size - shown) // 2).tolist()
    return left, top, left + shown, top + shown


def _overlap(one: Edges, other: Edges) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _draw(canvas: Image.Image, name: str, place: Edges, rng: np.random.Generator) -> Edges:
    """Draws a figure, cut off at the edges of its place; returns its box."""
    left, top, right, _ = (OVERSAMPLING * edge for edge in place)
    tile, half = Image.new("RGBA", (right - left, right - left)), (right - left) / 2
    figure, colours = FIGURES[name]
    figure(Pen(ImageDraw.Draw(tile), rng, half, half, half), jitter(rng, colours))
    canvas.paste(tile, (left, top), tile)
    x0, y0, x1, y1 = tile.getbbox() or (0, 0, *tile.size)  # of what is not transparent
    x0, y0, x1, y1 = x0 // OVERSAMPLING, y0 // OVERSAMPLING, -(-x1 // OVERSAMPLING), -(-y1 // OVERSAMPLING)
    return place[0] + x0, place[1] + y0, place[0] + x1, place[1] + y1


def _loosened(box: Edges, scene: FigureScene, rng: np.random.Generator) -> Edges:
    """A box with its edges moved, inside the picture."""
    extent = np.array((box[2] - box[0], box[3] - box[1]) * 2)  # [4]
    moved = np.rint(box + rng.uniform(-_LOOSENESS, _LOOSENESS, 4) * extent)  # [4]
    left, top, right, bottom = np.clip(moved, 0, (*scene.picture.size, *scene.picture.size)).astype(int).tolist()
    return left, top, right, bottom
