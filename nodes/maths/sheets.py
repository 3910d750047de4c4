"""Lay pictures out on a contact sheet, each with its caption."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

Picture = Float[Tensor, "height width 3"]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FINER = 4
"""Text is drawn so many times larger and then reduced: at its own size, letters snap to pixels and crowd together."""

MOST_LINES = 6
"""Longer captions end in an ellipsis, so that one long prompt does not push the pictures apart."""


class _Row(NamedTuple):
    pictures: Sequence[Picture]
    captions: Sequence[Sequence[str]]
    height: int
    text_height: int


def contact_sheet(
    pictures: Sequence[Picture],
    captions: Sequence[str] = (),
    columns: int = 0,
    padding: int = 12,
    background: str = "#ffffff",
    text_size: int = 0,
) -> Float[Tensor, "1 height width 3"]:
    """A grid of pictures, each above its caption; 0 columns is as square as it gets, text size 0 follows the pictures.

    Pictures may differ in size. Missing captions are empty; pillow's own font has Latin letters only. The background is
    any colour name or #rrggbb; the text is dark or light, whichever can be read on it. ValueError when there is no
    picture or no such colour.
    """
    if not pictures:
        raise ValueError("A contact sheet needs at least one picture.")
    columns = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    cell = max(picture.shape[1] for picture in pictures)
    size = text_size or min(max(round(cell / 13), 12), 28)
    # Below about six letters a line, wrapping would leave a column of syllables: widen the cell instead.
    cell = max(cell, 6 * size) if any(captions) else cell
    font = ImageFont.load_default(size * FINER)
    rows = list(_rows(pictures, captions, columns, cell, font, _line_height(size)))
    return _draw(rows, columns, cell, padding, background, font, size)


def _line_height(size: int) -> int:
    return round(size * 1.3)


def _gap(size: int) -> int:
    """Between a picture and its caption."""
    return round(size * 0.45)


def _rows(
    pictures: Sequence[Picture], captions: Sequence[str], columns: int, cell: int, font: Font, line: int
) -> Iterator[_Row]:
    wrapped = [wrap(caption, font, cell * FINER) for caption in captions[: len(pictures)]]
    wrapped += [[] for _ in range(len(pictures) - len(wrapped))]
    for start in range(0, len(pictures), columns):
        here, texts = pictures[start : start + columns], wrapped[start : start + columns]
        lines = max(len(text) for text in texts)
        yield _Row(here, texts, max(picture.shape[0] for picture in here), lines * line)


def _draw(
    rows: Sequence[_Row], columns: int, cell: int, padding: int, background: str, font: Font, size: int
) -> Float[Tensor, "1 height width 3"]:
    paper = torch.tensor(ImageColor.getcolor(background, "RGB"), dtype=torch.float32) / 255.0
    gaps = [_gap(size) if row.text_height else 0 for row in rows]
    width = columns * cell + (columns + 1) * padding
    height = padding + sum(row.height + gap + row.text_height + padding for row, gap in zip(rows, gaps, strict=True))
    sheet = paper.expand(height, width, 3).clone()
    ink = torch.zeros(height, width)
    top = padding
    for row, gap in zip(rows, gaps, strict=True):
        for column, (picture, lines) in enumerate(zip(row.pictures, row.captions, strict=True)):
            left = padding + column * (cell + padding)
            _place(sheet, picture, left + (cell - picture.shape[1]) // 2, top + (row.height - picture.shape[0]) // 2)
            _write(ink[top + row.height + gap :, left : left + cell], lines, font, _line_height(size))
        top += row.height + gap + row.text_height + padding
    return _printed(sheet, ink, paper).unsqueeze(0)


def _place(sheet: Picture, picture: Picture, left: int, top: int) -> None:
    height, width = picture.shape[:2]
    sheet[top : top + height, left : left + width] = picture.to(sheet).clamp(0.0, 1.0)


def _write(ink: Float[Tensor, "height width"], lines: Sequence[str], font: Font, line: int) -> None:
    """Centred lines of text, as coverage 0..1, at the top of this part of the sheet."""
    if not lines:
        return
    width, height = ink.shape[1], line * len(lines)
    strip = Image.new("L", (width * FINER, height * FINER))
    pen = ImageDraw.Draw(strip)
    for number, text in enumerate(lines):
        left = (width * FINER - font.getlength(text)) / 2
        pen.text((round(left), number * line * FINER), text, fill=255, font=font)
    ink[:height] = torch.as_tensor(np.array(strip.reduce(FINER))).float() / 255.0


def _printed(sheet: Picture, ink: Float[Tensor, "height width"], paper: Float[Tensor, "3"]) -> Picture:
    """The text, drawn as coverage, laid over the pictures: they themselves never pass through 8 bits."""
    coverage = ink.unsqueeze(-1)
    luminance = float(paper @ torch.tensor([0.299, 0.587, 0.114]))
    colour = 0.13 if luminance > 0.5 else 0.9
    return sheet * (1.0 - coverage) + colour * coverage


def wrap(text: str, font: Font, width: float) -> list[str]:
    """The text in lines that fit the width, broken between words where possible; at most MOST_LINES of them."""
    lines = [line for paragraph in text.splitlines() for line in _wrap_paragraph(paragraph.split(), font, width)]
    if len(lines) <= MOST_LINES:
        return lines
    last = lines[MOST_LINES - 1]
    while last and font.getlength(last + "…") > width:
        last = last[:-1]
    return [*lines[: MOST_LINES - 1], last.rstrip() + "…"]


def _wrap_paragraph(words: Iterable[str], font: Font, width: float) -> Iterator[str]:
    line = ""
    for word in words:
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            yield line
        *full, line = _break_word(word, font, width)
        yield from full
    yield line


def _break_word(word: str, font: Font, width: float) -> list[str]:
    """Pieces of a word that fit the width, at least one letter each."""
    pieces = [word[:1]]
    for letter in word[1:]:
        if font.getlength(pieces[-1] + letter) <= width:
            pieces[-1] += letter
        else:
            pieces.append(letter)
    return pieces
