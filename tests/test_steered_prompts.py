"""Where and when a picture steers a prompt, against diffusers' networks asked directly."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from nodes.checkpoints import load_checkpoint
from nodes.controlnets import load_control_net
from nodes.denoiser import guided_denoiser
from nodes.engine import Engine
from nodes.maths.guidance import keep_area
from nodes.maths.model_sampling import DiscreteSampling
from nodes.models import ModelPool
from nodes.placed_controls import sharing_controls
from nodes.unet_patches import downscale
from nodes.values import Area, Conditioning, Control, ControlNet, Model, Prompt, Weights
from tests import control_scenes as scenes
from tests.control_scenes import checkpoint, control, drawing, near, plainly, sampled, steered, tensor

pytestmark = pytest.mark.usefixtures("packed_as_large_ones")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.data_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def engine(data: Path) -> Engine:
    return scenes.engine_for(data)


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
    checkpoint(data, "SD 1")
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


def test_a_prompt_for_a_part_is_steered_by_the_picture_cut_to_the_parts_proportions(data: Path, engine: Engine):
    theirs = Loaded(data)
    model, net = references(engine, data, theirs.name)
    left = Prompt(TOKENS[0], area=Area(8, 4), controls=(Control(net, drawing(), 0.9),))
    ours = guided_denoiser(engine.models, model, Conditioning((left,)), None, 1.0, 1)(X, SIGMA)
    scaled, timestep = X / (1 + SIGMA**2) ** 0.5, timestep_of(SIGMA)
    noise = theirs.noise(scaled[..., :4], timestep, TOKENS[0], tensor()[..., 16:48], 0.9)
    near(ours[..., :4], X[..., :4] - SIGMA * noise)
    assert not ours[..., 4:].any()


def test_in_bf16_it_is_the_same_but_for_rounding(data: Path, engine: Engine):
    theirs = Loaded(data)
    model, net = references(engine, data, theirs.name)
    prompt = Conditioning((Prompt(TOKENS[0], controls=(Control(net, drawing()),)),))
    rounded, exact, plain = (
        guided_denoiser(pool, model, prompts, None, 1.0, 1)(X, SIGMA)
        for pool, prompts in (
            (ModelPool("bf16", "cpu"), prompt),
            (engine.models, prompt),
            (engine.models, Conditioning((Prompt(TOKENS[0]),))),
        )
    )
    assert 0 < (rounded - exact).abs().mean() < 0.1 * (plain - exact).abs().mean()


def test_a_picture_is_cut_to_the_latents_proportions_and_resized(data: Path, engine: Engine):
    theirs = Loaded(data)
    model, net = references(engine, data, theirs.name)
    wide = torch.rand(1, 40, 100, 3, generator=torch.Generator().manual_seed(2))
    prompt = Prompt(TOKENS[0], controls=(Control(net, wide),))
    ours = guided_denoiser(engine.models, model, Conditioning((prompt,)), None, 1.0, 1)(X, SIGMA)
    hint = torch.nn.functional.interpolate(wide[:, :, 30:70].movedim(-1, 1), size=(64, 64), mode="nearest-exact")
    scaled = X / (1 + SIGMA**2) ** 0.5
    near(ours, X - SIGMA * theirs.noise(scaled, timestep_of(SIGMA), TOKENS[0], hint))


def test_each_latent_of_a_batch_has_its_own_picture_and_one_does_for_all(data: Path, engine: Engine):
    model, net = references(engine, data, control(data, "SD 1")[0])

    def denoised(x: Tensor, *pictures: Tensor) -> Tensor:
        prompt = Prompt(TOKENS[0], controls=(Control(net, torch.cat(pictures)),))
        return guided_denoiser(engine.models, model, Conditioning((prompt,)), None, 1.0, len(x))(x, SIGMA)

    first, second = drawing(1), drawing(2)
    alone = [denoised(X, first), denoised(X, second)]
    near(denoised(X.repeat(2, 1, 1, 1), first, second), torch.cat(alone))
    near(denoised(X.repeat(2, 1, 1, 1), first), torch.cat([alone[0], alone[0]]))


def test_prompts_that_are_steered_and_others_are_asked_apart_and_mixed(data: Path, engine: Engine):
    theirs = Loaded(data)
    model, net = references(engine, data, theirs.name)
    steered_prompt, other = Prompt(TOKENS[0], controls=(Control(net, drawing()),)), Prompt(TOKENS[1], strength=3.0)
    ours = guided_denoiser(engine.models, model, Conditioning((steered_prompt, other)), None, 1.0, 1)(X, SIGMA)
    scaled, timestep = X / (1 + SIGMA**2) ** 0.5, timestep_of(SIGMA)
    noises = [theirs.noise(scaled, timestep, TOKENS[0], tensor()), theirs.noise(scaled, timestep, TOKENS[1], None)]
    near(ours, X - SIGMA * (noises[0] + 3.0 * noises[1]) / 4.0)


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


def test_a_lowered_resolution_leaves_out_what_has_no_place_there(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    name, _ = control(data, "SD 1")

    def shrunk(model: Any) -> Any:
        return downscale(model, 1, 2.0, 0.0, 1.0)

    pictures = [sampled(engine, "SD 1", steer, patch=shrunk) for steer in (steered(name), plainly)]
    assert not torch.equal(*pictures)


NET = ControlNet(Weights(Path("net"), "net", "net"))


def prompts(*steered_by: float | None, shared: bool = True) -> Conditioning:
    """A prompt for each strength, steered that strongly; None: not at all."""
    return Conditioning(
        tuple(
            Prompt(TOKENS[0], controls=() if each is None else (Control(NET, drawing(), each),), shares_controls=shared)
            for each in steered_by
        )
    )


def strengths(conditioning: Conditioning) -> list[list[float]]:
    return [[control.strength for control in each.controls] for each in conditioning.prompts]


def test_what_prompts_share_goes_round_the_others():
    assert strengths(sharing_controls(prompts(None, None), prompts(0.5))) == [[0.5], []]
    assert strengths(sharing_controls(prompts(None), prompts(0.5, None, 0.7))) == [[0.5], [0.7]]
    assert strengths(sharing_controls(prompts(None, None), prompts(0.1, 0.2, 0.3))) == [[0.1], [0.2], [0.3]]


def test_nothing_is_shared_with_prompts_that_are_steered_already_or_have_an_area():
    own = prompts(None, 0.9)
    assert sharing_controls(own, prompts(0.5)) is own
    assert strengths(sharing_controls(prompts(None), prompts(0.5, shared=False))) == [[]]
    for place in ({"area": Area(4, 4)}, {"mask": torch.ones(1, 8, 8), "area_from_mask": True}):
        apart = Conditioning(tuple(replace(each, **place) for each in prompts(0.5).prompts))
        assert strengths(sharing_controls(prompts(None), apart)) == [[]]
