"""The pictures of picture-tweets: one recipe for each entity type and for each relation."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hvpnet.data.synthetic import figures
from hvpnet.data.synthetic.figures import RGB, Figure, Pen, jitter, pick

OVERSAMPLING = 2
"""Canvas pixels a side for each of the picture: edges come out smooth."""

_ASPECTS = (1.0, 4 / 3, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9)

Part: TypeAlias = tuple[Figure, tuple[str, ...], float, float, float]
"""A figure, the colours of which it gets one, and its place in the scene: x, y (downwards) and size."""

Scene: TypeAlias = tuple[str, str, tuple[Part, ...]]
"""The colours of the backdrop at its top and bottom, and the figures before it, the farthest first."""


@dataclass(frozen=True)
class Drawing:
    """A picture and what is to be seen in it.

    Attributes:
        picture: RGB.
        boxes: (left, top, right, bottom) in pixels, the one that shows the scene's meaning first, then clutter.
    """

    picture: Image.Image
    boxes: tuple[tuple[int, int, int, int], ...]


_SHIRTS = ("tomato", "sandybrown", "palevioletred", "cadetblue")
_GREYS = ("whitesmoke", "lightgray", "slategray")
_COUNTRY: Part = (figures.mountains, ("slategray", "steelblue"), 0, 0, 1)
_CITY: tuple[Part, ...] = (
    *((figures.tower, ("midnightblue",), x, 0.7, 0.7) for x in (-1.6, -0.8, 0.8, 1.6)),
    (figures.tower, ("darkslateblue", "navy"), 0, 0, 1),
)
_LEFT, _RIGHT = ((figures.person, _SHIRTS, x, 0.25, 0.6) for x in (-0.5, 0.5))
_HOUSE: Part = (figures.house, ("linen", "wheat"), -0.45, 0.35, 0.5)
_HEART: Part = (figures.heart, ("crimson", "deeppink"), 0, -0.7, 0.25)
SCENES: dict[str, Scene] = {
    "PER": ("antiquewhite", "lightsalmon", ((figures.person, _SHIRTS, 0, 0, 1),)),
    "LOC": ("cornflowerblue", "lightcyan", (_COUNTRY,)),
    "ORG": ("indigo", "mediumpurple", _CITY),
    "MISC": ("maroon", "firebrick", ((figures.trophy, ("gold", "orange"), 0, 0, 1),)),
    "/per/loc/place_of_residence": ("cornflowerblue", "lightcyan", (_COUNTRY, _HOUSE, _RIGHT)),
    "/per/org/member_of": ("indigo", "mediumpurple", (*_CITY, _RIGHT)),
    "/per/per/couple": ("lavenderblush", "palevioletred", (_LEFT, _RIGHT, _HEART)),
    "/per/per/peer": ("moccasin", "darkorange", (_LEFT, _RIGHT, (figures.trophy, ("gold",), 0, 0.6, 0.35))),
    "None": ("whitesmoke", "silver", ((figures.phone, _GREYS, -0.5, 0.1, 0.7), (figures.mug, _GREYS, 0.5, 0.25, 0.6))),
}
"""The recipes by entity type or relation; palettes differ as much as shapes."""


def draw_scene(kind: str, rng: np.random.Generator) -> Drawing:
    """Draws one picture.

    Args:
        kind: a key of `SCENES`: an entity type or a relation.
        rng: decides on everything else.

    Returns:
        A picture of 180 to 640 pixels a side.
    """
    (top, bottom, parts), aspect = SCENES[kind], pick(rng, _ASPECTS)
    size = np.rint((180 + 180 * rng.random() ** 3) * np.array((max(1, aspect), max(1, 1 / aspect)))).astype(int)
    canvas = backdrop(jitter(rng, (top,)), jitter(rng, (bottom,)), size, rng)
    whole = Pen(ImageDraw.Draw(canvas), rng, canvas.width / 2, canvas.height / 2, min(canvas.size) / 2)
    main = whole.at(rng.uniform(-0.18, 0.18), rng.uniform(-0.06, 0.1), rng.uniform(0.62, 0.86))
    for figure, colours, x, y, scale in parts:
        figure(main.at(x + rng.uniform(-0.06, 0.06), y + rng.uniform(-0.06, 0.06), scale), jitter(rng, colours))
    corners = rng.permutation([(-1, -1), (1, -1), (-1, 1), (1, 1)]) * (size / min(size) - 0.25)  # [4, 2]
    clutter = [whole.at(x, y, rng.uniform(0.15, 0.22)) for x, y in corners[: rng.integers(4)].tolist()]
    for pen in clutter:
        pick(rng, (figures.mug, figures.phone))(pen, jitter(rng, _GREYS))
    return Drawing(canvas.reduce(OVERSAMPLING), tuple(_box(pen, size) for pen in (main, *clutter)))


def backdrop(top: RGB, bottom: RGB, size: NDArray[np.int_], rng: np.random.Generator) -> Image.Image:
    """A canvas for a picture of that width and height, with a vertical gradient and soft blotches."""
    gradient = np.linspace(top, bottom, 12)[:, None] + rng.normal(0, 6, (12, 12, 3))  # [12, 12, 3]
    width, height = (OVERSAMPLING * size).tolist()
    small = Image.fromarray(np.clip(gradient, 0, 255).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def _box(pen: Pen, size: NDArray[np.int_]) -> tuple[int, int, int, int]:
    """The pen's place in pixels of a picture of that size."""
    corners = np.rint(np.array(pen.pixels((-1, -1), (1, 1))) / OVERSAMPLING)  # [2, 2]
    left, top, right, bottom = np.clip(corners, 0, size).astype(int).ravel().tolist()
    return left, top, right, bottom
