"""Pictures that code has drawn, of the kind the embedded model knows, and what each shows."""

import torch

from graph.catalogue import Catalogue
from graph.node import node
from nodes.embedded.training.captions import plain
from nodes.embedded.training.pictures import draw
from nodes.embedded.training.vocabulary import Attributes
from nodes.values import Image

SHOWN = (
    Attributes("icon", "house", "red", "white"),
    Attributes("icon", "duck", "yellow", "blue"),
    Attributes("digit", colour="blue", background="white", digit="three"),
)
CAPTIONS = tuple(map(plain, SHOWN))


@node("Drawings")
def drawings() -> Image:
    """A red house, a yellow duck and a blue three."""
    pixels = torch.stack([torch.tensor(draw(shown, 40 + at)) for at, shown in enumerate(SHOWN)])
    return Image(pixels.float() / 255)


DRAWINGS = Catalogue((drawings,))
