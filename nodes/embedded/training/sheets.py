"""Contact sheets: captioned grids of pictures the model makes, to look at during and after training."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

Generate = Callable[[list[str], list[int], int], UInt8[np.ndarray, "count height width 3"]]

PROMPTS = (
    "a red house in the snow at night",
    "a yellow duck on the sea by day",
    "a purple cat in a meadow at sunset",
    "a blue rocket in the desert at night",
    "a green car in the mountains by day",
    "a white boat on the sea at sunset",
    "a pink butterfly on a blue background",
    "an orange fish on a white background",
    "a blue umbrella on a yellow background",
    "a green apple on a pink background",
    "a red mushroom in a meadow by day",
    "a pink tree in the snow by day",
    "an orange balloon on a gray background",
    "a yellow flower on a purple background",
    "a purple cup on a green background",
    "a red heart on a black background",
    "a handwritten three in blue on a white background",
    "a yellow handwritten seven on a purple background",
    "the digit 8 in green on an orange background",
    "a red cat left of a blue house on a white background",
    "a pink heart above a green tree on a yellow background",
    "a white duck right of an orange car",
    "the mountains at night",
    "a photo of a cute kitten",
)
COLUMNS, CAPTION = 6, 30


def sheet(pictures: UInt8[np.ndarray, "count height width 3"], captions: list[str]) -> Image.Image:
    """A grid of pictures, each above its caption."""
    size = pictures.shape[1]
    rows = -(-len(pictures) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * (size + 8) + 8, rows * (size + CAPTION + 8) + 8), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(10)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = 8 + index % COLUMNS * (size + 8), 8 + index // COLUMNS * (size + CAPTION + 8)
        page.paste(Image.fromarray(picture), (x, y))
        text = "\n".join(textwrap.wrap(caption, size // 5)[:2])
        draw.multiline_text((x, y + size + 3), text, "#333333", font, spacing=1)
    return page


def save(generate: Generate, path: Path, prompts: tuple[str, ...] = PROMPTS, size: int = 128, seed: int = 7) -> None:
    """Paint the prompts and write the sheet."""
    pictures = generate(list(prompts), [seed + i for i in range(len(prompts))], size)
    sheet(pictures, list(prompts)).save(path, optimize=True)
