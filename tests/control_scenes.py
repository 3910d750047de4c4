"""What the tests of ControlNets and T2I-Adapters share: small models, workflows that steer, diffusers' pipelines."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.catalogue import Catalogue
from graph.events import Emit, ignore
from graph.folders import Folders
from graph.node import node
from nodes.checkpoints import load_checkpoint
from nodes.controlnets import apply_control_net_for_a_while, load_control_net
from nodes.engine import Engine, built_in
from nodes.latents import empty_latent
from nodes.sampling import ksampler
from nodes.text import encode_text
from nodes.values import Image, Latent, Mask
from tests import control_models, small_models, tiny_models
from tests.small_models import SMALL

SIDE, STEPS, CFG, SEED = 64, 4, 5.0, 3
TEXT, AWAY = "the blue cat", "dog"


def drawing(seed: int = 1) -> Tensor:
    return torch.rand(1, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(seed))


@node("Drawing")
def draw(seed: int = 1) -> Image:
    """A picture of noise."""
    return Image(drawing(seed))


@node("Hole")
def hole() -> Mask:
    """The left upper quarter is to be painted."""
    values = torch.zeros(1, SIDE, SIDE)
    values[:, : SIDE // 2, : SIDE // 2] = 1
    return Mask(values)


def data_folder(factory: pytest.TempPathFactory) -> Path:
    """A data folder with a tokenizer for single files."""
    folder = factory.mktemp("data")
    tiny_models.write_tokenizer(folder / "models" / "tokenizers" / "clip")
    return folder


def engine_for(data: Path) -> Engine:
    return Engine(Folders.below(data), catalogue=built_in() | Catalogue([draw, hole]), precision="fp32")


def checkpoint(data: Path, family: str) -> Path:
    """The family's folder, beside a file of the same weights."""
    checkpoints, small = data / "models" / "checkpoints", SMALL[family]
    if not (checkpoints / family).is_dir():
        tokenizer = data / "models" / "tokenizers" / "clip"
        weights = small_models.write_file(checkpoints / f"{family}.safetensors", small, tokenizer)
        small_models.write_folder(checkpoints / family, small, weights)
    return checkpoints / family


def control(data: Path, family: str, seed: int = 1) -> tuple[str, Any]:
    """The name of a ControlNet for the family, and diffusers' network of the same weights."""
    weights = control_models.control_weights(family, seed)
    name = f"{family} {seed}.safetensors"
    control_models.write(data / "models" / "controlnet" / name, weights, "control_model.")
    return name, control_models.control_net(family, weights)


def sampled(
    engine: Engine,
    family: str,
    steer: Any,
    latent_image: Any = None,
    patch: Any = None,
    emit: Emit = ignore,
    cfg: float = CFG,
    away: str = AWAY,
) -> Tensor:
    """The latents of a workflow in which `steer` changes the prompts, and may use the model."""
    with WorkflowBuilder() as workflow:
        model: Any = load_checkpoint(ckpt_name=f"{family}.safetensors")
        prompts = (encode_text(text=TEXT, clip=model[1]), encode_text(text=away, clip=model[1]))
        positive, negative = steer(model[0], *prompts)
        latent: Any = ksampler(
            model=patch(model[0]) if patch else model[0], seed=SEED, steps=STEPS, cfg=cfg, sampler_name="euler",
            scheduler="normal", positive=positive, negative=negative,
            latent_image=latent_image() if latent_image else empty_latent(SIDE, SIDE),
        )  # fmt: skip
    outputs = engine.run(workflow, targets=[latent.step], emit=emit).checked().outputs
    return cast(Latent, outputs[latent.step][0]).samples


def steered(name: str, picture: int = 1, **how: Any) -> Any:
    """Both prompts steered through the ControlNet of a name."""

    def steer(model: Any, positive: Any, negative: Any) -> Any:
        net = load_control_net(control_net_name=name)
        return apply_control_net_for_a_while(positive, negative, net, draw(picture), **how)

    return steer


def plainly(model: Any, positive: Any, negative: Any) -> Any:
    return positive, negative


def start() -> Tensor:
    """Noise as the reference starts from it, as a share of what diffusers multiplies it with."""
    sigma = 14.6146
    noise = torch.randn(1, 4, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(SEED))
    return noise * (1 + sigma**2) ** 0.5 / sigma


def piped(kind: str, folder: Path, nets: Any, pictures: Any, **how: Any) -> Tensor:
    """The latents that diffusers' pipeline gives, in the scale of the network."""
    import diffusers

    made = getattr(diffusers, kind).from_pretrained(folder, local_files_only=True, safety_checker=None, **nets)
    made.set_progress_bar_config(disable=True)
    return made(
        prompt=TEXT, negative_prompt=AWAY, num_inference_steps=STEPS, guidance_scale=CFG, output_type="latent",
        height=SIDE, width=SIDE, latents=start(), **pictures, **how,
    ).images  # fmt: skip


def tensor(seed: int = 1) -> Tensor:
    return drawing(seed).movedim(-1, 1)


def near(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


# diffusers hands torch's tensors to numpy in a way that numpy 2 warns of.
quiet = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
