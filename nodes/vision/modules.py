"""The modules of this folder that declare nodes."""

from nodes.vision import (
    boxes,
    captions,
    classification,
    diffusion_classifier,
    diffusion_mask,
    guidance,
    models,
    segments,
    similarity,
)

MODULES = (
    boxes,
    captions,
    classification,
    diffusion_classifier,
    diffusion_mask,
    guidance,
    models,
    segments,
    similarity,
)
