"""What the embedded model can paint: the words of its world, a picture's attributes, and the pairs held out."""

from typing import NamedTuple

LAYOUTS = ("icon", "scene", "digit", "beside", "stacked")
OBJECTS = (
    "house",
    "tree",
    "flower",
    "car",
    "boat",
    "fish",
    "cat",
    "balloon",
    "rocket",
    "mushroom",
    "apple",
    "cup",
    "umbrella",
    "butterfly",
    "duck",
    "heart",
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
BACKGROUNDS = (*COLOURS, "gray", "black")
PLACES = ("meadow", "sea", "desert", "mountains", "snow")
TIMES = ("day", "sunset", "night")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Attributes(NamedTuple):
    """What a picture shows, or what a caption says of it; the empty string where there is nothing or nothing is said.

    In the layout `beside` the first object is the left one, in `stacked` it is the upper one.
    """

    layout: str = ""
    object: str = ""
    colour: str = ""
    background: str = ""
    place: str = ""
    time: str = ""
    digit: str = ""
    object2: str = ""
    colour2: str = ""


SLOTS: dict[str, tuple[str, ...]] = {
    "layout": LAYOUTS,
    "object": OBJECTS,
    "colour": COLOURS,
    "background": BACKGROUNDS,
    "place": PLACES,
    "time": TIMES,
    "digit": DIGITS,
    "object2": OBJECTS,
    "colour2": COLOURS,
}
"""The values each attribute can take, in the order of `Attributes`."""

SIZES = tuple(len(values) + 1 for values in SLOTS.values())


def encode(attributes: Attributes) -> tuple[int, ...]:
    """One number per attribute: 0 for none, else one more than its place in the list of values."""
    return tuple(
        values.index(value) + 1 if value else 0 for value, values in zip(attributes, SLOTS.values(), strict=True)
    )


def _held_out() -> frozenset[tuple[str, str]]:
    """Every object and digit misses at least one colour, and every colour misses about as many of them."""
    pairs = {(name, COLOURS[(3 * i + 1) % 8]) for i, name in enumerate(OBJECTS)}
    pairs |= {(name, COLOURS[(5 * i + i // 8 + 4) % 8]) for i, name in enumerate(OBJECTS) if i % 2 == 0}
    pairs |= {(name, COLOURS[(3 * i + 2) % 8]) for i, name in enumerate(DIGITS)}
    return frozenset(pairs)


HELD_OUT = _held_out()
"""Pairs of (object or digit, colour) that no training picture shows."""


def is_held_out(attributes: Attributes) -> bool:
    """Whether any thing in the picture has a colour it never has in training."""
    things = {(attributes.object or attributes.digit, attributes.colour), (attributes.object2, attributes.colour2)}
    return not HELD_OUT.isdisjoint(things)
