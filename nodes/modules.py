"""The modules that declare nodes."""

from importlib import import_module
from types import ModuleType

NODE_MODULES = (
    "animations",
    "batches",
    "block_merging",
    "checkpoints",
    "clip_vision",
    "computation",
    "controlnets",
    "custom_sampling",
    "differential",
    "flow",
    "gligen",
    "guidance",
    "hypernetworks",
    "image_filters",
    "image_transforms",
    "images",
    "ip_adapters",
    "kontext",
    "latent_operations",
    "latent_transforms",
    "latents",
    "lists",
    "loading",
    "lora_saving",
    "loras",
    "masks",
    "merging",
    "model_inputs",
    "model_overrides",
    "model_saving",
    "primitives",
    "prompt_areas",
    "samplers",
    "sampling",
    "saving",
    "schedules",
    "skipped_layers",
    "style_models",
    "text",
    "tiled_vae",
    "transformer_prompts",
    "transparency",
    "unclip",
    "unet_patches",
    "upscaling",
    "videos",
    "vision.boxes",
    "vision.captions",
    "vision.classification",
    "vision.diffusion_classifier",
    "vision.diffusion_mask",
    "vision.guidance",
    "vision.models",
    "vision.segments",
    "vision.similarity",
)
"""By their names in this package, in the order in which their nodes are listed."""


def node_modules(start: str = "") -> tuple[ModuleType, ...]:
    """Those whose names start so. Imports them, but nothing heavy."""
    return tuple(import_module(f"{__package__}.{name}") for name in NODE_MODULES if name.startswith(start))
