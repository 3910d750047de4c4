"""Pictures: which ones there are, and how each is drawn from its attributes and a seed."""

import random
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from scipy.ndimage import uniform_filter

from .digits import glyphs
from .icons import ICONS, tone
from .pen import INK, Colour, Pen, mix, oval
from .scenery import backdrop, scene
from .vocabulary import BACKGROUNDS, COLOURS, DIGITS, OBJECTS, PLACES, TIMES, Attributes, is_held_out

Pixels = UInt8[np.ndarray, "height width 3"]

PAINT: dict[str, Colour] = {
    "red": (222, 52, 50),
    "orange": (248, 136, 38),
    "yellow": (252, 214, 62),
    "green": (64, 170, 84),
    "blue": (52, 110, 218),
    "purple": (134, 72, 190),
    "pink": (250, 140, 186),
    "white": (250, 248, 244),
}
MIX = {"icon": 0.33, "scene": 0.31, "digit": 0.16, "beside": 0.1, "stacked": 0.1}
"""How often each layout is drawn."""

OVERSAMPLING = 3


class Frame(NamedTuple):
    """Where a thing sits: its centre and half its height, in parts of the picture."""

    x: float
    y: float
    reach: float


def sample(rng: random.Random, layout: str | None = None, held_out: bool = False) -> Attributes:
    """The attributes of a picture: never with a held-out pair, or always with one."""
    while True:
        chosen = layout or rng.choices(list(MIX), list(MIX.values()))[0]
        attributes = _sample(rng, chosen)
        if is_held_out(attributes) == held_out:
            return attributes


def _sample(rng: random.Random, layout: str) -> Attributes:
    colour = rng.choice(COLOURS)
    if layout == "scene":
        place, time = rng.choice(PLACES), rng.choice(TIMES)
        if rng.random() < 0.07:
            return Attributes(layout, place=place, time=time)
        return Attributes(layout, rng.choice(OBJECTS), colour, place=place, time=time)
    if layout in ("beside", "stacked"):
        (first, second), (one, two) = rng.sample(OBJECTS, 2), rng.choices(COLOURS, k=2)
        background = _contrasting(rng, one, two)
        return Attributes(layout, first, one, background, object2=second, colour2=two)
    background = _contrasting(rng, colour)
    if layout == "digit":
        return Attributes(layout, colour=colour, background=background, digit=rng.choice(DIGITS))
    return Attributes(layout, rng.choice(OBJECTS), colour, background)


def _contrasting(rng: random.Random, *colours: str) -> str:
    """A background of another colour than the things, light ones more often."""
    choices = [name for name in BACKGROUNDS if name not in colours]
    return rng.choices(choices, [2 if name == "white" else 1 for name in choices])[0]


def draw(attributes: Attributes, seed: int, size: int = 128, kept_digits: bool = False) -> Pixels:
    """The picture of these attributes; the seed decides sizes, places, handwriting and small variations."""
    rng = random.Random(f"{seed} {attributes}")
    side = size * OVERSAMPLING
    if attributes.layout == "scene":
        canvas = scene(rng, attributes.place, attributes.time, side)
    else:
        canvas = backdrop(rng, attributes.background, side)
    if attributes.layout == "digit":
        _draw_digit(canvas, rng, attributes, kept_digits)
    for (name, colour), frame in zip(_things(attributes), _frames(rng, attributes), strict=True):
        _draw_icon(canvas, rng, name, _paint(rng, colour), frame, flat=attributes.layout != "scene")
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX))


def _things(attributes: Attributes) -> list[tuple[str, str]]:
    pairs = [(attributes.object, attributes.colour), (attributes.object2, attributes.colour2)]
    return [(name, colour) for name, colour in pairs if name]


def _frames(rng: random.Random, attributes: Attributes) -> list[Frame]:
    near = rng.uniform(-0.03, 0.03)
    if attributes.layout == "beside":
        return [Frame(x + rng.uniform(-0.015, 0.015), 0.52 + near, rng.uniform(0.195, 0.225)) for x in (0.26, 0.74)]
    if attributes.layout == "stacked":
        return [Frame(0.5 + near, y + rng.uniform(-0.015, 0.015), rng.uniform(0.195, 0.22)) for y in (0.26, 0.75)]
    if not attributes.object:
        return []
    if attributes.layout == "scene":
        return [Frame(0.5 + rng.uniform(-0.08, 0.08), 0.6 + rng.uniform(-0.03, 0.03), rng.uniform(0.26, 0.33))]
    return [Frame(0.5 + near, 0.5 + rng.uniform(-0.02, 0.02), rng.uniform(0.3, 0.38))]


def _paint(rng: random.Random, colour: str) -> Colour:
    """The colour's paint, a little lighter or darker."""
    return mix(PAINT[colour], rng.choice(((255, 255, 255), (40, 30, 80))), rng.uniform(0, 0.07))


def _draw_icon(canvas: Image.Image, rng: random.Random, name: str, paint: Colour, frame: Frame, flat: bool) -> None:
    side = canvas.width
    pen = Pen(
        ImageDraw.Draw(canvas),
        frame.x * side,
        frame.y * side,
        frame.reach * side,
        line=side * (0.005 + 0.042 * frame.reach),
        flip=rng.random() < 0.5,
    )
    if not flat:
        _shadow(canvas, pen)
    ICONS[name](pen, tone(paint))


def _shadow(canvas: Image.Image, pen: Pen) -> None:
    """A soft-coloured oval on the ground under the thing."""
    x, y = round(pen.x), min(canvas.height - 1, round(pen.y + pen.reach))
    ground = canvas.getpixel((x, y))
    assert isinstance(ground, tuple)
    shade = mix((int(ground[0]), int(ground[1]), int(ground[2])), INK, 0.3)
    pen.patch(oval(0, 0.97, 0.8, 0.13), shade)


def _draw_digit(canvas: Image.Image, rng: random.Random, attributes: Attributes, kept: bool) -> None:
    """A glyph enlarged smoothly; one threshold makes the stroke and a lower one its outline."""
    choices = glyphs(kept)[DIGITS.index(attributes.digit)]
    glyph = np.pad(choices[rng.randrange(len(choices))], 1)
    side = canvas.width
    height = round(side * rng.uniform(0.76, 0.9))
    enlarged = Image.fromarray(glyph).resize((height, height), Image.Resampling.BICUBIC)
    raised = _sharpened(np.asarray(enlarged))
    at = ((side - height) // 2 + round(rng.uniform(-0.03, 0.03) * side), (side - height) // 2)
    for level, fill in ((0.4, INK), (0.6, _paint(rng, attributes.colour))):
        mask = Image.fromarray(((raised > level) * 255).astype(np.uint8))
        canvas.paste(fill, at, mask)


def _sharpened(raised: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """Strokes apart and holes open: what exceeds its surroundings, exaggerated."""
    return raised + 1.3 * (raised - uniform_filter(raised, len(raised) // 5))
