"""The pictures of picture-tweets: one scene for each entity type and for each relation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from hvpnet.data.synthetic import figures
from hvpnet.data.synthetic.figures import Colour, Place, jitter, pick

_OVERSAMPLING = 2
_ASPECTS = (1.0, 4 / 3, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9)


@dataclass(frozen=True)
class Drawing:
    """A picture and what is to be seen in it.

    Attributes:
        picture: RGB.
        boxes: (left, top, right, bottom) in pixels, the one that shows the scene's meaning first, then clutter.
    """

    picture: Image.Image
    boxes: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True)
class _Canvas:
    image: Image.Image
    draw: ImageDraw.ImageDraw
    place: Place
    wide: float

    @classmethod
    def fill(cls, size: tuple[int, int], top: Colour, bottom: Colour, rng: np.random.Generator) -> "_Canvas":
        """A backdrop for a picture of that size, and a place for the main figure near its middle."""
        width, height = (side * _OVERSAMPLING for side in size)
        image = figures.backdrop(size, jitter(rng, top), jitter(rng, bottom), rng)
        image = image.resize((width, height), Image.Resampling.NEAREST)
        half = min(width, height) / 2
        shift_x, shift_y, grow = rng.uniform(-0.18, 0.18), rng.uniform(-0.06, 0.1), rng.uniform(0.62, 0.86)
        place = Place(width / 2 + shift_x * half, height / 2 + shift_y * half, half * grow)
        return cls(image, ImageDraw.Draw(image), place, wide=width / place.size)

    def spot(self, x: float, y: float, size: float) -> Place:
        """A place relative to the main one, in its half sizes."""
        return Place(*self.place.at((x, y))[0], self.place.size * size)


def draw_scene(kind: str, rng: np.random.Generator) -> Drawing:
    """Draws one picture.

    Args:
        kind: a key of `SCENES`: an entity type or a relation.
        rng: decides on everything else.

    Returns:
        A picture of 180 to 640 pixels a side.
    """
    aspect = pick(rng, _ASPECTS)
    short = int(180 + 180 * rng.random() ** 3)
    size = (round(short * aspect), short) if aspect >= 1 else (short, round(short / aspect))
    canvas = SCENES[kind](size, rng)
    main = canvas.place.box(-0.95, -1.0, 0.95, 1.05)
    clutter = _scatter_clutter(canvas, int(rng.integers(4)), rng)
    boxes = tuple(_clip(box, size) for box in (main, *clutter))
    return Drawing(canvas.image.reduce(_OVERSAMPLING), boxes)


def _scatter_clutter(canvas: _Canvas, count: int, rng: np.random.Generator) -> list[tuple[float, float, float, float]]:
    """Draws things into the corners, and returns their boxes."""
    width, height = canvas.image.size
    size = min(width, height) * 0.09
    corners = [(x, y) for x in (size * 1.4, width - size * 1.4) for y in (size * 1.4, height - size * 1.4)]
    boxes = []
    for corner in rng.permutation(4)[:count]:
        x, y = corners[corner]
        place = Place(x, y, size * float(rng.uniform(0.8, 1.2)))
        pick(rng, figures.CLUTTER)(canvas.draw, place, rng)
        boxes.append(place.box(-1.1, -1.1, 1.1, 1.1))
    return boxes


def _clip(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(edge / _OVERSAMPLING) for edge in box)
    return max(0, left), max(0, top), min(size[0], right), min(size[1], bottom)


def _portrait(size: tuple[int, int], rng: np.random.Generator) -> _Canvas:
    canvas = _Canvas.fill(size, (255, 236, 214), (250, 190, 160), rng)
    for _ in range(3):
        x, y = (float(v) for v in rng.uniform(-1.3, 1.3, 2))
        canvas.draw.ellipse(canvas.spot(x, y, 0.25).box(-1, -1, 1, 1), fill=jitter(rng, (255, 222, 192), 8))
    shirt = pick(rng, ((226, 96, 88), (240, 150, 92), (222, 120, 140), (92, 150, 170)))
    figures.person(canvas.draw, canvas.place, jitter(rng, shirt), rng)
    return canvas


def _landscape(size: tuple[int, int], rng: np.random.Generator) -> _Canvas:
    canvas = _Canvas.fill(size, (92, 170, 236), (206, 234, 250), rng)
    sun = canvas.spot(float(rng.uniform(-1.2, 1.2)), -0.85, 0.2)
    canvas.draw.ellipse(sun.box(-1, -1, 1, 1), fill=(255, 244, 196))
    figures.mountains(canvas.draw, canvas.place, rng)
    figures.meadow(canvas.draw, canvas.place, canvas.wide, rng)
    return canvas


def _headquarters(size: tuple[int, int], rng: np.random.Generator) -> _Canvas:
    canvas = _Canvas.fill(size, (42, 34, 92), (150, 96, 176), rng)
    for x, y in rng.uniform(-1.6, 1.6, (14, 2)):
        canvas.draw.ellipse(canvas.spot(float(x), float(y) - 0.6, 0.014).box(-1, -1, 1, 1), fill=(226, 220, 255))
    figures.skyline(canvas.draw, canvas.place, canvas.wide, rng)
    figures.tower(canvas.draw, canvas.place, rng)
    return canvas


def _award(size: tuple[int, int], rng: np.random.Generator) -> _Canvas:
    canvas = _Canvas.fill(size, (122, 14, 30), (196, 34, 44), rng)
    for x in rng.uniform(-1.4, 1.4, 2):
        beam = canvas.place.at((float(x), -3), (-0.5, 1.02), (0.5, 1.02))
        canvas.draw.polygon(beam, fill=jitter(rng, (206, 58, 62), 8))
    canvas.draw.ellipse(canvas.place.box(-0.9, 0.86, 0.9, 1.14), fill=(104, 12, 26))
    pick(rng, (figures.trophy, figures.ball, figures.medal))(canvas.draw, canvas.place, rng)
    for x, y in rng.uniform(-1.5, 1.5, (22, 2)):
        confetti = pick(rng, ((255, 214, 102), (255, 170, 150), (255, 240, 230)))
        canvas.draw.rectangle(canvas.spot(float(x), float(y), 0.03).box(-1, -0.6, 1, 0.6), fill=confetti)
    return canvas


def _couple(size: tuple[int, int], rng: np.random.Generator) -> _Canvas:
    canvas = _Canvas.fill(size, (255, 208, 226), (244, 130, 172), rng)
    for x, y in rng.uniform(-1.5, 1.5, (6, 2)):
        figures.heart(canvas.draw, canvas.spot(float(x), float(y), 0.1), jitter(rng, (232, 84, 132)))
    for side in (-0.48, 0.48):
        shirt = pick(rng, ((252, 244, 246), (176, 60, 110), (96, 60, 104)))
        figures.person(canvas.draw, canvas.spot(side, 0.25, 0.62), jitter(rng, shirt), rng)
    figures.heart(canvas.draw, canvas.spot(0, -0.72, 0.24), jitter(rng, (214, 36, 84)))
    return canvas


def _teammates(size: tuple[int, int], rng: np.random.Generator) -> _Canvas:
    canvas = _Canvas.fill(size, (252, 196, 84), (226, 122, 34), rng)
    canvas.draw.ellipse(canvas.place.box(-1.2, 0.5, 1.2, 2.6), outline=(255, 240, 214), width=canvas.place.width(0.05))
    shirt = jitter(rng, pick(rng, ((196, 50, 40), (30, 120, 110), (60, 64, 72))))
    for side in (-0.5, 0.5):
        figures.person(canvas.draw, canvas.spot(side, 0.2, 0.62), shirt, rng)
    figures.ball(canvas.draw, canvas.spot(0, 0.84, 0.26), rng)
    return canvas


def _member(size: tuple[int, int], rng: np.random.Generator) -> _Canvas:
    canvas = _headquarters(size, rng)
    shirt = jitter(rng, (236, 238, 246), 6)
    figures.person(canvas.draw, canvas.spot(0.45, 0.62, 0.46), shirt, rng)
    return canvas


def _resident(size: tuple[int, int], rng: np.random.Generator) -> _Canvas:
    canvas = _landscape(size, rng)
    figures.house(canvas.draw, canvas.spot(-0.42, 0.36, 0.46), rng)
    figures.person(canvas.draw, canvas.spot(0.5, 0.66, 0.42), jitter(rng, (250, 206, 92)), rng)
    return canvas


def _desk(size: tuple[int, int], rng: np.random.Generator) -> _Canvas:
    canvas = _Canvas.fill(size, (244, 245, 246), (200, 203, 208), rng)
    canvas.draw.rectangle(canvas.place.box(-9, 0.72, 9, 9), fill=jitter(rng, (150, 152, 158), 6))
    figures.phone(canvas.draw, canvas.spot(-0.5, 0.25, 0.6), rng)
    figures.mug(canvas.draw, canvas.spot(0.45, 0.3, 0.55), rng)
    return canvas


SCENES: dict[str, Callable[[tuple[int, int], np.random.Generator], _Canvas]] = {
    "PER": _portrait,
    "LOC": _landscape,
    "ORG": _headquarters,
    "MISC": _award,
    "/per/loc/place_of_residence": _resident,
    "/per/org/member_of": _member,
    "/per/per/couple": _couple,
    "/per/per/peer": _teammates,
    "None": _desk,
}
"""What draws the scene of an entity type or relation; the palettes differ as much as the shapes."""
