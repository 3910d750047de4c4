from math import prod
from pathlib import Path

import pytest
import torch
from torch.nn import Module

from nodes.materialise import load_unet
from nodes.network_layout import architecture_of, network_plan
from nodes.precision import Precision
from nodes.values import Weights
from tests import small_transformers
from tests.original_layouts import Shapes
from tests.small_transformers import SMALL
from tests.transformer_layouts import FLUX_DEV, FLUX_SCHNELL, SD3_MEDIUM, SD35_LARGE, SD35_MEDIUM

FULL = {
    "SD 3": SD3_MEDIUM,
    "SD 3.5 medium": SD35_MEDIUM,
    "SD 3.5 large": SD35_LARGE,
    "Flux dev": FLUX_DEV,
    "Flux schnell": FLUX_SCHNELL,
}
EXACT = Precision("fp32", False, "for tests")


def learned(shapes: Shapes) -> int:
    return sum(prod(shape) for name, shape in shapes.items() if name != "pos_embed")


def test_the_fixtures_have_as_many_parameters_as_the_published_networks():
    published = [2_028_328_000, 2_243_171_520, 8_056_627_520, 11_901_408_320, 11_891_178_560]
    assert [learned(small_transformers.network_shapes(each)) for each in FULL.values()] == published


@pytest.mark.parametrize("name", FULL)
def test_every_weight_of_a_network_has_its_place_in_both_layouts(name: str):
    """diffusers' own class, built from the configuration, wants exactly what a file holds."""
    of = FULL[name]
    shapes = small_transformers.network_shapes(of)
    plan = network_plan(shapes)
    with torch.device("meta"):
        wanted = shapes_in(small_transformers.network_class(of).from_config(plan.config))
    places = {target: plan.places(target)[0] for target in wanted}
    assert {target: place.shape(shapes[place.name]) for target, place in places.items()} == wanted
    assert {place.name for place in places.values()} == set(shapes)
    assert architecture_of(wanted) == architecture_of(shapes) == ("SD 3" if name.startswith("SD") else "Flux")
    assert network_plan(wanted).config == plan.config


def shapes_in(module: Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in module.state_dict().items()}


@pytest.mark.parametrize("name", SMALL)
def test_weights_of_both_layouts_are_the_same_network(name: str, tmp_path: Path):
    of = SMALL[name].network
    small_transformers.write_network(tmp_path / "original.safetensors", of, "model.diffusion_model.")
    small_transformers.write_network_folder(tmp_path / "folder", of)
    theirs = small_transformers.network(of).state_dict()
    for weights in (
        Weights(tmp_path / "original.safetensors", "a", "original", "model.diffusion_model."),
        Weights(tmp_path / "folder", "b", "folder"),
        Weights(tmp_path / "folder" / "diffusion_pytorch_model.safetensors", "c", "diffusers' names"),
    ):
        ours = load_unet(weights, EXACT, torch.device("cpu")).state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_shares_that_a_tensor_does_not_have_are_no_shares():
    shapes = small_transformers.network_shapes(SMALL["Flux dev"].network)
    place = network_plan(shapes).places("transformer_blocks.0.attn.to_k.weight")[0]
    assert place.shape((192, 64)) == (64, 64) and place.shape((190, 64)) == (190, 64)
