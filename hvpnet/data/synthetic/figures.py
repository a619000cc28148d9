"""The things drawn in the pictures of picture-tweets: people, landscapes, buildings, trophies and clutter."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Choice = TypeVar("Choice")

_SKIN = ((255, 224, 196), (241, 194, 155), (224, 172, 130), (186, 128, 88), (141, 91, 60), (104, 66, 44))
_HAIR = ((35, 28, 26), (70, 45, 32), (120, 72, 38), (205, 160, 90), (160, 74, 40), (120, 118, 122))
_LEAF = ((46, 125, 72), (58, 145, 82), (38, 104, 66))
_CLUTTER = ((238, 238, 240), (206, 210, 216), (120, 126, 136))


def pick(rng: np.random.Generator, choices: tuple[Choice, ...]) -> Choice:
    """One of the choices, each as likely as any other."""
    return choices[int(rng.integers(len(choices)))]


def jitter(rng: np.random.Generator, colour: Colour, spread: int = 12) -> Colour:
    """A colour near the one given."""
    red, green, blue = (int(channel) for channel in np.clip(colour + rng.integers(-spread, spread + 1, 3), 0, 255))
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """The colour, darker for a factor below 1 and lighter above."""
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


def backdrop(size: tuple[int, int], top: Colour, bottom: Colour, rng: np.random.Generator) -> Image.Image:
    """A vertical gradient with soft blotches, RGB of the given (width, height)."""
    rows = np.linspace(0.0, 1.0, 12)[:, None, None]  # [12, 1, 1]
    gradient = (1 - rows) * np.array(top) + rows * np.array(bottom)  # [12, 1, 3]
    noise = rng.normal(0, 5, (12, 12, 1)) + rng.normal(0, 3, (12, 12, 3))  # [12, 12, 3]
    small = np.clip(gradient + noise, 0, 255).astype(np.uint8)  # [12, 12, 3]
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Place:
    """Where a figure goes: its centre and its half size, in pixels of the canvas."""

    x: float
    y: float
    size: float

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        """Pixels of a box given in half sizes from the centre."""
        size = self.size
        return self.x + left * size, self.y + top * size, self.x + right * size, self.y + bottom * size

    def at(self, *points: tuple[float, float]) -> list[tuple[float, float]]:
        """Pixels of points given in half sizes from the centre."""
        return [(self.x + x * self.size, self.y + y * self.size) for x, y in points]

    def width(self, part: float) -> int:
        """A line width given in half sizes, at least one pixel."""
        return max(1, round(part * self.size))


def person(draw: ImageDraw.ImageDraw, place: Place, shirt: Colour, rng: np.random.Generator) -> None:
    """A head with a face, and the body down to below the canvas."""
    skin, hair = jitter(rng, pick(rng, _SKIN), 8), jitter(rng, pick(rng, _HAIR), 8)
    long_hair = bool(rng.integers(2))
    if long_hair:
        draw.rounded_rectangle(place.box(-0.56, -0.75, 0.56, 0.45), place.width(0.45), fill=hair)
    draw.rounded_rectangle(place.box(-0.85, 0.42, 0.85, 9), place.width(0.42), fill=shirt)
    draw.rectangle(place.box(-0.16, 0.1, 0.16, 0.5), fill=shade(skin, 0.88))
    draw.pieslice(place.box(-0.3, 0.2, 0.3, 0.68), 0, 180, fill=shade(skin, 0.94))
    draw.ellipse(place.box(-0.48, -0.72, 0.48, 0.36), fill=skin)
    draw.chord(place.box(-0.52, -0.86, 0.52, 0.3), 196 - 14 * long_hair, 344 + 14 * long_hair, fill=hair)
    for side in (-1, 1):
        draw.ellipse(place.box(0.19 * side - 0.055, -0.2, 0.19 * side + 0.055, -0.07), fill=(40, 34, 38))
        draw.ellipse(place.box(0.28 * side - 0.09, -0.03, 0.28 * side + 0.09, 0.1), fill=shade(skin, 0.92))
    draw.chord(place.box(-0.17, -0.08, 0.17, 0.2), 15, 165, fill=(190, 62, 66))
    if rng.random() < 0.3:
        for side in (-1, 1):
            draw.ellipse(
                place.box(0.2 * side - 0.15, -0.28, 0.2 * side + 0.15, 0.01),
                outline=(50, 48, 60),
                width=place.width(0.035),
            )
        draw.line(place.at((-0.05, -0.15), (0.05, -0.15)), fill=(50, 48, 60), width=place.width(0.035))


def mountains(draw: ImageDraw.ImageDraw, place: Place, rng: np.random.Generator) -> None:
    """A range with snow on its peaks."""
    peaks = sorted((float(x), float(rng.uniform(0.75, 1.15))) for x in rng.uniform(-0.9, 0.9, 3))
    for x, height in sorted(peaks, key=lambda peak: -peak[1]):
        rock = jitter(rng, (86, 112, 140), 10)
        draw.polygon(place.at((x - height, 0.5), (x, 0.5 - height * 1.1), (x + height, 0.5)), fill=rock)
        draw.polygon(place.at((x, 0.5 - height * 1.1), (x + height, 0.5), (x + 0.1, 0.5)), fill=shade(rock, 0.85))
        cap = 0.5 - height * 1.1
        draw.polygon(
            place.at(
                (x, cap), (x + 0.26, cap + 0.29), (x + 0.09, cap + 0.22), (x - 0.03, cap + 0.34), (x - 0.26, cap + 0.29)
            ),
            fill=(246, 250, 252),
        )


def meadow(draw: ImageDraw.ImageDraw, place: Place, wide: float, rng: np.random.Generator) -> None:
    """Green hills down to below the canvas, with trees; `wide` reaches its sides in half sizes."""
    for step, green in enumerate(((122, 182, 92), (92, 160, 78), (70, 138, 70))):
        x, y = float(rng.uniform(-wide, wide)), 0.35 + 0.28 * step
        draw.ellipse(place.box(x - 2.2 * wide, y, x + 2.2 * wide, y + 6), fill=jitter(rng, green, 8))
    for x in rng.uniform(-wide, wide, int(rng.integers(3, 7))):
        tree(draw, Place(*place.at((float(x), float(rng.uniform(0.55, 1.0))))[0], place.size * 0.24), rng)


def tree(draw: ImageDraw.ImageDraw, place: Place, rng: np.random.Generator) -> None:
    """A fir or a round tree."""
    draw.rectangle(place.box(-0.12, 0.3, 0.12, 1.0), fill=(112, 78, 52))
    leaf = jitter(rng, pick(rng, _LEAF), 8)
    if rng.integers(2):
        draw.polygon(place.at((-0.6, 0.5), (0, -1.2), (0.6, 0.5)), fill=leaf)
    else:
        draw.ellipse(place.box(-0.65, -0.9, 0.65, 0.5), fill=leaf)


def house(draw: ImageDraw.ImageDraw, place: Place, rng: np.random.Generator) -> None:
    """A small house with a red roof."""
    wall = jitter(rng, (250, 240, 222), 5)
    draw.rectangle(place.box(-0.75, -0.1, 0.75, 0.9), fill=wall)
    draw.polygon(place.at((-0.95, -0.1), (0, -0.85), (0.95, -0.1)), fill=jitter(rng, (196, 74, 58)))
    draw.rectangle(place.box(-0.15, 0.3, 0.2, 0.9), fill=(120, 80, 58))
    for left in (-0.58, 0.35):
        draw.rectangle(place.box(left, 0.12, left + 0.25, 0.42), fill=(132, 190, 226))


def tower(draw: ImageDraw.ImageDraw, place: Place, rng: np.random.Generator) -> None:
    """An office building with lit windows and a logo on its roof."""
    wall, half = jitter(rng, (58, 66, 120), 10), float(rng.uniform(0.42, 0.6))
    draw.rectangle(place.box(-half, -0.62, half, 9), fill=wall)
    draw.rectangle(place.box(half - 0.12, -0.62, half, 9), fill=shade(wall, 0.8))
    columns, rows = int(rng.integers(3, 6)), 13
    for row in range(rows):
        for column in range(columns):
            left, top = -half + 0.08 + column * (2 * half - 0.24) / columns, -0.5 + row * 0.2
            lit = rng.random() < 0.6
            window = (255, 226, 140) if lit else (92, 104, 160)
            draw.rectangle(place.box(left, top, left + (2 * half - 0.24) / columns * 0.66, top + 0.11), fill=window)
    logo(draw, Place(*place.at((0, -0.82))[0], place.size * 0.3), rng)


def logo(draw: ImageDraw.ImageDraw, place: Place, rng: np.random.Generator) -> None:
    """A sign of simple shapes."""
    glow = jitter(rng, pick(rng, ((96, 222, 255), (255, 120, 200), (150, 255, 190))), 10)
    draw.rounded_rectangle(place.box(-1, -1, 1, 1), place.width(0.35), fill=(250, 250, 255))
    kind = int(rng.integers(3))
    if kind == 0:
        draw.ellipse(place.box(-0.65, -0.65, 0.65, 0.65), outline=shade(glow, 0.7), width=place.width(0.3))
    elif kind == 1:
        draw.polygon(place.at((-0.65, 0.6), (0, -0.7), (0.65, 0.6)), fill=shade(glow, 0.7))
    else:
        for left in (-0.65, -0.15, 0.35):
            draw.rectangle(place.box(left, -left - 0.5, left + 0.3, 0.6), fill=shade(glow, 0.7))


def skyline(draw: ImageDraw.ImageDraw, place: Place, wide: float, rng: np.random.Generator) -> None:
    """Dark houses from side to side; `wide` reaches the sides in half sizes."""
    left = -wide
    while left < wide:
        width, height = float(rng.uniform(0.2, 0.45)), float(rng.uniform(0.2, 1.0))
        draw.rectangle(place.box(left, 0.9 - height, left + width, 4), fill=jitter(rng, (44, 42, 88), 8))
        left += width


def trophy(draw: ImageDraw.ImageDraw, place: Place, rng: np.random.Generator) -> None:
    """A golden cup on a base."""
    gold = jitter(rng, (240, 184, 52), 10)
    dark, light = shade(gold, 0.78), (255, 226, 132)
    for side in (-1, 1):
        draw.ellipse(place.box(0.52 * side - 0.3, -0.72, 0.52 * side + 0.3, -0.1), outline=dark, width=place.width(0.1))
    draw.chord(place.box(-0.58, -1.55, 0.58, 0.15), 0, 180, fill=gold)
    draw.chord(place.box(-0.4, -1.4, -0.12, 0.02), 0, 180, fill=light)
    draw.ellipse(place.box(-0.58, -0.82, 0.58, -0.6), fill=dark)
    draw.rectangle(place.box(-0.09, 0.08, 0.09, 0.52), fill=dark)
    draw.rounded_rectangle(place.box(-0.34, 0.48, 0.34, 0.64), place.width(0.06), fill=gold)
    draw.rectangle(place.box(-0.46, 0.62, 0.46, 0.98), fill=(74, 44, 40))
    draw.rectangle(place.box(-0.2, 0.72, 0.2, 0.88), fill=light)


def ball(draw: ImageDraw.ImageDraw, place: Place, rng: np.random.Generator) -> None:
    """A football."""
    draw.ellipse(place.box(-0.9, -0.9, 0.9, 0.9), fill=(248, 246, 240))
    turn = float(rng.uniform(0, 2 * np.pi))
    for ring, radius, patch in ((1, 0.0, 0.3), (5, 0.68, 0.2)):
        for index in range(ring):
            angle = turn + 2 * np.pi * index / ring
            centre = Place(*place.at((radius * np.cos(angle), radius * np.sin(angle)))[0], place.size * patch)
            corners = [(np.cos(angle + 2 * np.pi * k / 5), np.sin(angle + 2 * np.pi * k / 5)) for k in range(5)]
            draw.polygon(centre.at(*corners), fill=(48, 40, 44))


def medal(draw: ImageDraw.ImageDraw, place: Place, rng: np.random.Generator) -> None:
    """A medal on its ribbon, with a star."""
    gold = jitter(rng, (240, 184, 52), 10)
    draw.polygon(place.at((-0.5, -1.1), (-0.1, -1.1), (0.2, 0), (-0.1, 0.1)), fill=(240, 240, 246))
    draw.polygon(place.at((0.5, -1.1), (0.1, -1.1), (-0.2, 0), (0.1, 0.1)), fill=(214, 216, 226))
    draw.ellipse(place.box(-0.62, -0.3, 0.62, 0.94), fill=shade(gold, 0.8))
    draw.ellipse(place.box(-0.52, -0.2, 0.52, 0.84), fill=gold)
    draw.polygon(star(Place(*place.at((0, 0.32))[0], place.size * 0.36)), fill=(255, 240, 190))


def star(place: Place) -> list[tuple[float, float]]:
    """The corners of a five-pointed star."""
    angles = [np.pi * (index / 5 - 0.5) for index in range(10)]
    return place.at(
        *(
            (np.cos(angle) * (1 - 0.58 * (k % 2)), np.sin(angle) * (1 - 0.58 * (k % 2)))
            for k, angle in enumerate(angles)
        )
    )


def heart(draw: ImageDraw.ImageDraw, place: Place, colour: Colour) -> None:
    """A heart."""
    for left in (-0.98, -0.02):
        draw.ellipse(place.box(left, -0.8, left + 1.0, 0.2), fill=colour)
    draw.polygon(place.at((-0.93, -0.08), (0, 0.95), (0.93, -0.08), (0, -0.3)), fill=colour)


def balloon(draw: ImageDraw.ImageDraw, place: Place, rng: np.random.Generator) -> None:
    """A balloon on a string."""
    colour = jitter(rng, pick(rng, _CLUTTER))
    draw.line(place.at((0, 0.4), (0.08, 0.7), (-0.05, 1.0)), fill=(110, 110, 116), width=place.width(0.05))
    draw.ellipse(place.box(-0.5, -0.95, 0.5, 0.35), fill=colour)
    draw.ellipse(place.box(-0.3, -0.78, -0.08, -0.42), fill=(255, 255, 255))


def mug(draw: ImageDraw.ImageDraw, place: Place, rng: np.random.Generator) -> None:
    """A mug."""
    colour = jitter(rng, pick(rng, _CLUTTER))
    draw.ellipse(place.box(0.2, -0.4, 0.9, 0.5), outline=shade(colour, 0.85), width=place.width(0.16))
    draw.rounded_rectangle(place.box(-0.6, -0.7, 0.55, 0.85), place.width(0.18), fill=colour)
    draw.ellipse(place.box(-0.6, -0.82, 0.55, -0.52), fill=shade(colour, 0.7))


def phone(draw: ImageDraw.ImageDraw, place: Place, rng: np.random.Generator) -> None:
    """A telephone."""
    draw.rounded_rectangle(place.box(-0.5, -0.95, 0.5, 0.95), place.width(0.16), fill=(44, 46, 52))
    draw.rectangle(place.box(-0.4, -0.75, 0.4, 0.7), fill=jitter(rng, (176, 190, 204)))
    draw.ellipse(place.box(-0.08, 0.76, 0.08, 0.9), fill=(120, 124, 130))


CLUTTER = (balloon, mug, phone)
"""Things that say nothing about the tweet."""
