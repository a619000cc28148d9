"""The figures in the pictures of picture-tweets, each a function of a pen and a colour."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np
from PIL import ImageColor, ImageDraw

RGB: TypeAlias = tuple[int, ...]
Colour: TypeAlias = RGB | str  # or a name that Pillow knows
Choice = TypeVar("Choice")

_SKIN = ("bisque", "burlywood", "peru", "sienna", "saddlebrown")
_HAIR = ("black", "saddlebrown", "sienna", "goldenrod", "dimgray")


def pick(rng: np.random.Generator, choices: tuple[Choice, ...]) -> Choice:
    """One of the choices, each as likely as any other."""
    return choices[int(rng.integers(len(choices)))]


def jitter(rng: np.random.Generator, colours: tuple[str, ...]) -> RGB:
    """A colour near one of those given."""
    colour = ImageColor.getrgb(pick(rng, colours)) + rng.integers(-12, 13, 3)  # [3]
    return tuple(np.clip(colour, 0, 255).tolist())


@dataclass(frozen=True)
class Pen:
    """Draws at a place, `size` pixels around (x, y), in which a box from (-1, -1) to (1, 1) fills the place."""

    draw: ImageDraw.ImageDraw
    rng: np.random.Generator
    x: float
    y: float
    size: float

    def at(self, x: float, y: float, size: float) -> "Pen":
        """The same pen at another place, given relative to this one."""
        return replace(self, x=self.x + x * self.size, y=self.y + y * self.size, size=size * self.size)

    def pixels(self, *points: tuple[float, float]) -> list[tuple[float, float]]:
        """The points in pixels of the canvas."""
        return [(self.x + x * self.size, self.y + y * self.size) for x, y in points]

    def ellipse(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """An ellipse that fills a box."""
        self.draw.ellipse(self.pixels((left, top), (right, bottom)), fill=colour)

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A filled rectangle."""
        self.draw.rectangle(self.pixels((left, top), (right, bottom)), fill=colour)

    def polygon(self, colour: Colour, *corners: tuple[float, float]) -> None:
        """A filled polygon."""
        self.draw.polygon(self.pixels(*corners), fill=colour)


Figure: TypeAlias = Callable[[Pen, Colour], None]


def person(pen: Pen, colour: Colour) -> None:
    """A person in a shirt of that colour, down to below the canvas."""
    skin, hair = jitter(pen.rng, _SKIN), jitter(pen.rng, _HAIR)
    pen.ellipse(-0.56, -0.95, 0.56, pick(pen.rng, (0.2, 0.8)), hair)  # short or long
    pen.ellipse(-0.85, 0.42, 0.85, 1.6, colour)
    pen.rectangle(-0.85, 1, 0.85, 9, colour)
    pen.ellipse(-0.2, 0.1, 0.2, 0.62, skin)
    pen.ellipse(-0.45, -0.65, 0.45, 0.4, skin)
    for x in (-0.25, 0.13):
        pen.ellipse(x, -0.18, x + 0.12, -0.05, "black")
    pen.ellipse(-0.15, 0.1, 0.15, 0.2, "crimson")


def mountains(pen: Pen, colour: Colour) -> None:
    """Three peaks with snow, behind hills that go from side to side."""
    for x, top in pen.rng.uniform((-1, -0.8), (1, -0.3), (3, 2)).tolist():
        for height, fill in ((1.4, colour), (0.3, "white")):
            pen.polygon(fill, (x - 0.8 * height, top + height), (x, top), (x + 0.8 * height, top + height))
    for y, greens in ((0.35, ("yellowgreen",)), (0.65, ("seagreen", "mediumseagreen"))):
        x = pen.rng.uniform(-2, 2)
        pen.ellipse(x - 6, y, x + 6, y + 8, jitter(pen.rng, greens))


def tower(pen: Pen, colour: Colour) -> None:
    """An office building down to below the canvas, some of its windows lit, with a sign on its roof."""
    pen.rectangle(-0.25, -0.95, 0.25, -0.7, jitter(pen.rng, ("cyan", "hotpink", "palegreen")))
    pen.rectangle(-0.5, -0.7, 0.5, 9, colour)
    for x in np.linspace(-0.4, 0.24, int(pen.rng.integers(3, 6))).tolist():
        for y in np.arange(-0.58, 2, 0.2).tolist():
            pen.rectangle(x, y, x + 0.14, y + 0.11, pick(pen.rng, ("khaki", "slateblue")))


def trophy(pen: Pen, colour: Colour) -> None:
    """A cup with two handles, on a base."""
    for x in (-0.5, 0.5):
        pen.draw.ellipse(pen.pixels((x - 0.3, -0.75), (x + 0.3, -0.1)), outline=colour, width=round(0.1 * pen.size))
    pen.polygon(colour, (-0.6, -0.8), (0.6, -0.8), (0.25, 0.15), (-0.25, 0.15))
    pen.polygon(colour, (0, -0.1), (0.4, 0.65), (-0.4, 0.65))
    pen.ellipse(-0.6, -0.9, 0.6, -0.68, "darkgoldenrod")
    pen.rectangle(-0.48, 0.65, 0.48, 1, "black")


def house(pen: Pen, colour: Colour) -> None:
    """A house with a red roof."""
    pen.rectangle(-0.75, -0.1, 0.75, 0.9, colour)
    pen.polygon("brown", (-0.95, -0.1), (0, -0.85), (0.95, -0.1))
    pen.rectangle(-0.5, 0.2, -0.1, 0.5, "skyblue")
    pen.rectangle(0.15, 0.2, 0.5, 0.9, "sienna")


def heart(pen: Pen, colour: Colour) -> None:
    """A heart."""
    pen.ellipse(-0.98, -0.8, 0.02, 0.2, colour)
    pen.ellipse(-0.02, -0.8, 0.98, 0.2, colour)
    pen.polygon(colour, (-0.93, -0.08), (0, 0.95), (0.93, -0.08), (0, -0.3))


def mug(pen: Pen, colour: Colour) -> None:
    """A mug with a handle."""
    pen.ellipse(0.1, -0.4, 0.9, 0.5, "gray")
    pen.rectangle(-0.6, -0.65, 0.5, 0.85, colour)
    pen.ellipse(-0.6, -0.82, 0.5, -0.5, "saddlebrown")


def phone(pen: Pen, colour: Colour) -> None:
    """A telephone, its screen of that colour."""
    pen.rectangle(-0.5, -0.95, 0.5, 0.95, "black")
    pen.rectangle(-0.4, -0.75, 0.4, 0.7, colour)
