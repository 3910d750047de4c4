"""What the examples have in common: the embedded model, and the side of its pictures."""

from nodes.images import batch_images
from nodes.values import Image

MODEL = "loomlet"
SIDE = 128


def batch_of(pictures: list[Image]) -> Image:
    """Pictures, one after the other in a batch."""
    batch = pictures[0]
    for picture in pictures[1:]:
        batch = batch_images(image1=batch, image2=picture)
    return batch
