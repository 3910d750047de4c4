"""Compute something large in tiles that overlap, and fade them into one another, so that no seam shows."""

from collections.abc import Callable, Iterator
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

Planes = Float[Tensor, "batch channels height width"]
TileFunction = Callable[[Planes], Planes]
Report = Callable[[int, int], None]


def in_tiles(
    function: TileFunction, planes: Planes, tile: tuple[int, int], overlap: int, report: Report | None = None
) -> Planes:
    """`function` of the whole, computed tile by tile and blended with weights that rise linearly over the overlap.

    The function may change the number of channels, and the size by a factor, which must be the same for every tile.

    Args:
        tile: height and width of a tile, in pixels of `planes`. What fits into one is not cut.
        overlap: how far neighbouring tiles overlap, in the same pixels.
        report: is told after each tile how many are done, and of how many.
    """
    height, width = planes.shape[-2:]
    if height <= tile[0] and width <= tile[1]:
        result = function(planes)
        _tell(report, 1, 1)
        return result
    spans = list(product(_spans(height, tile[0], overlap), _spans(width, tile[1], overlap)))
    total, weights = None, None
    for done, (rows, columns) in enumerate(spans, 1):
        part = function(planes[..., rows, columns]).float()
        factor = part.shape[-1] / (columns.stop - columns.start)
        if total is None or weights is None:
            size = round(height * factor), round(width * factor)
            total, weights = part.new_zeros(*part.shape[:2], *size), part.new_zeros(1, 1, *size)
        place = (..., _scaled(rows, factor, part.shape[-2]), _scaled(columns, factor, part.shape[-1]))
        weight = _weight(part.shape[-2], part.shape[-1], round(overlap * factor)).to(part)
        total[place] += part * weight
        weights[place] += weight
        _tell(report, done, len(spans))
    assert total is not None and weights is not None
    return total / weights


def tiles(height: int, width: int, tile: tuple[int, int], overlap: int) -> int:
    """How many tiles `in_tiles` computes."""
    if height <= tile[0] and width <= tile[1]:
        return 1
    return len(list(_spans(height, tile[0], overlap))) * len(list(_spans(width, tile[1], overlap)))


def _spans(length: int, tile: int, overlap: int) -> Iterator[slice]:
    """Where tiles begin and end along one side; the last may be shorter, but is longer than the overlap."""
    if length <= tile:
        yield slice(0, length)
        return
    for start in range(0, length - overlap, tile - overlap):
        yield slice(start, min(start + tile, length))


def _scaled(span: slice, factor: float, length: int) -> slice:
    start = round(span.start * factor)
    return slice(start, start + length)


def _weight(height: int, width: int, feather: int) -> Float[Tensor, "{height} {width}"]:
    """Rising 1/f, 2/f … to 1 from every side; where two tiles overlap, their weights are divided by the sum."""
    return _rise(height, feather)[:, None] * _rise(width, feather)


def _rise(length: int, feather: int) -> Float[Tensor, " length"]:
    factors = torch.ones(length)
    if 0 < feather < length:
        ramp = torch.arange(1, feather + 1) / feather
        factors[:feather] *= ramp
        factors[-feather:] *= ramp.flip(0)
    return factors


def _tell(report: Report | None, done: int, total: int) -> None:
    if report is not None:
        report(done, total)


def in_three_tilings(
    function: TileFunction, planes: Planes, tile: int, overlap: int, report: Report | None = None
) -> Planes:
    """The mean over square tiles, wide ones and high ones, of one area: what is left of seams lies elsewhere in each.

    Wide is twice and high half as much; the overlap is that of the square ones, as in ComfyUI.
    """
    shapes = ((tile * 2, tile // 2), (tile // 2, tile * 2), (tile, tile))
    counts = [tiles(planes.shape[-2], planes.shape[-1], shape, overlap) for shape in shapes]
    total = torch.zeros(())
    for index, shape in enumerate(shapes):
        before, of = sum(counts[:index]), sum(counts)

        def told(done: int, _: int, before: int = before, of: int = of) -> None:
            _tell(report, before + done, of)

        total = total + in_tiles(function, planes, shape, overlap, told)
    return total / len(shapes)
