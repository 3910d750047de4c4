"""What a model file is, from the names and shapes of its tensors alone; and, where it is nothing known, why not."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nodes import control_layout, flux_layout, sd3_layout
from nodes.control_layout import DIFFERENCE_MARK, UNION_MARK, controlnet_plan
from nodes.gligen_layout import gligen_plan
from nodes.ip_adapter_layout import ATTENTION, FACE_ID, PICTURES, design_of, is_for_faces, key_shapes
from nodes.network_layout import architecture_of, network_plan
from nodes.picture_encoder_layout import TRANSFORMERS_MARK, picture_encoder_name, picture_encoder_part
from nodes.safetensors_header import TensorEntry
from nodes.style_layout import redux_plan
from nodes.t2i_adapter_layout import adapter_plan
from nodes.t5_layout import is_t5, t5_plan
from nodes.text_layout import OPEN_WIDTH, PROJECTION, naming_of, text_plan
from nodes.unet_layout import ORIGINAL_MARK, SIZE_WIDTH
from nodes.vae_layout import vae_plan
from nodes.values import Architecture, Variant
from nodes.weight_places import NotThisNetwork, Shapes, shapes_below

Kind = Literal[
    "checkpoint", "U-Net", "VAE", "text encoder", "LoRA", "ControlNet", "T2I-Adapter", "embedding", "CLIP vision",
    "IP-Adapter", "GLIGEN", "hypernetwork", "diffusion transformer", "style model",
]  # fmt: skip
Family = Literal["SD 1", "SD 2", "SDXL", "SDXL refiner", "SD 3", "Flux"]

VARIANTS: Mapping[int, Variant] = {4: "plain", 9: "inpainting", 8: "pix2pix"}
"""By the number of channels that a U-Net takes."""
SIZES: Mapping[Family, int] = {"SDXL": 6, "SDXL refiner": 5}
"""How many numbers the family is told of beside the pooled text."""

HYPERNETWORK_LAYER = re.compile(r"(\d+)\.[01]\.linear\.?\d+\.")
CONTROL_PREFIXES = ("control_model.", "")
CONTROL_MARKS = {control_layout.ORIGINAL_MARK, control_layout.DIFFUSERS_MARK}
CONTROL_LORA_MARK = "lora_controlnet"
ORIGINAL_MARKS = {ORIGINAL_MARK, sd3_layout.ORIGINAL_MARKS[0], flux_layout.ORIGINAL_MARKS[0]}
UNET_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.", "")
LATENT_CHANNELS = (4, 16)
VAE_PREFIXES = ("first_stage_model.", "vae.", "")
TEXT_PREFIXES = (
    "cond_stage_model.transformer.",
    "cond_stage_model.model.",
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.0.model.",
    "conditioner.embedders.1.model.",
    "text_encoder.",
    "text_encoder_2.",
    "text_encoder_3.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_g.transformer.",
    "text_encoders.t5xxl.transformer.",
    "clip_l.transformer.",
    "clip_g.transformer.",
    "clip_h.transformer.",
    "t5xxl.transformer.",
    "",
)

TRANSFORMER_VARIANTS: Mapping[Architecture, Mapping[int, Variant]] = {
    "SD 3": {16: "plain"},
    "Flux": {64: "plain", 384: "inpainting", 128: "pix2pix"},
}
"""By the number of channels that transformers take; Flux's are of 2 x 2 pixels of a latent, 8 x 8 of a mask."""

FOREIGN = {
    "down_blocks.0.0.channelwise.0.weight": "Stable Cascade",
    "input_blocks.1.0.time_stack.in_layers.0.weight": "Stable Video Diffusion",
    "blocks.0.cross_attn.k_img.weight": "Wan",
    "distilled_guidance_layer.in_proj.weight": "Chroma",
    "double_stream_modulation_img.lin.weight": "Flux 2",
    "double_stream_modulation_img.linear.weight": "Flux 2",
    "txt_in.individual_token_refiner.blocks.0.self_attn_qkv.weight": "HunyuanVideo",
    "txt_in.individual_token_refiner.blocks.0.self_attn.qkv.weight": "HunyuanVideo",
    "transformer_blocks.0.img_mod.1.weight": "Qwen-Image",
    "double_layers.0.attn.w1q.weight": "AuraFlow",
    "double_blocks.0.img_attn.proj.weight": "a relative of Flux",
    "joint_blocks.0.context_block.attn.qkv.weight": "a relative of Stable Diffusion 3",
    "transformer_blocks.0.attn.add_k_proj.weight": "a diffusion transformer",
}
"""One weight of each of the families that are known and not supported; relatives of those that are come last."""

LORA_ENDS = (
    *(
        ".lora_down.weight",
        ".lora_up.weight",
        ".lora_A.weight",
        ".lora_B.weight",
        ".lora.down.weight",
        ".lora.up.weight",
    ),
    *(".hada_w1_a", ".lokr_w1", ".lokr_w1_a", ".dora_scale", ".oft_blocks", "_lora.down.weight"),
    *("_lora.up.weight", ".b1.weight"),
)
LORA_MARKS: Mapping[Family, tuple[str, ...]] = {
    "SD 3": ("joint_blocks",),
    "Flux": ("double_blocks", "single_blocks", "single_transformer_blocks"),
}
"""Blocks of transformers that LoRAs name."""
T5_XXL_WIDTH = 4096
_TEXT_WIDTHS: Mapping[int, Family] = {768: "SD 1", 1024: "SD 2", 2048: "SDXL", 1280: "SDXL refiner"}


@dataclass(frozen=True, slots=True)
class Identified:
    """What a file is. `unet`, `vae`, `texts` and `control` are the starts of the names of its parts."""

    kind: Kind
    layout: str
    family: Family | None = None
    variant: Variant = "plain"
    unet: str | None = None
    vae: str | None = None
    texts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    control: str | None = None

    def __str__(self) -> str:
        words = [self.family or "", "" if self.variant == "plain" else self.variant, self.kind]
        return f"{' '.join(word for word in words if word)} ({self.layout})"


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """Why a file is none of what is known: for each kind, the reason."""

    reasons: Mapping[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        return "; ".join(f"not {with_article(kind)}: {reason}" for kind, reason in self.reasons.items())


def with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeioI' else 'a'} {kind}"


def identify(entries: Mapping[str, TensorEntry]) -> Identified | Unrecognised:
    """What the tensors of a file are. Never raises."""
    if not entries:
        return Unrecognised({"model": "the file holds no tensors"})
    kinds: Iterable[tuple[str, Callable[[Mapping[str, TensorEntry]], Identified]]] = (
        ("IP-Adapter", _ip_adapter),
        ("GLIGEN", _gligen),
        ("hypernetwork", _hypernetwork),
        ("style model", _style_model),
        ("LoRA", _lora),
        ("ControlNet", _controlnet),
        ("T2I-Adapter", _t2i_adapter),
        ("embedding", _embedding),
        ("U-Net or checkpoint", _unet_or_checkpoint),
        ("VAE", _vae),
        ("text encoder", _text_encoder),
        ("CLIP vision", _vision),
    )
    reasons: dict[str, str] = {}
    for kind, look in kinds:
        try:
            return look(entries)
        except NotThisNetwork as error:
            reasons[kind] = str(error)
    return Unrecognised(reasons)


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a U-Net by its configuration. Raises NotThisNetwork."""
    told = config.get("projection_class_embeddings_input_dim")
    if told is None or "class_embed_type" in config:
        return "SD 2" if config["use_linear_projection"] else "SD 1"
    family: Family = "SDXL refiner" if len(config["block_out_channels"]) == 4 else "SDXL"
    if told <= SIZES[family] * SIZE_WIDTH:
        raise NotThisNetwork(f"its U-Net is told {told} numbers beside the text, too few for an {family}")
    return family


def variant_of(config: Mapping[str, Any]) -> Variant:
    """What a U-Net takes beside the noisy latent. Raises NotThisNetwork."""
    channels: int = config["in_channels"]
    if channels not in VARIANTS:
        known = ", ".join(f"{number} ({variant})" for number, variant in VARIANTS.items())
        raise NotThisNetwork(f"its U-Net takes {channels} channels; known are {known}")
    if "class_embed_type" in config:
        if VARIANTS[channels] != "plain" or not config["use_linear_projection"]:
            raise NotThisNetwork("its U-Net is told numbers beside the text, as unCLIP's is, but is none otherwise")
        return "unCLIP"
    return VARIANTS[channels]


def _unet_or_checkpoint(entries: Mapping[str, TensorEntry]) -> Identified:
    prefix, shapes = _part(entries, UNET_PREFIXES, lambda found: ORIGINAL_MARK in found)
    architecture = architecture_of(shapes)
    for mark, name in FOREIGN.items():
        if mark in shapes and architecture == "U-Net":
            raise NotThisNetwork(f"it is {name}, which is not supported")
    config = network_plan(shapes).config
    if architecture == "U-Net":
        family, variant = family_of(config), variant_of(config)
    else:
        family, variant = architecture, transformer_variant(architecture, config["in_channels"])
    layout = "original layout" if ORIGINAL_MARKS & set(shapes) else "diffusers layout"
    vae = next((start for start in VAE_PREFIXES if start and _is(vae_plan, shapes_below(entries, start))), None)
    texts = tuple(start for start in TEXT_PREFIXES if start and _is_text(shapes_below(entries, start)))
    if vae is None and not texts:
        kind: Kind = "U-Net" if architecture == "U-Net" else "diffusion transformer"
        return Identified(kind, layout, family, variant, prefix, notes=_of_guidance(architecture, config))
    notes = tuple(
        note for missing, note in ((vae is None, "without a VAE"), (not texts, "without a text encoder")) if missing
    )
    notes += _of_guidance(architecture, config)
    return Identified("checkpoint", layout, family, variant, prefix, vae, texts, notes)


def transformer_variant(architecture: Architecture, channels: int) -> Variant:
    """What a transformer takes beside the noisy latent, by the number of channels. Raises NotThisNetwork."""
    variants = TRANSFORMER_VARIANTS[architecture]
    if channels not in variants:
        known = ", ".join(f"{number} ({variant})" for number, variant in variants.items())
        raise NotThisNetwork(f"its network of {architecture} takes {channels} channels; known are {known}")
    return variants[channels]


def _of_guidance(architecture: Architecture, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Whether a network of Flux is told how strongly to follow the text."""
    if architecture != "Flux":
        return ()
    return ("told a guidance, as dev is" if config["guidance_embeds"] else "told no guidance, as schnell is",)


def _part(
    entries: Mapping[str, TensorEntry], prefixes: Iterable[str], has_mark: Callable[[Shapes], bool]
) -> tuple[str, Shapes]:
    """The first start of names below which there is anything; the empty one is the last."""
    for prefix in prefixes:
        shapes = shapes_below(entries, prefix)
        if shapes and (has_mark(shapes) or prefix):
            return prefix, shapes
    return "", shapes_below(entries, "")


def _is(plan: Callable[[Shapes], object], shapes: Shapes) -> bool:
    try:
        plan(shapes)
    except NotThisNetwork:
        return False
    return True


def _vae(entries: Mapping[str, TensorEntry]) -> Identified:
    for prefix in VAE_PREFIXES:
        shapes = shapes_below(entries, prefix)
        if shapes and (_is(vae_plan, shapes) or not prefix):
            config = vae_plan(shapes).config
            if config["latent_channels"] not in LATENT_CHANNELS:
                known = " and ".join(map(str, LATENT_CHANNELS))
                raise NotThisNetwork(f"its latents have {config['latent_channels']} channels; supported are {known}")
            layout = "original layout" if "encoder.down.0.block.0.conv1.weight" in shapes else "diffusers layout"
            return Identified("VAE", layout, vae=prefix)
    raise NotThisNetwork("it holds no tensors")


def _is_text(shapes: Shapes) -> bool:
    return naming_of(shapes) is not None or is_t5(shapes)


def _text_encoder(entries: Mapping[str, TensorEntry]) -> Identified:
    found = [prefix for prefix in TEXT_PREFIXES if _is_text(shapes_below(entries, prefix))]
    if not found:
        text_plan(shapes_below(entries, ""))
    every = [shapes_below(entries, prefix) for prefix in found]
    naming = "OpenCLIP's names" if naming_of(every[0]) == "openclip" else "transformers' names"
    notes = tuple(note for shapes in every for note in _text_notes(shapes))
    return Identified("text encoder", naming, texts=tuple(found), notes=notes)


def _text_notes(shapes: Shapes) -> tuple[str, ...]:
    """Which text encoder it is. Raises NotThisNetwork."""
    if is_t5(shapes):
        width = t5_plan(shapes).config["d_model"]
        return ("T5-XXL" if width == T5_XXL_WIDTH else f"T5, {width} wide",)
    width = text_plan(shapes).config["hidden_size"]
    name = {768: "CLIP-L", 1024: "OpenCLIP-H", 1280: "CLIP-G"}.get(width, f"{width} wide")
    projection = "with" if {PROJECTION, "text_projection"} & set(shapes) else "without"
    return name, f"{projection} a projection"


def text_family(width: int) -> Family:
    """The family whose text encoder is this wide, if it is alone."""
    return "SD 2" if width == OPEN_WIDTH else "SDXL refiner" if width > OPEN_WIDTH else "SD 1"


def _hypernetwork(entries: Mapping[str, TensorEntry]) -> Identified:
    found = [HYPERNETWORK_LAYER.match(name) for name in entries]
    widths = {int(layer[1]) for layer in found if layer is not None}
    if None in found:
        raise NotThisNetwork("not every name is that of a layer for some width, as 768.0.linear.0.weight")
    families: list[Family] = [family for width, family in _TEXT_WIDTHS.items() if width in widths]
    family = families[0] if len(families) == 1 else None
    told = ", ".join(map(str, sorted(widths)))
    notes = (f"for attention of the widths {told}",)
    return Identified("hypernetwork", "AUTOMATIC1111's layout", family, notes=notes)


def _ip_adapter(entries: Mapping[str, TensorEntry]) -> Identified:
    if is_for_faces(entries):
        return Identified("IP-Adapter", FACE_ID)
    design = design_of(shapes_below(entries, PICTURES))
    widths = {shape[1] for shape in key_shapes(shapes_below(entries, ATTENTION))}
    family = _TEXT_WIDTHS.get(widths.pop()) if len(widths) == 1 else None
    return Identified("IP-Adapter", design, family)


def _gligen(entries: Mapping[str, TensorEntry]) -> Identified:
    fusers = gligen_plan(shapes_below(entries, "")).config["fusers"]
    return Identified("GLIGEN", "original layout", _TEXT_WIDTHS.get(fusers[0].context))


def _style_model(entries: Mapping[str, TensorEntry]) -> Identified:
    width = redux_plan(shapes_below(entries, "")).config["width"]
    return Identified("style model", "original layout", "Flux", notes=(f"of pictures' states {width} wide",))


def _lora(entries: Mapping[str, TensorEntry]) -> Identified:
    names = [name for name in entries if name.endswith(LORA_ENDS)]
    if not names:
        raise NotThisNetwork(f"no name ends in {LORA_ENDS[0]}, {LORA_ENDS[2]} or the like")
    layout = "kohya's names" if any(name.startswith("lora_") for name in names) else "diffusers' or PEFT's names"
    to_text = (".attn2.to_k", "_attn2_to_k")
    downs = (".lora_down.weight", ".lora_A.weight", ".lora.down.weight", "_lora.down.weight")
    widths = {
        entries[name].shape[1]
        for name in names
        if name.endswith(downs) and any(mark in name for mark in to_text) and len(entries[name].shape) >= 2
    }
    families: set[Family] = {_TEXT_WIDTHS[width] for width in widths if width in _TEXT_WIDTHS}
    families |= {
        family for family, marks in LORA_MARKS.items() if any(mark in name for name in names for mark in marks)
    }
    return Identified("LoRA", layout, families.pop() if len(families) == 1 else None)


def _controlnet(entries: Mapping[str, TensorEntry]) -> Identified:
    if CONTROL_LORA_MARK in entries:
        downs = (entry.shape for name, entry in entries.items() if name.endswith(".attn2.to_k.down"))
        width = next((shape[-1] for shape in downs if shape), 0)
        return Identified("ControlNet", "ControlLoRA", _TEXT_WIDTHS.get(width), control="")
    found = {prefix: shapes_below(entries, prefix) for prefix in CONTROL_PREFIXES}
    prefix = next((prefix for prefix, shapes in found.items() if CONTROL_MARKS & set(shapes)), "")
    shapes = found[prefix]
    config = controlnet_plan(shapes).config
    notes = ("a union of several kinds",) if UNION_MARK in shapes else ()
    notes += ("a difference to a model's weights",) if DIFFERENCE_MARK in entries else ()
    layout = "original layout" if ORIGINAL_MARK in shapes else "diffusers layout"
    return Identified("ControlNet", layout, family_of(config), notes=notes, control=prefix)


def _t2i_adapter(entries: Mapping[str, TensorEntry]) -> Identified:
    shapes = shapes_below(entries, "")
    config = adapter_plan(shapes).config
    layout = "diffusers layout" if any(name.startswith("adapter.") for name in shapes) else "original layout"
    family: Family = "SDXL" if config["adapter_type"] == "full_adapter_xl" else "SD 1"
    return Identified("T2I-Adapter", layout, family, notes=(config["adapter_type"],), control="")


def _embedding(entries: Mapping[str, TensorEntry]) -> Identified:
    if len(entries) <= 2 and {"clip_l", "clip_g"} & set(entries):
        return Identified("embedding", "vectors for CLIP-L and CLIP-G", "SDXL")
    if len(entries) <= 2 and all(1 <= len(entry.shape) <= 2 for entry in entries.values()):
        entry = entries.get("emb_params") or next(iter(entries.values()))
        family = _TEXT_WIDTHS.get(entry.shape[-1])
        if family in ("SD 1", "SD 2"):
            return Identified("embedding", f"vectors of {entry.shape[-1]} numbers", family)
    raise NotThisNetwork(f"it has {len(entries)} tensors, not one or two of width 768, 1024 or 1280")


def _vision(entries: Mapping[str, TensorEntry]) -> Identified:
    prefix, plan = picture_encoder_part(entries)
    naming = "transformers' names" if prefix + TRANSFORMERS_MARK in entries else "OpenCLIP's names"
    return Identified("CLIP vision", naming, notes=(picture_encoder_name(plan.config),))
