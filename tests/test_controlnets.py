"""ControlNets on small models of every family, against diffusers' own pipelines and networks."""

from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.catalogue import Catalogue
from graph.events import Emit, Event, NodeFinished, ignore
from graph.folders import Folders
from graph.node import node
from nodes.checkpoints import load_checkpoint
from nodes.controlnets import (
    apply_control_net,
    apply_control_net_for_a_while,
    load_control_net,
)
from nodes.denoiser import guided_denoiser
from nodes.engine import Engine, built_in
from nodes.latents import empty_latent, set_noise_mask
from nodes.maths.guidance import keep_area
from nodes.maths.model_sampling import DiscreteSampling
from nodes.sampling import ksampler
from nodes.text import encode_text
from nodes.unet_patches import downscale
from nodes.values import Area, Conditioning, Control, ControlNet, Image, Latent, Mask, Model, Prompt
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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny_models.write_tokenizer(folder / "models" / "tokenizers" / "clip")
    return folder


@pytest.fixture(scope="module")
def engine(data: Path) -> Engine:
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
    engine: Engine, family: str, steer: Any, latent_image: Any = None, patch: Any = None, emit: Emit = ignore
) -> Tensor:
    """The latents of a workflow in which `steer` changes the prompts, and may use the model."""
    with WorkflowBuilder() as workflow:
        model: Any = load_checkpoint(ckpt_name=f"{family}.safetensors")
        prompts = (encode_text(text=TEXT, clip=model[1]), encode_text(text=AWAY, clip=model[1]))
        positive, negative = steer(model[0], *prompts)
        latent: Any = ksampler(
            model=patch(model[0]) if patch else model[0], seed=SEED, steps=STEPS, cfg=CFG, sampler_name="euler",
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
PIPELINES = {
    "SD 1": "StableDiffusionControlNetPipeline",
    "SD 2": "StableDiffusionControlNetPipeline",
    "SDXL": "StableDiffusionXLControlNetPipeline",
}


@quiet
@pytest.mark.parametrize("family", PIPELINES)
def test_every_layout_gives_one_picture_which_is_that_of_diffusers_pipeline(family: str, data: Path, engine: Engine):
    folder, (name, net) = checkpoint(data, family), control(data, family)
    nets = data / "models" / "controlnet"
    control_models.write(nets / "bare.safetensors", control_models.control_weights(family))
    control_models.write_module(nets / "file.safetensors", net)
    control_models.write_module(nets / "folder", net)
    how: Any = {"strength": 0.7, "end_percent": 0.5}
    ours = sampled(engine, family, steered(name, **how))
    for other in ("bare.safetensors", "file.safetensors", "folder"):
        assert torch.equal(sampled(engine, family, steered(other, **how)), ours)
    assert not torch.equal(sampled(engine, family, plainly), ours)
    # Of four steps, the first two are in the first half by timesteps as by count.
    pictures = {"image": tensor(), "controlnet_conditioning_scale": 0.7, "control_guidance_end": 0.5}
    near(ours * SMALL[family].scale, piped(PIPELINES[family], folder, {"controlnet": net}, pictures))


@quiet
def test_two_in_a_chain_are_diffusers_sum_of_two(data: Path, engine: Engine):
    folder = checkpoint(data, "SD 1")
    (first, one), (second, other) = control(data, "SD 1", 1), control(data, "SD 1", 5)

    def chain(model: Any, positive: Any, negative: Any) -> Any:
        return steered(second, 2, strength=1.5)(model, *steered(first, strength=0.5)(model, positive, negative))

    pictures = {"image": [tensor(1), tensor(2)], "controlnet_conditioning_scale": [0.5, 1.5]}
    theirs = piped(PIPELINES["SD 1"], folder, {"controlnet": [one, other]}, pictures)
    near(sampled(engine, "SD 1", chain) * 0.18215, theirs)


def test_strength_0_is_as_without(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    name, _ = control(data, "SD 1")
    assert torch.equal(sampled(engine, "SD 1", steered(name, strength=0.0)), sampled(engine, "SD 1", plainly))


def test_the_old_node_steers_the_negative_prompt_too(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    name, _ = control(data, "SD 1")

    def old(model: Any, positive: Any, negative: Any) -> Any:
        return apply_control_net(positive, load_control_net(control_net_name=name), draw(), 0.8), negative

    assert torch.equal(sampled(engine, "SD 1", old), sampled(engine, "SD 1", steered(name, strength=0.8)))


class Loaded:
    """diffusers' networks of the small Stable Diffusion 1 and a ControlNet for it, asked directly."""

    def __init__(self, data: Path) -> None:
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        folder = checkpoint(data, "SD 1")
        self.unet = cast(Any, UNet2DConditionModel).from_pretrained(folder / "unet", local_files_only=True)
        self.name, self.net = control(data, "SD 1")

    def noise(self, x: Tensor, t: float, text: Tensor, hint: Tensor | None, strength: float = 1.0) -> Tensor:
        """The noise that is predicted in a latent scaled for the network."""
        with torch.inference_mode():
            more: dict[str, Any] = {}
            if hint is not None:
                skips, middle = self.net(x, t, text, hint, strength, return_dict=False)
                more = {"down_block_additional_residuals": skips, "mid_block_additional_residual": middle}
            return self.unet(x, t, text, return_dict=False, **more)[0]


def references(engine: Engine, data: Path, name: str) -> tuple[Model, ControlNet]:
    with WorkflowBuilder() as workflow:
        model: Any = load_checkpoint(ckpt_name="SD 1.safetensors")[0]
        net: Any = load_control_net(control_net_name=name)
    outputs = engine.run(workflow, targets=[model.step, net.step]).checked().outputs
    return cast(Model, outputs[model.step][0]), cast(ControlNet, outputs[net.step][0])


X = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7)) * 3
TOKENS = torch.randn(2, 1, 77, 64, generator=torch.Generator().manual_seed(8))
SIGMA = 3.0
SAMPLING = DiscreteSampling()


def timestep_of(sigma: float) -> float:
    return float(SAMPLING.timestep(sigma))


def test_a_prompt_for_a_part_is_steered_by_that_part_of_the_picture(data: Path, engine: Engine):
    theirs = Loaded(data)
    model, net = references(engine, data, theirs.name)
    left = Prompt(TOKENS[0], area=Area(8, 4), controls=(Control(net, drawing(), 0.9),))
    ours = guided_denoiser(engine.models, model, Conditioning((left,)), None, 1.0, 1)(X, SIGMA)
    scaled, timestep = X / (1 + SIGMA**2) ** 0.5, timestep_of(SIGMA)
    noise = theirs.noise(scaled[..., :4], timestep, TOKENS[0], tensor()[..., :32], 0.9)
    near(ours[..., :4], X[..., :4] - SIGMA * noise)
    assert not ours[..., 4:].any()


def test_a_picture_is_cut_to_the_latents_proportions_and_resized(data: Path, engine: Engine):
    theirs = Loaded(data)
    model, net = references(engine, data, theirs.name)
    wide = torch.rand(1, 40, 100, 3, generator=torch.Generator().manual_seed(2))
    prompt = Prompt(TOKENS[0], controls=(Control(net, wide),))
    ours = guided_denoiser(engine.models, model, Conditioning((prompt,)), None, 1.0, 1)(X, SIGMA)
    hint = torch.nn.functional.interpolate(wide[:, :, 30:70].movedim(-1, 1), size=(64, 64), mode="nearest-exact")
    scaled = X / (1 + SIGMA**2) ** 0.5
    near(ours, X - SIGMA * theirs.noise(scaled, timestep_of(SIGMA), TOKENS[0], hint))


def test_prompts_that_are_steered_and_others_are_asked_apart_and_mixed(data: Path, engine: Engine):
    theirs = Loaded(data)
    model, net = references(engine, data, theirs.name)
    steered_prompt, other = Prompt(TOKENS[0], controls=(Control(net, drawing()),)), Prompt(TOKENS[1], strength=3.0)
    ours = guided_denoiser(engine.models, model, Conditioning((steered_prompt, other)), None, 1.0, 1)(X, SIGMA)
    scaled, timestep = X / (1 + SIGMA**2) ** 0.5, timestep_of(SIGMA)
    noises = [theirs.noise(scaled, timestep, TOKENS[0], tensor()), theirs.noise(scaled, timestep, TOKENS[1], None)]
    near(ours, X - SIGMA * (noises[0] + 3.0 * noises[1]) / 4.0)


def test_under_a_mask_the_rest_stays_and_what_is_painted_is_steered(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    name, _ = control(data, "SD 1")

    def masked(steer: Any) -> Tensor:
        return sampled(engine, "SD 1", steer, latent_image=lambda: set_noise_mask(empty_latent(SIDE, SIDE), hole()))

    painted, plain = masked(steered(name)), masked(plainly)
    assert not painted[..., :, 4:].any() and not painted[..., 4:, :].any()
    assert not torch.equal(painted[..., :4, :4], plain[..., :4, :4])


def test_a_mask_and_a_control_are_the_formula_step_by_step(data: Path, engine: Engine):
    theirs = Loaded(data)
    model, net = references(engine, data, theirs.name)
    mask, (kept, noise) = (
        torch.zeros(1, 1, 8, 8),
        torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(9)),
    )
    mask[..., :4, :4] = 1
    prompt = Conditioning((Prompt(TOKENS[0], controls=(Control(net, drawing(), end=0.5),)),))
    denoise = keep_area(guided_denoiser(engine.models, model, prompt, None, 1.0, 1), mask, noise, kept, SAMPLING)
    x = expected = X * 5
    for sigma, after in pairwise((10.0, 3.0, 0.5, 0.0)):
        x = x + (x - denoise(x, sigma)) / sigma * (after - sigma)
        shown = expected * mask + (kept + noise * sigma) * (1 - mask)
        hint = tensor() if SAMPLING.timestep(sigma) >= 499.5 else None
        scaled = shown / (1 + sigma**2) ** 0.5
        clean = shown - sigma * theirs.noise(scaled, timestep_of(sigma), TOKENS[0], hint)
        clean = clean * mask + kept * (1 - mask)
        expected = expected + (expected - clean) / sigma * (after - sigma)
    near(x, expected)


def test_steps_that_are_not_steered_otherwise_are_not_done_again(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    name, _ = control(data, "SD 1")

    def steps(strength: float) -> int:
        ran: list[str] = []

        def emit(event: Event) -> None:
            ran.extend([event.class_name] if isinstance(event, NodeFinished) else [])

        sampled(engine, "SD 1", steered(name, strength=strength), emit=emit)
        return ran.count("SamplerStepBetween")

    assert [steps(strength) for strength in (0.31, 0.31, 0.32)] == [STEPS, 0, STEPS]


def test_a_lowered_resolution_leaves_out_what_has_no_place_there(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    name, _ = control(data, "SD 1")

    def shrunk(model: Any) -> Any:
        return downscale(model, 1, 2.0, 0.0, 1.0)

    pictures = [sampled(engine, "SD 1", steer, patch=shrunk) for steer in (steered(name), plainly)]
    assert not torch.equal(*pictures)
