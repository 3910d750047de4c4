"""Show Flux Kontext pictures beside the one that is made (Black Forest Labs 2025)."""

from dataclasses import replace

from graph.node import node
from nodes.values import Conditioning, Image, Latent

SIZES = (
    (672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104),
    (1024, 1024), (1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688),
    (1568, 672),
)  # fmt: skip
"""Widths and heights of the pictures that Flux Kontext was trained on."""


@node("ReferenceLatent", category="advanced/conditioning/edit_models")
def show_latent(conditioning: Conditioning, latent: Latent | None = None) -> Conditioning:
    """Show the network a picture, as latents, beside those that the prompts show already."""
    if latent is None:
        return conditioning
    return Conditioning(
        tuple(replace(each, references=(*each.references, latent.samples)) for each in conditioning.prompts)
    )


@node("FluxKontextImageScale", category="advanced/conditioning/flux")
def scale_for_kontext(image: Image) -> Image:
    """Cut a picture, centred, to the nearest proportions that Flux Kontext was trained on, and to their size."""
    from nodes.maths.resize import resize_picture

    height, width = image.pixels.shape[1:3]
    _, wide, high = min((abs(width / height - wide / high), wide, high) for wide, high in SIZES)
    return Image(resize_picture(image.pixels, wide, high, "lanczos", "center"))
