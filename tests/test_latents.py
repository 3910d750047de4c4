from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.catalogue import Catalogue
from graph.describe import node_info
from graph.node import node
from nodes import checkpoints, images, latents
from nodes.maths.resize import RESIZERS
from nodes.models import ModelPool
from nodes.values import Latent, SamplerState, Vae, Weights
from tests.running import Bench, any_image, any_latent, any_mask
from tests.tiny_models import write_vae


class BlockVae(ModelPool):
    """In place of networks: a latent pixel is the mean of its block of eight by eight, and three channels of grey."""

    def encode_pixels(self, vae: Vae, pixels: Tensor) -> Tensor:
        means = F.avg_pool2d(pixels, vae.factor)
        return torch.cat((means, means.mean(1, keepdim=True)), dim=1)

    def decode_latent(self, vae: Vae, samples: Tensor) -> Tensor:
        return F.interpolate(samples[:, :3], scale_factor=float(vae.factor))


@node("AnyVae")
def any_vae(channels: int = 4) -> Vae:
    """A reference to no file."""
    return Vae(Weights(Path(), "none", "blocks"), latent_channels=channels)


@node("HalfDone")
def half_done() -> Latent:
    """A latent that sampling has left half-way, with a mask."""
    x = torch.ones(1, 4, 8, 8)
    return Latent(x, torch.ones(1, 1, 8, 8), (3,), SamplerState(x, 1.0, "euler", 0, "none"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench.below(tmp_path, images, latents)
    return replace(bench, catalogue=bench.catalogue | Catalogue((any_vae, half_done)), services={ModelPool: BlockVae()})


def test_the_choices_are_those_of_the_tables():
    assert set(get_args(latents.UpscaleMethod)) == set(RESIZERS) - {"lanczos"}


def test_an_empty_latent_has_an_eighth_of_the_pictures_sides(bench: Bench):
    with WorkflowBuilder() as workflow:
        latents.empty_latent(width=72, height=20, batch_size=3)
    samples = bench.last(workflow).samples
    assert samples.shape == (3, 4, 2, 9) and not samples.any()


def test_decoding_gives_pictures_within_their_range(bench: Bench):
    with WorkflowBuilder() as workflow:
        latents.decode(any_latent(width=3, height=2, batch=2), any_vae())
    pixels = bench.last(workflow).pixels
    assert pixels.shape == (2, 16, 24, 3)
    assert (pixels.min(), pixels.max()) == (0, 1)
    expected = ((any_latent(width=3, height=2, batch=2).samples[:, 0, 0, 0] + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(pixels[:, 0, 0, 0], expected)


def test_encoding_takes_the_middle_in_whole_latent_pixels(bench: Bench):
    with WorkflowBuilder() as workflow:
        latents.encode(any_image(width=21, height=16), any_vae())
    latent = bench.last(workflow)
    block = any_image(width=21, height=16).pixels[0, :8, 2:10, 0]
    assert latent.samples.shape == (1, 4, 2, 2)
    torch.testing.assert_close(latent.samples[0, 0, 0, 0], block.mean() * 2 - 1)


def test_a_picture_survives_encoding_and_decoding(bench: Bench):
    with WorkflowBuilder() as workflow:
        grey = images.scale_image(any_image(width=1, height=1), width=24, height=16)
        latents.decode(latents.encode(grey, any_vae()), any_vae())
    expected = any_image(width=1, height=1).pixels.expand(1, 16, 24, 3)
    torch.testing.assert_close(bench.last(workflow).pixels, expected)


def test_a_network_encodes_and_decodes_a_batch(tmp_path: Path):
    bench = Bench.below(tmp_path, checkpoints, latents)
    bench.services[ModelPool] = ModelPool("fp32")
    write_vae(bench.folders.models("vae") / "tiny")
    with WorkflowBuilder() as workflow:
        vae = checkpoints.load_vae("tiny")
        latents.decode(latents.encode(any_image(width=20, height=35, batch=2), vae), vae)
    pixels = bench.last(workflow).pixels
    assert pixels.shape == (2, 32, 16, 3)
    assert pixels.min() >= 0 and pixels.max() <= 1 and not pixels.requires_grad


def test_inpainting_blanks_the_masked_area_before_encoding(bench: Bench):
    with WorkflowBuilder() as workflow:
        latents.encode_for_inpainting(any_image(width=20, height=17), any_vae(), any_mask(width=3, height=50))
    latent = bench.last(workflow)
    assert latent.samples.shape == (1, 4, 2, 2)
    assert latent.noise_mask.shape == (1, 1, 16, 16)
    assert set(latent.noise_mask.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("inpaint", [False, True])
def test_a_picture_smaller_than_a_latent_pixel_is_refused_with_advice(bench: Bench, inpaint: bool):
    with WorkflowBuilder() as workflow:
        if inpaint:
            latents.encode_for_inpainting(any_image(width=30, height=7), any_vae(), any_mask())
        else:
            latents.encode(any_image(width=30, height=7), any_vae())
    failure = str(bench.run_last(workflow).failure)
    assert "is 30x7, but one latent pixel" in failure and "ImageScale" in failure


def test_a_latent_of_another_kind_of_vae_is_refused_with_advice(bench: Bench):
    with WorkflowBuilder() as workflow:
        latents.decode(any_latent(channels=16), any_vae())
    failure = bench.run_last(workflow).failure
    assert str(failure).startswith("node 3 (VAEDecode) failed: the VAE 'blocks' decodes latents of 4")
    assert isinstance(failure.__cause__, ValueError)


@pytest.mark.parametrize("combine", ["composite", "blend", "mask"])
def test_latents_of_different_kinds_are_not_mixed(bench: Bench, combine: str):
    with WorkflowBuilder() as workflow:
        first, second = any_latent(), any_latent(channels=16)
        match combine:
            case "composite":
                latents.composite_latents(first, second)
            case "blend":
                latents.blend_latents(first, second)
            case _:
                latents.blend_latents_by_mask(first, second, any_mask())
    assert "one latent has 4 channels and the other 16" in str(bench.run_last(workflow).failure)


def test_a_noise_mask_keeps_its_size_and_its_softness(bench: Bench):
    with WorkflowBuilder() as workflow:
        latents.set_noise_mask(any_latent(), any_mask(width=64, height=48, batch=2))
    latent = bench.last(workflow)
    assert torch.equal(latent.noise_mask, any_mask(width=64, height=48, batch=2).values[:, None])
    assert torch.equal(latent.samples, any_latent().samples) and latent.batch_index == (10,)


@pytest.mark.parametrize("method", get_args(latents.UpscaleMethod))
def test_a_latent_is_resized_to_a_size_in_pixels_of_the_picture(bench: Bench, method: latents.UpscaleMethod):
    with WorkflowBuilder() as workflow:
        latents.upscale_latent(any_latent(batch=2), upscale_method=method, width=120, height=88)
    latent = bench.last(workflow)
    assert latent.samples.shape == (2, 4, 11, 15)
    assert latent.batch_index == (10, 11)


def test_both_sides_zero_leave_a_latent_as_it_is(bench: Bench):
    with WorkflowBuilder() as workflow:
        latents.upscale_latent(half_done(), width=0, height=0)
    assert bench.last(workflow).unfinished is not None


def test_a_latent_is_laid_over_another_in_pixels_of_the_picture(bench: Bench):
    with WorkflowBuilder() as workflow:
        latents.composite_latents(any_latent(), any_latent(seed=1), x=32, y=8, feather=0)
    samples = bench.last(workflow).samples
    first, second = any_latent().samples, any_latent(seed=1).samples
    assert torch.equal(samples[..., 1:, 4:], second[..., :7, :4])
    assert torch.equal(samples[..., 0, :], first[..., 0, :])


@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0])
def test_the_blend_factor_is_the_share_of_the_first(bench: Bench, factor: float):
    with WorkflowBuilder() as workflow:
        latents.blend_latents(any_latent(), any_latent(seed=1), blend_factor=factor)
    expected = any_latent().samples * factor + any_latent(seed=1).samples * (1 - factor)
    torch.testing.assert_close(bench.last(workflow).samples, expected)


def test_a_mask_of_any_size_mixes_two_latents(bench: Bench):
    with WorkflowBuilder() as workflow:
        latents.blend_latents_by_mask(any_latent(), any_latent(width=5, seed=1), any_mask(width=70, height=3))
    assert bench.last(workflow).samples.shape == (1, 4, 8, 8)


def test_samples_of_a_batch_that_has_grown_have_no_place_in_a_larger_one(bench: Bench):
    with WorkflowBuilder() as workflow:
        latents.blend_latents(any_latent(), any_latent(batch=3))
    latent = bench.last(workflow)
    assert latent.samples.shape[0] == 3 and latent.batch_index is None


def changes() -> list[Latent]:
    return [
        latents.set_noise_mask(half_done(), any_mask()),
        latents.upscale_latent(half_done()),
        latents.composite_latents(half_done(), any_latent()),
        latents.blend_latents(half_done(), any_latent()),
        latents.blend_latents_by_mask(half_done(), any_latent(), any_mask()),
    ]


def test_a_changed_latent_is_not_gone_on_with_where_sampling_stopped():
    for latent in changes():
        assert latent.unfinished is None
        assert latent.batch_index == (3,)
        assert latent.noise_mask is not None


def test_limits_and_steps_are_the_catalogues(bench: Bench):
    info = node_info(latents.empty_latent, bench.folders)["input"]["required"]
    sides = {
        name: {key: info[name][1][key] for key in ("default", "min", "max", "step")} for name in ("width", "height")
    }
    assert sides == dict.fromkeys(("width", "height"), {"default": 512, "min": 16, "max": 16384, "step": 8})
    info = node_info(latents.encode_for_inpainting, bench.folders)["input"]["required"]
    assert list(info) == ["pixels", "vae", "mask", "grow_mask_by"]


def test_a_second_run_reuses_everything(bench: Bench):
    with WorkflowBuilder() as workflow:
        latents.decode(latents.encode(any_image(), any_vae()), any_vae())
    first, second = bench.run_last(workflow), bench.run_last(workflow)
    assert first.ran == ["AnyImage", "AnyVae", "VAEEncode", "VAEDecode"]
    assert (second.ran, second.reused) == ([], ["VAEDecode"])
