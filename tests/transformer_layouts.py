"""Names and shapes of diffusion transformers in the original layout, from the published numbers of their networks.

Independent of the code that reads them. The same functions make headers of full size and small files with weights.
"""

from dataclasses import dataclass

from tests.original_layouts import Shapes, conv, linear


@dataclass(frozen=True)
class Sd3:
    """The numbers of a transformer of Stable Diffusion 3: `dual` blocks at the front attend twice."""

    width: int
    blocks: int
    positions: int = 192
    dual: int = 0
    normed: bool = False
    context: int = 4096
    pooled: int = 2048
    head: int = 64
    channels: int = 16


@dataclass(frozen=True)
class Flux:
    width: int = 3072
    doubles: int = 19
    singles: int = 38
    guided: bool = True
    inputs: int = 64
    outputs: int = 64
    context: int = 4096
    pooled: int = 768
    head: int = 128


SD3_MEDIUM = Sd3(1536, 24)
SD35_MEDIUM = Sd3(1536, 24, positions=384, dual=13, normed=True)
SD35_LARGE = Sd3(2432, 38, normed=True)
FLUX_DEV, FLUX_SCHNELL = Flux(), Flux(guided=False)


def sd3(of: Sd3) -> Shapes:
    width = of.width
    shapes: Shapes = {"pos_embed": (1, of.positions**2, width), **conv("x_embedder.proj", width, of.channels, 2)}
    for name, inner in (("t_embedder", 256), ("y_embedder", of.pooled)):
        shapes |= linear(f"{name}.mlp.0", width, inner) | linear(f"{name}.mlp.2", width, width)
    shapes |= linear("context_embedder", width, of.context)
    for block in range(of.blocks):
        for side in ("x_block", "context_block"):
            name, last = f"joint_blocks.{block}.{side}", side == "context_block" and block == of.blocks - 1
            twice = side == "x_block" and block < of.dual
            shapes |= linear(f"{name}.adaLN_modulation.1", width * (2 if last else 9 if twice else 6), width)
            for attention in ("attn", "attn2") if twice else ("attn",):
                shapes |= linear(f"{name}.{attention}.qkv", 3 * width, width)
                shapes |= {} if last else linear(f"{name}.{attention}.proj", width, width)
                if of.normed:
                    shapes |= {f"{name}.{attention}.ln_{each}.weight": (of.head,) for each in "qk"}
            if not last:
                shapes |= linear(f"{name}.mlp.fc1", 4 * width, width) | linear(f"{name}.mlp.fc2", width, 4 * width)
    shapes |= linear("final_layer.adaLN_modulation.1", 2 * width, width)
    return shapes | linear("final_layer.linear", 4 * of.channels, width)


def flux(of: Flux) -> Shapes:
    width = of.width
    shapes = linear("img_in", width, of.inputs) | linear("txt_in", width, of.context)
    for name, inner in (("time_in", 256), ("vector_in", of.pooled), ("guidance_in", 256 if of.guided else 0)):
        if inner:
            shapes |= linear(f"{name}.in_layer", width, inner) | linear(f"{name}.out_layer", width, width)
    for block in range(of.doubles):
        for side in ("img", "txt"):
            name = f"double_blocks.{block}.{side}"
            shapes |= linear(f"{name}_mod.lin", 6 * width, width) | linear(f"{name}_attn.qkv", 3 * width, width)
            shapes |= {f"{name}_attn.norm.{each}_norm.scale": (of.head,) for each in ("query", "key")}
            shapes |= linear(f"{name}_attn.proj", width, width)
            shapes |= linear(f"{name}_mlp.0", 4 * width, width) | linear(f"{name}_mlp.2", width, 4 * width)
    for block in range(of.singles):
        name = f"single_blocks.{block}"
        shapes |= linear(f"{name}.modulation.lin", 3 * width, width) | linear(f"{name}.linear1", 7 * width, width)
        shapes |= {f"{name}.norm.{each}_norm.scale": (of.head,) for each in ("query", "key")}
        shapes |= linear(f"{name}.linear2", width, 5 * width)
    shapes |= linear("final_layer.adaLN_modulation.1", 2 * width, width)
    return shapes | linear("final_layer.linear", of.outputs, width)
