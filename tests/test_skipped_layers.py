"""Guidance by leaving out blocks of a transformer, against its formulas and diffusers' own networks."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nodes.architectures import WrongArchitecture
from nodes.denoiser import guided_denoiser, sampling_of
from nodes.models import ModelPool
from nodes.network_patches import SkippedBlocks
from nodes.single_files import read_single_unet
from nodes.skipped_layers import skip_layers, skip_layers_of_negative, skip_layers_sd3
from nodes.values import Conditioning, Model, Prompt
from tests import small_transformers
from tests.small_transformers import CHANNELS, CONTEXT, POOLED, SMALL, drawn

pytestmark = pytest.mark.usefixtures("packed_as_large_ones")
POOL = ModelPool("fp32", "cpu")
CFG = 4.0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return small_transformers.read_networks(tmp_path_factory.mktemp("networks"), "SD 3.5", "Flux dev")


def said(seed: int) -> Conditioning:
    return Conditioning((Prompt(drawn(1, 5, CONTEXT, seed=seed), drawn(1, POOLED, seed=seed + 10)),))


X = drawn(2, CHANNELS, 6, 6, seed=3)


def guided(model: Model, sigma: float = 0.8, cfg: float = CFG) -> Tensor:
    return guided_denoiser(POOL, model, said(1), said(2), cfg, len(X))(X, sigma)


def alone(model: Model, seed: int, double: tuple[int, ...] = (), single: tuple[int, ...] = ()) -> Tensor:
    """The prediction under one prompt, without some blocks."""
    changed = replace(model, network_patches=(SkippedBlocks(double, single),) if double or single else ())
    return guided_denoiser(POOL, changed, said(seed), None, 1.0, len(X))(X, 0.8)


def near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["SD 3.5", "Flux dev"])
def test_blocks_that_are_left_out_are_as_if_they_were_not_there(name: str, models: dict[str, Model]):
    from torch.nn import ModuleList

    model, of = models[name], SMALL[name].network
    network = small_transformers.network(of)
    network.transformer_blocks = ModuleList([network.transformer_blocks[0], *network.transformer_blocks[2:]])
    if name == "Flux dev":
        network.single_transformer_blocks = network.single_transformer_blocks[1:]
    folder = model.weights.path.parent / f"fewer {name}"
    names = {"transformer_blocks": "num_layers", "single_transformer_blocks": "num_single_layers"}
    for blocks, setting in names.items():
        if hasattr(network, blocks):
            network.register_to_config(**{setting: len(getattr(network, blocks))})
    if name == "SD 3.5":
        network.register_to_config(dual_attention_layers=(0,))
    small_transformers.tiny_models.save(network, folder)
    fewer = read_single_unet(folder, "fewer")
    near(alone(model, 1, (1,), (0, 99)), alone(replace(fewer, levels=model.levels), 1))


def test_guidance_away_from_the_network_without_blocks(models: dict[str, Model]):
    model = models["SD 3.5"]
    plain, weak = alone(model, 1), alone(model, 1, (0, 2))
    added = (plain - weak) * 2.5
    assert added.abs().max() > 0.1
    found = guided(skip_layers_sd3(model, "0, 2", 2.5, 0.0, 1.0))
    near(found, guided(model) + added)
    span = skip_layers_sd3(model, "0, 2", 2.5, 0.2, 0.5)
    highest, lowest = (sampling_of(model).percent_to_sigma(share) for share in (0.2, 0.5))
    for sigma, counts in ((highest + 1e-3, False), (highest, True), (lowest, True), (lowest - 1e-3, False)):
        assert torch.equal(guided(span, sigma), guided(model, sigma)) != counts


def test_its_contrast_is_taken_back_by_a_share(models: dict[str, Model]):
    model = models["Flux dev"]
    plain, weak = alone(model, 1), alone(model, 1, (1,), (0,))
    more = guided(model) + (plain - weak) * 3.0
    factor = plain.std((1, 2, 3), keepdim=True) / more.std((1, 2, 3), keepdim=True)
    found = guided(skip_layers(model, "1", "block 0", 3.0, 0.0, 1.0, 0.7))
    near(found, more * (0.7 * factor + 0.3))


def test_blocks_are_left_out_under_the_negative_prompt_alone(models: dict[str, Model]):
    model = models["Flux dev"]
    cond, uncond = alone(model, 1), alone(model, 2, (0,), (1,))
    changed = skip_layers_of_negative(model, "0", "1", 0.0, 1.0)
    near(guided(changed), uncond + CFG * (cond - uncond))
    assert torch.equal(guided(changed, cfg=1.0), guided(model, cfg=1.0))
    early = skip_layers_of_negative(model, "0", "1", 0.0, 0.01)
    assert torch.equal(guided(early), guided(model))


def test_nothing_to_leave_out_leaves_the_model_as_it_is(models: dict[str, Model]):
    model = models["SD 3.5"]
    assert skip_layers_sd3(model, "") == skip_layers(model, "", "") == skip_layers_of_negative(model, "", "") == model
    assert skip_layers(model, scale=0.0) == model
    assert torch.equal(guided(skip_layers(model, "", "7", 3.0, 0.0, 1.0)), guided(model))


def test_unets_have_no_such_blocks(models: dict[str, Model]):
    unet = replace(models["SD 3.5"], architecture="U-Net")
    for change in (skip_layers_sd3, skip_layers, skip_layers_of_negative):
        with pytest.raises(
            WrongArchitecture, match=r"is for diffusion transformers \(SD 3 and Flux\), but .* is a U-Net"
        ):
            change(unet)
