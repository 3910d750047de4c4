"""A pen for flat picture-book drawings: filled shapes with a dark outline, in a box of its own from -1 to 1."""

import math
from collections.abc import Sequence

from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

INK: Colour = (42, 36, 56)
WHITE: Colour = (255, 252, 244)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `share` of the way from `a` to `b`."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def oval(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> list[Point]:
    """Points on an ellipse, clockwise from the right; part of one when `start` and `stop` say so (degrees)."""
    steps = max(6, round(abs(stop - start) / 9))
    angles = [math.radians(start + (stop - start) * i / steps) for i in range(steps + 1)]
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def smooth(points: Sequence[Point], steps: int = 8) -> list[Point]:
    """A closed Catmull-Rom curve through the points."""
    curve: list[Point] = []
    count = len(points)
    for i in range(count):
        a, b, c, d = (points[(i + k) % count] for k in (-1, 0, 1, 2))
        for step in range(steps):
            curve.append((_spline(a[0], b[0], c[0], d[0], step / steps), _spline(a[1], b[1], c[1], d[1], step / steps)))
    return curve


def _spline(a: float, b: float, c: float, d: float, t: float) -> float:
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def turned(points: Sequence[Point], x: float, y: float, degrees: float) -> list[Point]:
    """The points rotated clockwise about (x, y)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x + (px - x) * cos - (py - y) * sin, y + (px - x) * sin + (py - y) * cos) for px, py in points]


class Pen:
    """Draws in a square from -1 to 1, y downwards, that lies somewhere on the canvas."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, x: float, y: float, reach: float, line: float, flip: bool = False
    ) -> None:
        self.draw = draw
        self.x, self.y, self.reach = x, y, reach
        self.line = line
        self.flip = -1 if flip else 1

    def _place(self, points: Sequence[Point]) -> list[Point]:
        return [(self.x + self.flip * px * self.reach, self.y + py * self.reach) for px, py in points]

    def shape(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled shape with an outline around it."""
        placed = self._place(points)
        self._trace([*placed, *placed[:2]], 2 * self.line, INK)
        self.draw.polygon(placed, fill=fill)

    def patch(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled shape without an outline: shading, light, pattern."""
        self.draw.polygon(self._place(points), fill=fill)

    def stroke(self, points: Sequence[Point], width: float = 1.4, fill: Colour = INK) -> None:
        """A line with round ends, its width in outlines."""
        self._trace(self._place(points), width * self.line, fill)

    def cord(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """A thick line with an outline of its own: handles, stalks, strings."""
        self.stroke(points, width + 2, INK)
        self.stroke(points, width, fill)

    def _trace(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        whole = max(1, round(width))
        self.draw.line(list(points), fill=fill, width=whole, joint="curve")
        radius = whole / 2 - 0.5
        for x, y in (points[0], points[-1]):
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
