"""What lies behind the things: plain backgrounds with a gentle gradient, and five places at three times of day."""

import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from .pen import Colour, Pen, mix, oval, smooth

BACKDROPS: dict[str, tuple[Colour, Colour]] = {
    "red": ((238, 108, 98), (206, 62, 62)),
    "orange": ((255, 190, 112), (246, 150, 66)),
    "yellow": ((255, 240, 150), (250, 220, 92)),
    "green": ((166, 222, 150), (112, 186, 112)),
    "blue": ((146, 190, 248), (88, 144, 230)),
    "purple": ((192, 150, 232), (150, 104, 206)),
    "pink": ((255, 208, 226), (252, 176, 206)),
    "white": ((255, 255, 255), (240, 240, 244)),
    "gray": ((176, 178, 186), (138, 140, 150)),
    "black": ((58, 56, 70), (26, 24, 34)),
}
SKIES: dict[str, tuple[Colour, Colour]] = {
    "day": ((112, 184, 246), (214, 238, 252)),
    "sunset": ((178, 96, 160), (255, 190, 104)),
    "night": ((18, 22, 66), (58, 66, 132)),
}
LIGHT: dict[str, tuple[Colour, float]] = {
    "day": ((255, 255, 255), 0.0),
    "sunset": ((206, 84, 72), 0.3),
    "night": ((16, 20, 74), 0.62),
}
"""What the light of each time mixes into the colours of the land, and how much of it."""

HORIZON = 0.6


def _gradient(top: Colour, bottom: Colour, side: int) -> Image.Image:
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None]
    rows = np.asarray(top, np.float32) * (1 - ramp) + np.asarray(bottom, np.float32) * ramp
    return Image.fromarray(np.repeat(rows.round().astype(np.uint8)[:, None], side, axis=1))


def backdrop(rng: random.Random, name: str, side: int) -> Image.Image:
    """A plain background, lighter at the top."""
    top, bottom = BACKDROPS[name]
    return _gradient(mix(top, bottom, rng.uniform(0, 0.3)), bottom, side)


def scene(rng: random.Random, place: str, time: str, side: int) -> Image.Image:
    """A landscape under its sky, without any thing in it."""
    canvas = _gradient(*SKIES[time], round(side))
    pen = Pen(ImageDraw.Draw(canvas), side / 2, side / 2, side / 2, line=side * 0.008, flip=rng.random() < 0.5)
    _sky(rng, pen, time)
    tint, share = LIGHT[time]
    PLACES[place](rng, pen, lambda colour: mix(colour, tint, share))
    return canvas


Lit = Callable[[Colour], Colour]


def _sky(rng: random.Random, pen: Pen, time: str) -> None:
    """Sun and clouds, a low sun, or the moon and stars."""
    x, y = rng.uniform(-0.74, -0.5), rng.uniform(-0.76, -0.62)
    if time == "day":
        pen.patch(oval(x, y, 0.23, 0.23), (255, 240, 170))
        pen.patch(oval(x, y, 0.17, 0.17), (255, 216, 70))
        _cloud(pen, rng.uniform(0.42, 0.66), rng.uniform(-0.74, -0.56))
    elif time == "sunset":
        pen.patch(oval(x + 0.06, 0.0, 0.4, 0.4), (255, 196, 110))
        pen.patch(oval(x + 0.06, 0.0, 0.28, 0.28), (255, 232, 128))
    else:
        pen.patch(oval(x, y, 0.2, 0.2), (250, 242, 200))
        pen.patch(oval(x + 0.1, y - 0.06, 0.17, 0.17), (30, 35, 83))
        for column in (-0.25, 0.05, 0.35, 0.62, 0.88):
            _star(pen, column + rng.uniform(-0.1, 0.1), rng.uniform(-0.92, -0.4))


def _cloud(pen: Pen, x: float, y: float) -> None:
    for dx, dy, r in ((-0.17, 0.03, 0.11), (0, -0.03, 0.15), (0.17, 0.03, 0.11)):
        pen.patch(oval(x + dx, y + dy, r, r * 0.8), (255, 255, 255))


def _star(pen: Pen, x: float, y: float) -> None:
    pen.patch(
        [(x, y - 0.065), (x + 0.02, y - 0.02), (x + 0.065, y), (x + 0.02, y + 0.02), (x, y + 0.065)]
        + [(x - 0.02, y + 0.02), (x - 0.065, y), (x - 0.02, y - 0.02)],
        (255, 246, 190),
    )


def _hills(rng: random.Random, pen: Pen, level: float, swell: float, colour: Colour) -> None:
    """A rolling ridge across the picture and everything below it."""
    heights = [level + rng.uniform(-swell, swell) for _ in range(5)]
    ridge = [(x, y) for x, y in zip((-1.1, -0.55, 0, 0.55, 1.1), heights, strict=True)]
    curve = [point for point in smooth([(-1.6, level), *ridge, (1.6, level)]) if abs(point[0]) <= 1.3]
    top = sorted(point for point in curve if point[1] <= level + 2 * swell)
    pen.patch([*top, (1.3, 1.1), (-1.3, 1.1)], colour)


def meadow(rng: random.Random, pen: Pen, lit: Lit) -> None:
    _hills(rng, pen, 0.08, 0.07, lit((134, 200, 110)))
    _hills(rng, pen, 0.42, 0.05, lit((100, 178, 86)))
    for x in (-0.82, 0.8):
        for dx, dy, petal in ((0, 0, (255, 255, 255)), (0.14, 0.2, (255, 226, 110))):
            pen.patch(oval(x + dx, 0.62 + dy + rng.uniform(-0.06, 0.06), 0.05, 0.05), lit(petal))


def sea(rng: random.Random, pen: Pen, lit: Lit) -> None:
    pen.patch([(-1.1, 0.1), (1.1, 0.1), (1.1, 1.1), (-1.1, 1.1)], lit((64, 146, 206)))
    pen.patch([(-1.1, 0.45), (1.1, 0.45), (1.1, 1.1), (-1.1, 1.1)], lit((40, 116, 186)))
    for y in (0.26, 0.6, 0.84):
        for x in (-0.7, 0.0, 0.7):
            start = x + rng.uniform(-0.15, 0.15)
            crest = [(start - 0.16, y), (start - 0.06, y - 0.04), (start + 0.06, y), (start + 0.16, y - 0.04)]
            pen.stroke(crest, 2.4, lit((176, 222, 244)))


def desert(rng: random.Random, pen: Pen, lit: Lit) -> None:
    _hills(rng, pen, 0.08, 0.08, lit((240, 206, 138)))
    _hills(rng, pen, 0.44, 0.06, lit((226, 180, 106)))
    x = rng.uniform(0.7, 0.82)
    green = lit((84, 150, 92))
    pen.stroke([(x, -0.24), (x, 0.22)], 8, green)
    pen.stroke([(x + 0.14, -0.1), (x + 0.14, 0.04), (x, 0.06)], 6, green)


def mountains(rng: random.Random, pen: Pen, lit: Lit) -> None:
    for x, peak, half in ((-0.62, -0.3, 0.62), (0.66, -0.36, 0.66), (0.08, -0.12, 0.5)):
        tip = (x + rng.uniform(-0.08, 0.08), peak + rng.uniform(-0.06, 0.06))
        rock, shade = lit((138, 148, 176)), lit((112, 120, 152))
        pen.patch([tip, (x + half, 0.3), (x - half, 0.3)], rock)
        pen.patch([tip, (x + half, 0.3), (tip[0] + 0.06, 0.3)], shade)
        pen.patch(
            [tip, (tip[0] + 0.16, tip[1] + 0.17), (tip[0], tip[1] + 0.12), (tip[0] - 0.16, tip[1] + 0.17)],
            lit((248, 250, 255)),
        )
    _hills(rng, pen, 0.24, 0.04, lit((92, 150, 104)))


def snow(rng: random.Random, pen: Pen, lit: Lit) -> None:
    _hills(rng, pen, 0.1, 0.06, lit((224, 236, 248)))
    for x, base in ((-0.84, 0.2), (0.86, 0.24), (0.6, 0.16)):
        for step in range(3):
            y, half = base - 0.12 * step, 0.16 - 0.035 * step
            pen.patch([(x - half, y), (x + half, y), (x, y - 0.2)], lit((62, 122, 104)))
    _hills(rng, pen, 0.42, 0.05, lit((248, 251, 255)))


PLACES: dict[str, Callable[[random.Random, Pen, Lit], None]] = {
    "meadow": meadow,
    "sea": sea,
    "desert": desert,
    "mountains": mountains,
    "snow": snow,
}
