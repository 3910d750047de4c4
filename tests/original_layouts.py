"""Names and shapes of Stable Diffusion files in the original layout, from the published configurations of its parts.

Independent of the code that reads them: from the numbers of a configuration (channels, multipliers, depths) to names,
as the networks' own modules are built. The same functions make headers of full size and small files with weights.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tests.tiny_models import save_weights

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Unet:
    """The numbers of a U-Net's published configuration; `depths` are those of the transformers at each level."""

    channels: int
    multipliers: tuple[int, ...]
    depths: tuple[int, ...]
    context: int
    middle: int = 1
    blocks: int = 2
    inputs: int = 4
    told: int = 0
    linear: bool = False


@dataclass(frozen=True)
class Text:
    width: int
    layers: int
    inner: int
    words: int = 49408
    projection: int = 0


SD1 = Unet(320, (1, 2, 4, 4), (1, 1, 1, 0), 768)
SD2 = replace(SD1, context=1024, linear=True)
SDXL = Unet(320, (1, 2, 4), (0, 2, 10), 2048, middle=10, told=2816, linear=True)
REFINER = Unet(384, (1, 2, 4, 4), (0, 4, 4, 0), 1280, middle=4, told=2560, linear=True)
CLIP_L = Text(768, 12, 3072)
OPEN_H = Text(1024, 24, 4096, projection=1024)
OPEN_G = Text(1280, 32, 5120, projection=1280)


def linear(name: str, width: int, inner: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (width, inner), **({f"{name}.bias": (width,)} if bias else {})}


def conv(name: str, width: int, inner: int, kernel: int = 3) -> Shapes:
    return {f"{name}.weight": (width, inner, kernel, kernel), f"{name}.bias": (width,)}


def _small_conv(name: str, width: int, inner: int) -> Shapes:
    return conv(name, width, inner, 1)


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def unet(of: Unet) -> Shapes:
    time = of.channels * 4
    shapes = {**linear("time_embed.0", time, of.channels), **linear("time_embed.2", time, time)}
    if of.told:
        shapes |= {**linear("label_emb.0.0", time, of.told), **linear("label_emb.0.2", time, time)}
    shapes |= conv("input_blocks.0.0", of.channels, of.inputs)
    width, number = of.channels, 1
    skips = [width]
    for level, multiplier in enumerate(of.multipliers):
        for _ in range(of.blocks):
            shapes |= _resnet(f"input_blocks.{number}.0", width, of.channels * multiplier, time)
            width = of.channels * multiplier
            shapes |= _attention(f"input_blocks.{number}.1", width, of.depths[level], of)
            skips.append(width)
            number += 1
        if level + 1 < len(of.multipliers):
            shapes |= conv(f"input_blocks.{number}.0.op", width, width)
            skips.append(width)
            number += 1
    shapes |= _resnet("middle_block.0", width, width, time)
    shapes |= _attention("middle_block.1", width, of.middle, of)
    shapes |= _resnet("middle_block.2", width, width, time)
    number = 0
    for level in reversed(range(len(of.multipliers))):
        for block in range(of.blocks + 1):
            shapes |= _resnet(
                f"output_blocks.{number}.0", width + skips.pop(), of.channels * of.multipliers[level], time
            )
            width = of.channels * of.multipliers[level]
            shapes |= _attention(f"output_blocks.{number}.1", width, of.depths[level], of)
            if level and block == of.blocks:
                shapes |= conv(f"output_blocks.{number}.{2 if of.depths[level] else 1}.conv", width, width)
            number += 1
    return shapes | norm("out.0", width) | conv("out.2", 4, width)


def _resnet(name: str, inner: int, width: int, time: int) -> Shapes:
    shapes = norm(f"{name}.in_layers.0", inner) | conv(f"{name}.in_layers.2", width, inner)
    shapes |= linear(f"{name}.emb_layers.1", width, time)
    shapes |= norm(f"{name}.out_layers.0", width) | conv(f"{name}.out_layers.3", width, width)
    return shapes | (conv(f"{name}.skip_connection", width, inner, 1) if inner != width else {})


def _attention(name: str, width: int, depth: int, of: Unet) -> Shapes:
    if not depth:
        return {}
    project = linear if of.linear else _small_conv
    shapes = norm(f"{name}.norm", width) | project(f"{name}.proj_in", width, width)
    for block in range(depth):
        start = f"{name}.transformer_blocks.{block}"
        for number, inner in ((1, width), (2, of.context)):
            attention = f"{start}.attn{number}"
            shapes |= linear(f"{attention}.to_q", width, width, False) | linear(f"{attention}.to_out.0", width, width)
            shapes |= linear(f"{attention}.to_k", width, inner, False) | linear(
                f"{attention}.to_v", width, inner, False
            )
        shapes |= linear(f"{start}.ff.net.0.proj", width * 8, width) | linear(f"{start}.ff.net.2", width, width * 4)
        for number in (1, 2, 3):
            shapes |= norm(f"{start}.norm{number}", width)
    return shapes | project(f"{name}.proj_out", width, width)


def vae(channels: int = 128, multipliers: tuple[int, ...] = (1, 2, 4, 4), blocks: int = 2, latent: int = 4) -> Shapes:
    """An autoencoder; those of 16 latent channels have no further convolutions around the latent."""
    widths = [channels * multiplier for multiplier in multipliers]
    around = conv("quant_conv", 2 * latent, 2 * latent, 1) | conv("post_quant_conv", latent, latent, 1)
    shapes = around if latent == 4 else {}
    width = channels
    shapes |= conv("encoder.conv_in", width, 3)
    for level, wider in enumerate(widths):
        for block in range(blocks):
            shapes |= _vae_resnet(f"encoder.down.{level}.block.{block}", width, wider)
            width = wider
        if level + 1 < len(widths):
            shapes |= conv(f"encoder.down.{level}.downsample.conv", width, width)
    shapes |= (
        _vae_middle("encoder", width) | norm("encoder.norm_out", width) | conv("encoder.conv_out", 2 * latent, width)
    )
    shapes |= conv("decoder.conv_in", width, latent) | _vae_middle("decoder", width)
    for level in reversed(range(len(widths))):
        for block in range(blocks + 1):
            shapes |= _vae_resnet(f"decoder.up.{level}.block.{block}", width, widths[level])
            width = widths[level]
        if level:
            shapes |= conv(f"decoder.up.{level}.upsample.conv", width, width)
    return shapes | norm("decoder.norm_out", width) | conv("decoder.conv_out", 3, width)


def _vae_resnet(name: str, inner: int, width: int) -> Shapes:
    shapes = norm(f"{name}.norm1", inner) | conv(f"{name}.conv1", width, inner)
    shapes |= norm(f"{name}.norm2", width) | conv(f"{name}.conv2", width, width)
    return shapes | (conv(f"{name}.nin_shortcut", width, inner, 1) if inner != width else {})


def _vae_middle(side: str, width: int) -> Shapes:
    shapes = _vae_resnet(f"{side}.mid.block_1", width, width) | _vae_resnet(f"{side}.mid.block_2", width, width)
    shapes |= norm(f"{side}.mid.attn_1.norm", width)
    for name in ("q", "k", "v", "proj_out"):
        shapes |= conv(f"{side}.mid.attn_1.{name}", width, width, 1)
    return shapes


def clip(of: Text) -> Shapes:
    """As transformers names it."""
    shapes: Shapes = {
        "text_model.embeddings.token_embedding.weight": (of.words, of.width),
        "text_model.embeddings.position_embedding.weight": (77, of.width),
    }
    for layer in range(of.layers):
        start = f"text_model.encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{start}.self_attn.{name}", of.width, of.width)
        shapes |= linear(f"{start}.mlp.fc1", of.inner, of.width) | linear(f"{start}.mlp.fc2", of.width, of.inner)
        shapes |= norm(f"{start}.layer_norm1", of.width) | norm(f"{start}.layer_norm2", of.width)
    shapes |= norm("text_model.final_layer_norm", of.width)
    return shapes | ({"text_projection.weight": (of.projection, of.width)} if of.projection else {})


def open_clip(of: Text) -> Shapes:
    shapes: Shapes = {
        "positional_embedding": (77, of.width),
        "text_projection": (of.width, of.projection),
        "token_embedding.weight": (of.words, of.width),
        "logit_scale": (),
    }
    for layer in range(of.layers):
        start = f"transformer.resblocks.{layer}"
        shapes |= {
            f"{start}.attn.in_proj_weight": (3 * of.width, of.width),
            f"{start}.attn.in_proj_bias": (3 * of.width,),
        }
        shapes |= linear(f"{start}.attn.out_proj", of.width, of.width)
        shapes |= linear(f"{start}.mlp.c_fc", of.inner, of.width) | linear(f"{start}.mlp.c_proj", of.width, of.inner)
        shapes |= norm(f"{start}.ln_1", of.width) | norm(f"{start}.ln_2", of.width)
    return shapes | norm("ln_final", of.width)


def below(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def checkpoint(of: Unet, texts: Mapping[str, Shapes], encoder: Shapes | None = None) -> Shapes:
    """A whole file: U-Net, VAE and text encoders below their prefixes."""
    shapes = below("model.diffusion_model.", unet(of)) | below("first_stage_model.", encoder or vae())
    for prefix, text in texts.items():
        shapes |= below(prefix, text)
    return shapes


HF = "cond_stage_model.transformer."
OPEN = "cond_stage_model.model."
EMBEDDERS = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
REFINER_TEXT = "conditioner.embedders.0.model."


def families() -> dict[str, Shapes]:
    """Whole checkpoints of full size."""
    sd1, sd2 = {HF: clip(CLIP_L)}, {OPEN: open_clip(replace(OPEN_H, layers=24))}
    sdxl = {EMBEDDERS[0]: clip(CLIP_L), EMBEDDERS[1]: open_clip(OPEN_G)}
    return {
        "SD 1 checkpoint": checkpoint(SD1, sd1),
        "SD 1 inpainting checkpoint": checkpoint(replace(SD1, inputs=9), sd1),
        "SD 1 pix2pix checkpoint": checkpoint(replace(SD1, inputs=8), sd1),
        "SD 2 checkpoint": checkpoint(SD2, sd2),
        "SD 2 inpainting checkpoint": checkpoint(replace(SD2, inputs=9), sd2),
        "SDXL checkpoint": checkpoint(SDXL, sdxl),
        "SDXL inpainting checkpoint": checkpoint(replace(SDXL, inputs=9), sdxl),
        "SDXL refiner checkpoint": checkpoint(REFINER, {REFINER_TEXT: open_clip(OPEN_G)}),
    }


def write_header(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16") -> Path:
    """A file of these tensors whose data is a hole: it takes no room."""
    start, header = 0, dict[str, object]()
    for name, shape in shapes.items():
        end = start + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + start)
    return path


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Weights of a size that keeps activations of any depth about 1; always the same."""
    generator = torch.Generator().manual_seed(seed)

    def weight(name: str, shape: tuple[int, ...]) -> Tensor:
        noise = torch.randn(shape, generator=generator)
        if len(shape) < 2:
            return noise * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        return noise / max(1, torch.Size(shape[1:]).numel()) ** 0.5

    return {name: weight(name, shape) for name, shape in shapes.items()}


def write_weights(path: Path, weights: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    return path


HINT = (16, 16, 32, 32, 96, 96, 256)
"""How wide a ControlNet makes its picture, module by module."""


def controlnet(of: Unet, hint: tuple[int, ...] = HINT) -> Shapes:
    """A ControlNet for a U-Net: its first half, an input for a picture and an output at every skip connection."""
    half = ("time_embed.", "label_emb.", "input_blocks.", "middle_block.")
    shapes = {name: shape for name, shape in unet(replace(of, inputs=4)).items() if name.startswith(half)}
    inner = (3, *hint)
    for at, width in enumerate((*hint, of.channels)):
        shapes |= conv(f"input_hint_block.{2 * at}", width, inner[at])
    widths = [of.channels]
    for level, multiplier in enumerate(of.multipliers):
        last = level + 1 == len(of.multipliers)
        widths += [of.channels * multiplier] * (of.blocks + (0 if last else 1))
    for at, width in enumerate(widths):
        shapes |= conv(f"zero_convs.{at}.0", width, width, 1)
    return shapes | conv("middle_block_out.0", widths[-1], widths[-1], 1)


def full_adapter(widths: tuple[int, ...] = (320, 640, 1280, 1280), factor: int = 8, channels: int = 3) -> Shapes:
    """A T2I-Adapter: two residual blocks at each level; that for SDXL folds 16 x 16 pixels into one."""
    shapes = conv("conv_in", widths[0], channels * factor**2)
    for level, width in enumerate(widths):
        for block in range(2):
            name = f"body.{2 * level + block}"
            if not block and level and widths[level - 1] != width:
                shapes |= conv(f"{name}.in_conv", width, widths[level - 1], 1)
            shapes |= conv(f"{name}.block1", width, width) | conv(f"{name}.block2", width, width, 1)
    return shapes


def light_adapter(widths: tuple[int, ...] = (320, 640, 1280, 1280), blocks: int = 4, channels: int = 3) -> Shapes:
    """A light T2I-Adapter, whose residual blocks are a quarter as wide as what comes out of each level."""
    shapes: Shapes = {}
    inner = channels * 64
    for level, width in enumerate(widths):
        name = f"body.{level}"
        shapes |= conv(f"{name}.in_conv", width // 4, inner, 1) | conv(f"{name}.out_conv", width, width // 4, 1)
        for block in range(blocks):
            for number in (1, 2):
                shapes |= conv(f"{name}.body.{block}.block{number}", width // 4, width // 4)
        inner = width
    return shapes
