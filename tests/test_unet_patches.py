"""Patches of the U-Net: as the formulas and diffusers have them, and in nobody else's way."""

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.denoiser import guided_denoiser, sampling_of
from nodes.engine import Engine
from nodes.latents import empty_latent
from nodes.maths.guidance import guide
from nodes.maths.hidden_features import blurred_where_attended, free_u, merged_tokens, tile_count
from nodes.models import ModelPool
from nodes.network_patches import IdentityAttention, NetworkPatch, RecordedAttention
from nodes.patched_attention import recorded
from nodes.patched_network import patched
from nodes.sampling import ksampler
from nodes.text import encode_text
from nodes.unet_patches import (
    downscale,
    free_u_2,
    hyper_tile,
    merge_tokens,
    patched_by,
    perturbed_attention,
    self_attention,
)
from nodes.unet_patches import free_u as free_u_node
from nodes.values import Conditioning, Latent, Model, Prompt, Weights
from tests import tiny_models

pytestmark = pytest.mark.usefixtures("packed_as_large_ones")

MODEL = Model(Weights(Path("none"), "toy", "toy"))
X, CONTEXT = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1)), torch.ones(2, 3, 8)
TIME = torch.tensor(500)


def made(layers: int = 1, depth: int = 1) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    tiny_models.seed(3)
    unet: Any = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16, 32),
        layers_per_block=layers,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        transformer_layers_per_block=depth,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return unet.eval().requires_grad_(False)


UNET = made()


def run(unet: Any, x: Tensor = X) -> Tensor:
    return unet(x, TIME, CONTEXT, return_dict=False)[0]


def under(*nodes: Callable[[Model], Model], unet: Any = UNET) -> Any:
    model = MODEL
    for add in nodes:
        model = add(model)
    return patched(unet, model.network_patches)


PATCHES: dict[str, Callable[[Model], Model]] = {
    "FreeU": free_u_node,
    "FreeU_V2": free_u_2,
    "HyperTile": lambda model: hyper_tile(model, tile_size=64, swap_size=4),
    "TomePatchModel": merge_tokens,
    "PatchModelAddDownscale": lambda model: downscale(model, block_number=2),
    "identity": lambda model: patched_by(model, IdentityAttention()),
}


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_changes_the_view_and_leaves_the_network_as_it_was(name: str):
    before = run(UNET)
    view = under(PATCHES[name])
    assert not torch.allclose(run(view), before)
    assert torch.equal(run(UNET), before)
    assert {id(weight) for weight in view.parameters()} == {id(weight) for weight in UNET.parameters()}


def test_patches_work_together_whatever_chance_says():
    first = run(under(*PATCHES.values()))
    tiny_models.seed(99)
    assert torch.equal(run(under(*PATCHES.values())), first) and first.shape == X.shape and first.isfinite().all()


def test_free_u_is_that_of_diffusers_by_width(monkeypatch: pytest.MonkeyPatch):
    """diffusers goes by the number of the block, the original by how wide the backbone is."""
    from diffusers.models.unets import unet_2d_blocks
    from diffusers.utils import torch_utils

    apply_freeu = cast(Any, torch_utils).apply_freeu

    def by_width(index: int, hidden: Tensor, skip: Tensor, **factors: float) -> tuple[Tensor, Tensor]:
        return apply_freeu({32: 0, 16: 1}.get(hidden.shape[1], 2), hidden.clone(), skip, **factors)

    monkeypatch.setattr(unet_2d_blocks, "apply_freeu", by_width)
    theirs = deepcopy(UNET)
    theirs.enable_freeu(s1=0.9, s2=0.2, b1=1.1, b2=1.2)
    torch.testing.assert_close(run(under(free_u_node)), run(theirs))


def test_the_second_free_u_strengthens_by_what_is_going_on():
    hidden, skip = torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    hidden[0, :, 0] = torch.tensor([1.0, 2.0])
    hidden[0, :, 1] = torch.tensor([2.0, 3.0])
    scaled = free_u(hidden, skip, 1.5, 1.0, by_mean=True)[0]
    torch.testing.assert_close(scaled[0, 0], torch.tensor([[1.0, 2.5], [2.5, 4.5]]))
    assert torch.equal(scaled[:, 2:], hidden[:, 2:])


def test_perturbed_attention_is_that_of_diffusers():
    from diffusers.models.attention_processor import PAGIdentitySelfAttnProcessor2_0

    theirs = deepcopy(UNET)
    theirs.mid_block.attentions[0].transformer_blocks[0].attn1.processor = PAGIdentitySelfAttnProcessor2_0()
    doubled = theirs(torch.cat([X, X]), TIME, torch.cat([CONTEXT, CONTEXT]), return_dict=False)[0]
    torch.testing.assert_close(doubled[:2], run(UNET))
    torch.testing.assert_close(run(under(PATCHES["identity"])), doubled[2:])


def first_attention(unet: Any) -> Any:
    return unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1


def test_tiled_attention_is_that_of_every_tile_alone():
    view = under(lambda model: hyper_tile(model, tile_size=64))
    run(view)
    grid = torch.randn(1, 16, 16, 8, generator=torch.Generator().manual_seed(2))
    found = first_attention(view)(grid.flatten(1, 2)).reshape(1, 16, 16, 8)
    for rows in (slice(8), slice(8, 16)):
        for columns in (slice(8), slice(8, 16)):
            alone = first_attention(UNET)(grid[:, rows, columns].flatten(1, 2))
            torch.testing.assert_close(found[:, rows, columns].flatten(1, 2), alone)


def test_tiles_divide_the_length_and_change_with_layer_and_step():
    assert tile_count(96, 32, 1, "") == 3 and tile_count(50, 32, 2, "") == 1 and tile_count(8, 32, 2, "") == 1
    assert {tile_count(96, 16, 2, str(at)) for at in range(9)} == {6}
    assert {tile_count(96, 16, 4, str(at)) for at in range(30)} == {6, 4, 3}


def test_merged_tokens_are_averages_and_stand_for_all_of_them_afterwards():
    tokens = torch.randn(1, 16, 3, generator=torch.Generator().manual_seed(4))
    assert torch.equal(whole(tokens, 0.0), tokens)
    most = merged_tokens(tokens, 4, 4, 1.0, 7).tokens
    assert most.shape == (1, 4, 3)
    counts = [((whole(tokens, 1.0) - token).abs().sum(-1) < 1e-6).sum() for token in most[0]]
    assert sum(counts) == 16
    torch.testing.assert_close(
        sum(token * count for token, count in zip(most[0], counts, strict=True)), tokens[0].sum(0), rtol=1e-4, atol=1e-4
    )


def whole(tokens: Tensor, ratio: float) -> Tensor:
    merged = merged_tokens(tokens, 4, 4, ratio, 7)
    return merged.unmerge(merged.tokens)


def test_merging_tokens_that_are_alike_changes_nothing():
    view, even = under(lambda model: merge_tokens(model, 0.5)), torch.ones(2, 4, 16, 16)
    run(view, even)
    tokens = torch.ones(2, 256, 8)
    torch.testing.assert_close(first_attention(view)(tokens), first_attention(UNET)(tokens))


@pytest.mark.parametrize("after_skip", [True, False])
@pytest.mark.parametrize("block", range(1, 9))
def test_the_network_works_at_a_lower_resolution_from_a_block_on(block: int, after_skip: bool):
    view = under(lambda model: downscale(model, block, downscale_after_skip=after_skip), unet=made(layers=2))
    seen: list[list[int]] = []

    def look(module: torch.nn.Module, args: object, output: Tensor) -> None:
        seen.append([*output.shape[-2:]])

    view.mid_block.register_forward_hook(look)
    assert run(view).shape == X.shape
    assert seen == [[2, 2]]


def test_a_block_beyond_the_last_or_a_factor_of_one_changes_nothing():
    for block, factor in ((32, 2.0), (2, 1.0)):
        view = under(lambda model, block=block, factor=factor: downscale(model, block, factor))
        torch.testing.assert_close(run(view), run(UNET))


def test_a_patch_counts_for_its_share_of_the_sampling(pool: ModelPool, tiny: Model):
    def at(model: Model, timestep: float) -> Tensor:
        sigma = sampling_of(model).sigma(timestep)
        return guided_denoiser(pool, model, prompt(0), None, 1.0, 2)(X * sigma, sigma)

    late = downscale(tiny, 1, start_percent=0.5, end_percent=0.75)
    assert torch.equal(at(late, 700.0), at(tiny, 700.0)) and torch.equal(at(late, 100.0), at(tiny, 100.0))
    assert not torch.allclose(at(late, 400.0), at(tiny, 400.0))


def test_a_blur_where_the_places_look_is_that_of_diffusers():
    from diffusers.pipelines.deprecated.stable_diffusion_sag import pipeline_stable_diffusion_sag

    attention = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(5)).softmax(-1)
    wide = X[..., :8, :]
    places = (attention.sum(1) > 1.0).reshape(2, 1, 2, 4).repeat_interleave(4, 2).repeat_interleave(4, 3).float()
    blurred = cast(Any, pipeline_stable_diffusion_sag).gaussian_blur_2d(wide, kernel_size=9, sigma=2.0)
    expected = blurred * places + wide * (1 - places)
    torch.testing.assert_close(blurred_where_attended(wide, attention, 2.0), expected)
    assert torch.equal(blurred_where_attended(wide, attention, 0.0), wide)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny_models.write_checkpoint(folder / "models" / "checkpoints" / "tiny")
    return folder


@pytest.fixture
def pool() -> ModelPool:
    return ModelPool("fp32", "cpu")


@pytest.fixture
def tiny(folder: Path) -> Model:
    with WorkflowBuilder() as workflow:
        load_checkpoint(ckpt_name="tiny")
    result = Engine(Folders.below(folder)).run(workflow, targets=["1"]).checked()
    model = result.outputs["1"][0]
    assert isinstance(model, Model)
    return model


def prompt(number: int) -> Conditioning:
    tokens = torch.randn(1, 3, tiny_models.WIDTH, generator=torch.Generator().manual_seed(number))
    return Conditioning((Prompt(tokens),))


def predicted(pool: ModelPool, model: Model, scale: float = 4.0, x: Tensor = X) -> Tensor:
    return guided_denoiser(pool, model, prompt(0), prompt(1), scale, 2)(x, 1.5)


def test_perturbed_attention_guides_away_from_the_perturbed_prediction(pool: ModelPool, tiny: Model):
    cond, lost = predicted(pool, tiny, 1.0), predicted(pool, patched_by(tiny, IdentityAttention()), 1.0)
    torch.testing.assert_close(
        predicted(pool, perturbed_attention(tiny, 3.0)),
        predicted(pool, tiny) + 3.0 * (cond - lost),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("scale", [4.0, 1.0])
def test_self_attention_guides_away_from_a_blurred_picture(pool: ModelPool, tiny: Model, scale: float):
    """With the attention that diffusers' processor stores under the negative prompt."""
    from diffusers.pipelines.deprecated.stable_diffusion_sag import pipeline_stable_diffusion_sag

    store = cast(Any, pipeline_stable_diffusion_sag).CrossAttnStoreProcessor()
    alone = ModelPool("fp32", "cpu")
    module: Any = alone.unet(tiny)
    module.mid_block.attentions[0].transformer_blocks[0].attn1.processor = store

    def negative(x: Tensor) -> Tensor:
        return guided_denoiser(alone, tiny, prompt(1), None, 1.0, 2)(x, 1.5)

    uncond = negative(X)
    attention = store.attention_probs.unflatten(0, (2, -1)).mean(1)
    degraded = blurred_where_attended(uncond, attention, 2.0)
    again = negative(degraded + X - uncond)
    expected = guide(predicted(pool, tiny, 1.0), uncond, scale) + 0.5 * (degraded - again)
    found = predicted(pool, self_attention(tiny, 0.5, 2.0), scale)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_of_several_layers_in_the_middle_the_first_is_recorded():
    """As in diffusers' pipeline, which goes by what this processor stores."""
    from diffusers.pipelines.deprecated.stable_diffusion_sag import pipeline_stable_diffusion_sag

    store = cast(Any, pipeline_stable_diffusion_sag).CrossAttnStoreProcessor()
    network = made(depth=2)
    theirs = deepcopy(network)
    theirs.mid_block.attentions[0].transformer_blocks[0].attn1.processor = store
    theirs(X, TIME, CONTEXT)
    with recorded() as maps:
        patched(network, [RecordedAttention()])(X, TIME, CONTEXT)
    torch.testing.assert_close(maps, [store.attention_probs.unflatten(0, (2, -1)).mean(1)], rtol=1e-4, atol=1e-6)


def test_what_is_too_small_to_be_blurred_is_left_alone(pool: ModelPool, tiny: Model):
    small = X[..., :4, :4]
    assert torch.equal(predicted(pool, self_attention(tiny), x=small), predicted(pool, tiny, x=small))


def test_two_at_once_do_not_see_each_others_patches(pool: ModelPool, tiny: Model):
    models = [tiny, self_attention(tiny), perturbed_attention(hyper_tile(tiny, 32, 2, 1)), free_u_2(downscale(tiny, 1))]
    alone = [predicted(pool, model) for model in models]
    with ThreadPoolExecutor(4) as threads:
        together = [threads.submit(predicted, pool, model) for _ in range(5) for model in models]
    for at, future in enumerate(together):
        assert torch.equal(future.result(), alone[at % len(models)])
    assert len(pool.resident) == 1


def test_patches_are_part_of_the_identity_of_every_step(folder: Path):
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint(ckpt_name="tiny")
        shared: Any = {
            "steps": 2,
            "positive": encode_text(text="the blue cat", clip=clip),
            "negative": encode_text(text="dog", clip=clip),
            "latent_image": empty_latent(width=64, height=64),
        }
        patches: list[Any] = [
            model,
            free_u_node(model=model),
            perturbed_attention(model=model),
            self_attention(model=model),
            self_attention(model=free_u_2(model=model)),
        ]
        latents: list[Any] = [ksampler(model=each, **shared) for each in patches]
    targets = [each.step for each in latents]
    outputs = Engine(Folders.below(folder), precision="fp32").run(workflow, targets=targets).checked().outputs
    samples = [cast(Latent, outputs[target][0]).samples for target in targets]
    assert len({each.sum().item() for each in samples}) == len(samples)


def test_a_view_is_made_once_and_goes_with_its_network():
    unet = made()
    gone, view = weakref.ref(unet), weakref.ref(under(free_u_node, unet=unet))
    assert under(free_u_node, unet=unet) is view()
    del unet
    gc.collect()
    assert gone() is None and view() is None


def test_a_network_of_another_kind_is_refused_with_its_blocks():
    class Odd(torch.nn.Module):
        pass

    odd = deepcopy(UNET)
    odd.up_blocks[1] = Odd()
    patches: tuple[NetworkPatch, ...] = free_u_node(MODEL).network_patches
    with pytest.raises(ValueError, match="this one has Odd"):
        patched(odd, patches)
