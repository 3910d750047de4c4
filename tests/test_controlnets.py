"""ControlNets on small models of every family, against diffusers' own pipelines."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from graph.events import Event, NodeFinished
from nodes.controlnets import UnionType, apply_control_net, load_control_net, set_union_type
from nodes.controlnets import apply_control_net_for_a_while as apply_for_a_while
from nodes.engine import Engine
from nodes.latents import empty_latent, set_noise_mask
from tests import control_models
from tests import control_scenes as scenes
from tests.control_scenes import (
    SIDE,
    STEPS,
    checkpoint,
    control,
    draw,
    hole,
    near,
    piped,
    plainly,
    quiet,
    sampled,
    steered,
    tensor,
)
from tests.small_models import SMALL

pytestmark = pytest.mark.usefixtures("packed_as_large_ones")

PIPELINES = {
    "SD 1": "StableDiffusionControlNetPipeline",
    "SD 2": "StableDiffusionControlNetPipeline",
    "SDXL": "StableDiffusionXLControlNetPipeline",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.data_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def engine(data: Path) -> Engine:
    return scenes.engine_for(data)


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


def test_the_old_node_steers_the_negative_prompt_too(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    name, _ = control(data, "SD 1")

    def old(model: Any, positive: Any, negative: Any) -> Any:
        return apply_control_net(positive, load_control_net(control_net_name=name), draw(), 0.8), negative

    assert torch.equal(sampled(engine, "SD 1", old), sampled(engine, "SD 1", steered(name, strength=0.8)))


def test_under_a_mask_the_rest_stays_and_what_is_painted_is_steered(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    name, _ = control(data, "SD 1")

    def masked(steer: Any) -> Tensor:
        return sampled(engine, "SD 1", steer, latent_image=lambda: set_noise_mask(empty_latent(SIDE, SIDE), hole()))

    painted, plain = masked(steered(name)), masked(plainly)
    assert not painted[..., :, 4:].any() and not painted[..., 4:, :].any()
    assert not torch.equal(painted[..., :4, :4], plain[..., :4, :4])


def test_a_step_is_done_again_only_if_it_is_steered_otherwise(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    name, _ = control(data, "SD 1", 9)
    ran: list[str] = []

    def emit(event: Event) -> None:
        ran.extend([event.class_name] if isinstance(event, NodeFinished) else [])

    def steps(steer: Any, **changes: Any) -> int:
        ran.clear()
        sampled(engine, "SD 1", steer, emit=emit, **changes)
        return ran.count("SamplerStepBetween")

    assert [steps(steered(name, strength=strength)) for strength in (0.3, 0.3, 0.4)] == [STEPS, 0, STEPS]
    sampled(engine, "SD 1", plainly)
    assert steps(steered(name, strength=0.0)) == 0
    # Without guidance nothing depends on the negative prompt, however it is steered.
    assert [steps(steered(name), cfg=1.0, away=away) for away in ("dog", "the cat")] == [STEPS, 0]


@quiet
def test_a_union_told_what_its_picture_shows_is_that_of_diffusers_pipeline(data: Path, engine: Engine):
    folder, union = checkpoint(data, "SDXL"), control_models.union()
    nets = data / "models" / "controlnet"
    control_models.write_module(nets / "union.safetensors", union)
    control_models.write_module(nets / "union", union)

    def told(name: str, kind: UnionType) -> Tensor:
        def steer(model: Any, positive: Any, negative: Any) -> Any:
            net = set_union_type(load_control_net(control_net_name=name), kind)
            return apply_for_a_while(positive, negative, net, draw(), 0.8)

        return sampled(engine, "SDXL", steer)

    canny = told("union.safetensors", "canny/lineart/anime_lineart/mlsd")
    assert torch.equal(told("union", "canny/lineart/anime_lineart/mlsd"), canny)
    assert not torch.equal(told("union", "depth"), canny)
    pictures = {"control_image": [tensor()], "control_mode": [3], "controlnet_conditioning_scale": 0.8}
    theirs = piped("StableDiffusionXLControlNetUnionPipeline", folder, {"controlnet": union}, pictures)
    near(canny * SMALL["SDXL"].scale, theirs)


def test_a_union_told_nothing_takes_its_picture_as_any_other_does(data: Path, engine: Engine):
    checkpoint(data, "SDXL")
    union = control_models.union()
    nets = data / "models" / "controlnet"
    control_models.write_module(nets / "union.safetensors", union)
    plain = control_models.control_net("SDXL", control_models.control_weights("SDXL"))
    weights = union.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    # What a union is told is added to the timestep: nothing is an embedding of its own, which a bias can hold.
    times = torch.zeros(8)
    nothing = union.control_add_embedding(union.control_type_proj(times).reshape(1, -1))[0]
    plain.time_embedding.linear_2.bias.data += nothing.detach()
    control_models.write_module(nets / "plain.safetensors", plain)
    near(sampled(engine, "SDXL", steered("union.safetensors")), sampled(engine, "SDXL", steered("plain.safetensors")))
