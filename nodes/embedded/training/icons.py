"""The sixteen things the embedded model can paint, each a function of a pen and a colour."""

from collections.abc import Callable
from typing import NamedTuple

from .pen import INK, WHITE, Colour, Pen, mix, oval, smooth, turned

WOOD: Colour = (150, 98, 62)
LEAF: Colour = (92, 168, 84)
CREAM: Colour = (250, 232, 200)
GLASS: Colour = (190, 228, 244)
AMBER: Colour = (250, 176, 58)
GREY: Colour = (112, 112, 126)


class Tone(NamedTuple):
    """A colour with its shade and its light."""

    body: Colour
    shade: Colour
    light: Colour


def tone(body: Colour) -> Tone:
    return Tone(body, mix(body, (60, 40, 110), 0.22), mix(body, (255, 255, 255), 0.45))


def house(pen: Pen, c: Tone) -> None:
    pen.shape([(0.36, -0.9), (0.6, -0.9), (0.6, -0.3), (0.36, -0.3)], c.shade)
    pen.shape([(-0.72, -0.1), (0.72, -0.1), (0.72, 0.95), (-0.72, 0.95)], c.body)
    pen.patch([(0.46, -0.1), (0.72, -0.1), (0.72, 0.95), (0.46, 0.95)], c.shade)
    pen.shape([(-1.0, 0.0), (0, -0.92), (1.0, 0.0)], mix(c.shade, INK, 0.25))
    pen.shape([(-0.48, 0.3), (-0.04, 0.3), (-0.04, 0.95), (-0.48, 0.95)], WOOD)
    pen.shape([(0.14, 0.25), (0.54, 0.25), (0.54, 0.62), (0.14, 0.62)], GLASS)


def tree(pen: Pen, c: Tone) -> None:
    pen.shape([(-0.13, 0.1), (0.13, 0.1), (0.16, 0.7), (0.34, 0.97), (-0.34, 0.97), (-0.16, 0.7)], WOOD)
    pen.shape(
        [*oval(-0.48, 0.02, 0.42, 0.42, 60, 250), *oval(-0.05, -0.5, 0.48, 0.47, 185, 355)]
        + [*oval(0.48, 0.02, 0.42, 0.42, -70, 120), *oval(0, 0.14, 0.4, 0.32, 20, 160)],
        c.body,
    )
    pen.patch(smooth([(0.44, -0.3), (0.8, 0.0), (0.6, 0.34), (0.1, 0.4), (0.46, 0.12)]), c.shade)
    pen.patch(oval(-0.2, -0.6, 0.2, 0.16), c.light)
    pen.patch(oval(-0.56, -0.06, 0.13, 0.12), c.light)


def flower(pen: Pen, c: Tone) -> None:
    pen.cord([(0, 0), (0.03, 0.5), (0, 0.94)], 2.2, LEAF)
    pen.shape(smooth([(0.02, 0.85), (0.25, 0.5), (0.62, 0.46), (0.42, 0.8)]), LEAF)
    pen.shape(smooth([(-0.02, 0.9), (-0.25, 0.6), (-0.6, 0.58), (-0.42, 0.88)]), LEAF)
    for i in range(6):
        pen.shape(turned(oval(0, -0.78, 0.25, 0.3), 0, -0.33, 60 * i), c.body)
    for i in range(6):
        pen.patch(turned(oval(0, -0.72, 0.13, 0.2), 0, -0.33, 60 * i), c.light if i < 3 else c.body)
    pen.shape(oval(0, -0.33, 0.24, 0.24), AMBER if c.body[2] > 120 or c.body[1] < 150 else (150, 84, 44))


def car(pen: Pen, c: Tone) -> None:
    pen.shape(smooth([(-0.62, 0.0), (-0.42, -0.5), (0.02, -0.6), (0.42, -0.48), (0.68, 0.0)]), c.body)
    pen.shape([(-0.45, -0.02), (-0.3, -0.4), (-0.06, -0.44), (-0.06, -0.02)], GLASS)
    pen.shape([(0.1, -0.02), (0.1, -0.44), (0.3, -0.38), (0.48, -0.02)], GLASS)
    pen.shape(
        smooth(
            [(-1, 0.3), (-0.92, 0.02), (-0.5, -0.04), (0.6, -0.04), (0.94, 0.1), (1, 0.36), (0.8, 0.48)]
            + [(-0.85, 0.48)]
        ),
        c.body,
    )
    pen.patch([(-0.9, 0.3), (0.92, 0.3), (0.85, 0.46), (-0.85, 0.46)], c.shade)
    pen.patch(oval(0.86, 0.18, 0.09, 0.08), (255, 240, 160))
    for x in (-0.52, 0.52):
        pen.shape(oval(x, 0.48, 0.25, 0.25), GREY)
        pen.patch(oval(x, 0.48, 0.11, 0.11), WHITE)


def boat(pen: Pen, c: Tone) -> None:
    pen.cord([(0.0, -0.9), (0.0, 0.4)], 1.2, WOOD)
    pen.shape([(0.12, -0.88), (0.86, 0.22), (0.12, 0.3)], c.body)
    pen.patch([(0.4, -0.42), (0.84, 0.2), (0.5, 0.25)], c.shade)
    pen.shape([(-0.12, -0.66), (-0.12, 0.3), (-0.72, 0.22)], c.light)
    pen.shape(smooth([(-0.98, 0.42), (0, 0.46), (0.98, 0.42), (0.72, 0.84), (0, 0.94), (-0.72, 0.84)]), c.body)
    pen.patch(smooth([(-0.78, 0.72), (0, 0.76), (0.78, 0.72), (0.58, 0.88), (0, 0.92), (-0.58, 0.88)]), c.shade)


def fish(pen: Pen, c: Tone) -> None:
    pen.shape(smooth([(-0.4, 0), (-0.98, -0.56), (-0.86, 0), (-0.98, 0.56)]), c.shade)
    pen.shape(smooth([(-0.25, -0.45), (0.05, -0.82), (0.4, -0.4)]), c.shade)
    pen.shape(smooth([(-0.55, 0), (-0.1, -0.5), (0.5, -0.5), (0.98, 0), (0.5, 0.5), (-0.1, 0.5)]), c.body)
    pen.patch(smooth([(-0.3, 0.16), (0.3, 0.3), (0.78, 0.22), (0.42, 0.46), (-0.1, 0.44)]), c.light)
    pen.shape(smooth([(0.0, 0.02), (-0.3, 0.26), (-0.05, 0.32), (0.2, 0.2)]), c.shade)
    pen.patch(oval(0.55, -0.12, 0.17, 0.17), WHITE)
    pen.patch(oval(0.58, -0.1, 0.1, 0.1), INK)


def cat(pen: Pen, c: Tone) -> None:
    pen.cord([(0.5, 0.8), (0.82, 0.62), (0.86, 0.28), (0.7, 0.1)], 3.4, c.body)
    pen.shape(smooth([(0, -0.1), (0.46, 0.3), (0.56, 0.94), (0, 0.96), (-0.56, 0.94), (-0.46, 0.3)]), c.body)
    pen.patch(oval(0, 0.66, 0.26, 0.28), c.light)
    for side in (-1, 1):
        pen.shape([(side * 0.62, -0.36), (side * 0.6, -0.98), (side * 0.1, -0.72)], c.body)
        pen.patch([(side * 0.5, -0.56), (side * 0.5, -0.8), (side * 0.28, -0.68)], c.shade)
    pen.shape(
        smooth(
            [(0, -0.78), (0.5, -0.66), (0.68, -0.3), (0.4, 0.06), (0, 0.12), (-0.4, 0.06), (-0.68, -0.3)]
            + [(-0.5, -0.66)]
        ),
        c.body,
    )
    for side in (-1, 1):
        pen.patch(oval(side * 0.27, -0.36, 0.13, 0.16), WHITE)
        pen.patch(oval(side * 0.26, -0.34, 0.08, 0.12), INK)
    pen.patch([(-0.1, -0.16), (0.1, -0.16), (0, -0.04)], (236, 120, 130) if c.body[0] < 225 else INK)


def balloon(pen: Pen, c: Tone) -> None:
    pen.stroke([(0, 0.5), (0.1, 0.66), (-0.06, 0.82), (0.04, 0.98)], 1.2)
    pen.shape([(0, 0.36), (0.16, 0.56), (-0.16, 0.56)], c.shade)
    pen.shape(
        smooth(
            [(0, -0.98), (0.48, -0.82), (0.66, -0.36), (0.44, 0.16), (0, 0.44), (-0.44, 0.16)]
            + [(-0.66, -0.36), (-0.48, -0.82)]
        ),
        c.body,
    )
    pen.patch(smooth([(0.58, -0.36), (0.4, 0.12), (0.02, 0.38), (0.3, -0.06)]), c.shade)
    pen.patch(turned(oval(-0.3, -0.54, 0.12, 0.22), -0.3, -0.54, 25), c.light)


def rocket(pen: Pen, c: Tone) -> None:
    pen.shape(smooth([(-0.2, 0.6), (0.2, 0.6), (0.14, 0.84), (0, 0.99), (-0.14, 0.84)]), AMBER)
    for side in (-1, 1):
        pen.shape([(side * 0.28, 0.1), (side * 0.66, 0.42), (side * 0.68, 0.8), (side * 0.28, 0.58)], c.shade)
    pen.shape(
        smooth(
            [(0, -0.99), (0.32, -0.6), (0.4, -0.1), (0.34, 0.4), (0.26, 0.64), (-0.26, 0.64), (-0.34, 0.4)]
            + [(-0.4, -0.1), (-0.32, -0.6)]
        ),
        c.body,
    )
    pen.patch(smooth([(0.16, -0.7), (0.34, -0.1), (0.24, 0.58), (0.1, 0.58), (0.18, -0.1)]), c.shade)
    pen.shape(oval(0, -0.2, 0.2, 0.2), GLASS)


def mushroom(pen: Pen, c: Tone) -> None:
    pen.shape(smooth([(-0.26, 0.0), (0.26, 0.0), (0.34, 0.6), (0.38, 0.92), (-0.38, 0.92), (-0.34, 0.6)]), CREAM)
    pen.shape(oval(0, 0.08, 0.96, 1.0, 180, 360) + oval(0, 0.08, 0.96, 0.22, 0, 180), c.body)
    spots = c.shade if min(c.body) > 190 else WHITE
    for x, y, r in ((-0.48, -0.18, 0.18), (0.08, -0.52, 0.22), (0.54, -0.1, 0.16), (-0.02, 0.04, 0.12)):
        pen.patch(oval(x, y, r, r * 0.9), spots)


def apple(pen: Pen, c: Tone) -> None:
    pen.shape(
        smooth(
            [(0, -0.42), (0.4, -0.6), (0.82, -0.36), (0.86, 0.2), (0.52, 0.82), (0.2, 0.93), (0, 0.86)]
            + [(-0.2, 0.93), (-0.52, 0.82), (-0.86, 0.2), (-0.82, -0.36), (-0.4, -0.6)]
        ),
        c.body,
    )
    pen.patch(smooth([(0.74, -0.2), (0.78, 0.2), (0.46, 0.76), (0.12, 0.84), (0.48, 0.34)]), c.shade)
    pen.patch(turned(oval(-0.5, -0.14, 0.13, 0.22), -0.5, -0.14, 20), c.light)
    pen.cord([(0, -0.38), (0.02, -0.66), (0.1, -0.9)], 1.6, WOOD)
    pen.shape(smooth([(0.12, -0.62), (0.3, -0.92), (0.68, -0.92), (0.46, -0.66)]), LEAF)


def cup(pen: Pen, c: Tone) -> None:
    pen.cord([(0.45, -0.1), (0.82, -0.06), (0.86, 0.28), (0.66, 0.5), (0.36, 0.52)], 3.0, c.body)
    for x in (-0.36, 0.12):
        pen.stroke([(x, -0.62), (x + 0.08, -0.74), (x - 0.02, -0.86), (x + 0.06, -0.96)], 1.6, WHITE)
    pen.shape([(-0.78, -0.36), (0.56, -0.36), (0.46, 0.7), (0.3, 0.9), (-0.52, 0.9), (-0.68, 0.7)], c.body)
    pen.patch([(0.28, -0.3), (0.54, -0.3), (0.44, 0.7), (0.28, 0.86), (0.1, 0.86)], c.shade)
    pen.shape(oval(-0.11, -0.36, 0.67, 0.17), (120, 74, 50))
    pen.patch(turned(oval(-0.5, 0.2, 0.07, 0.28), -0.5, 0.2, -5), c.light)


def umbrella(pen: Pen, c: Tone) -> None:
    pen.cord([(0, -0.2), (0, 0.72), (0.06, 0.88), (0.22, 0.9), (0.3, 0.72)], 1.8, WOOD)
    pen.stroke([(0, -0.86), (0, -0.98)], 2.2)
    rim = [*oval(0.64, 0.1, 0.34, 0.16, 0, -180), *oval(0, 0.1, 0.3, 0.16, 0, -180)]
    rim += oval(-0.64, 0.1, 0.34, 0.16, 0, -180)
    pen.shape([*oval(0, 0.1, 0.98, 0.98, 180, 360), *rim], c.body)
    pen.patch([*oval(0, 0.1, 0.94, 0.94, 300, 358), *oval(0.64, 0.08, 0.32, 0.16, 0, -180), (0.3, -0.4)], c.shade)
    pen.patch([*oval(0, 0.1, 0.94, 0.94, 182, 240), (-0.3, -0.4), *oval(-0.64, 0.08, 0.32, 0.16, 0, -180)], c.light)


def butterfly(pen: Pen, c: Tone) -> None:
    for side in (-1, 1):
        pen.stroke([(0, -0.5), (side * 0.12, -0.8), (side * 0.28, -0.9)], 1.4)
        low = smooth([(0.04 * side, 0.05), (0.6 * side, 0.1), (0.76 * side, 0.5), (0.44 * side, 0.86)])
        pen.shape([*low], c.shade)
        high = smooth(
            [(0.04 * side, 0.1), (0.34 * side, -0.6), (0.84 * side, -0.72), (0.96 * side, -0.2)] + [(0.62 * side, 0.16)]
        )
        pen.shape(high, c.body)
        pen.patch(oval(side * 0.62, -0.34, 0.19, 0.19), c.light)
        pen.patch(oval(side * 0.46, 0.44, 0.13, 0.15), c.light)
    pen.shape(oval(0, 0.1, 0.12, 0.62), WOOD)


def duck(pen: Pen, c: Tone) -> None:
    pen.shape([(0.66, -0.5), (1.0, -0.36), (0.66, -0.2)], AMBER if c.body[2] > 90 or c.body[1] < 120 else (230, 96, 50))
    pen.shape(
        smooth(
            [(-0.98, 0.04), (-0.5, 0.22), (0.0, 0.08), (0.2, -0.1), (0.56, 0.12), (0.7, 0.5), (0.3, 0.9)]
            + [(-0.4, 0.9), (-0.82, 0.56)]
        ),
        c.body,
    )
    pen.shape(oval(0.36, -0.38, 0.4, 0.4), c.body)
    pen.patch(smooth([(0.12, -0.04), (0.56, -0.08), (0.6, 0.3), (0.2, 0.3)]), c.body)
    pen.patch(smooth([(-0.7, 0.56), (0.0, 0.74), (0.6, 0.56), (0.28, 0.85), (-0.38, 0.85)]), c.shade)
    pen.shape(smooth([(-0.62, 0.3), (-0.1, 0.2), (0.16, 0.4), (-0.16, 0.64)]), c.light)
    pen.patch(oval(0.46, -0.48, 0.09, 0.11), INK)


def heart(pen: Pen, c: Tone) -> None:
    pen.shape(
        smooth(
            [(0, -0.5), (0.3, -0.82), (0.72, -0.78), (0.95, -0.36), (0.78, 0.14), (0.36, 0.6), (0, 0.93)]
            + [(-0.36, 0.6), (-0.78, 0.14), (-0.95, -0.36), (-0.72, -0.78), (-0.3, -0.82)]
        ),
        c.body,
    )
    pen.patch(smooth([(0.84, -0.3), (0.7, 0.1), (0.34, 0.5), (0.04, 0.8), (0.4, 0.2)]), c.shade)
    pen.patch(turned(oval(-0.5, -0.44, 0.16, 0.24), -0.5, -0.44, 40), c.light)


ICONS: dict[str, Callable[[Pen, Tone], None]] = {
    "house": house,
    "tree": tree,
    "flower": flower,
    "car": car,
    "boat": boat,
    "fish": fish,
    "cat": cat,
    "balloon": balloon,
    "rocket": rocket,
    "mushroom": mushroom,
    "apple": apple,
    "cup": cup,
    "umbrella": umbrella,
    "butterfly": butterfly,
    "duck": duck,
    "heart": heart,
}
