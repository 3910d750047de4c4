"""Latents cropped, turned, mixed, repeated and batched."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graph.builder import WorkflowBuilder
from nodes import batches, latent_transforms, latents
from nodes.maths.composite import interpolate
from nodes.values import Latent
from tests.running import Bench, any_image, any_latent, any_mask


def test_what_was_pasted_into_a_latent_can_be_cut_out_again(tmp_path: Path):
    with WorkflowBuilder() as workflow:
        pasted = latent_transforms.composite_latents_masked(any_latent(20, 16), any_latent(8, 8, seed=1), x=48, y=24)
        latent_transforms.crop_latent(pasted, width=64, height=64, x=48, y=24)
    found = Bench.below(tmp_path, latents, latent_transforms).last(workflow)
    assert torch.equal(found.samples, any_latent(8, 8, seed=1).samples)


def test_the_corner_of_a_crop_stays_eight_latent_pixels_within():
    found = latent_transforms.crop_latent(any_latent(20, 16), 512, 512, x=16000, y=0)
    assert torch.equal(found.samples, any_latent(20, 16).samples[..., 12:])


def test_only_what_is_under_the_mask_is_pasted():
    half = replace(any_mask(), values=torch.tensor([[[1.0, 1.0, 0.0, 0.0]]]))
    found = latent_transforms.composite_latents_masked(any_latent(), any_latent(seed=1), mask=half)
    assert torch.equal(found.samples[..., 0], any_latent(seed=1).samples[..., 0])
    assert torch.equal(found.samples[..., 7], any_latent().samples[..., 7])


def test_a_factor_scales_a_latent():
    found = latent_transforms.upscale_latent_by(any_latent(10, 6), "bislerp", 1.25)
    assert found.samples.shape == (1, 4, 8, 12)


def test_turning_and_mirroring_undo_themselves():
    latent = any_latent(5, 3, batch=2)
    turned = latent_transforms.rotate_latent(latent_transforms.rotate_latent(latent, "90 degrees"), "270 degrees")
    assert torch.equal(turned.samples, latent.samples) and turned.batch_index == (10, 11)
    for method in ("x-axis: vertically", "y-axis: horizontally"):
        twice = latent_transforms.flip_latent(latent_transforms.flip_latent(latent, method), method)
        assert torch.equal(twice.samples, latent.samples)


def test_what_was_added_can_be_subtracted_again():
    one, other = any_latent(batch=2), any_latent(5, 9, seed=1)
    summed = latent_transforms.add_latents(one, other)
    torch.testing.assert_close(latent_transforms.subtract_latents(summed, other).samples, one.samples)
    assert torch.equal(latent_transforms.multiply_latent(one, -2).samples, one.samples * -2)


def length(samples: Tensor) -> Tensor:
    return samples.square().sum(1).sqrt()


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1, width=32))
def test_interpolation_keeps_lengths_between(ratio: float):
    first, second = any_latent().samples, 3 * any_latent(seed=1).samples
    mixed = latent_transforms.interpolate_latents(Latent(first), Latent(second), ratio).samples
    lengths = ratio * length(first) + (1 - ratio) * length(second)
    torch.testing.assert_close(length(mixed), lengths)


def test_interpolating_between_parallel_latents_is_linear_and_zeros_have_no_direction():
    latent = any_latent().samples
    torch.testing.assert_close(interpolate(latent, latent * 3, 0.5), latent * 2)
    torch.testing.assert_close(interpolate(torch.zeros_like(latent), latent, 0.25), latent * 0.75)


def test_latents_of_different_kinds_are_not_added():
    with pytest.raises(latents.UnlikeLatents, match="one latent has 4 channels and the other 16"):
        latent_transforms.add_latents(any_latent(), any_latent(channels=16))


def test_sixteen_channels_for_newer_models():
    assert latents.empty_sd3_latent(64, 32, 2).samples.shape == (2, 16, 4, 8)


def test_copies_of_a_batch_get_noise_of_their_own():
    repeated = batches.repeat_latents(replace(any_latent(batch=2), noise_mask=torch.rand(2, 1, 4, 4)), 3)
    assert repeated.batch_index == (10, 11, 12, 13, 14, 15)
    assert repeated.samples.shape == (6, 4, 8, 8) and repeated.noise_mask is not None
    assert torch.equal(repeated.noise_mask[4:], repeated.noise_mask[:2])


def test_two_latents_in_one_batch_keep_their_places_and_the_first_ones_size():
    plain = replace(any_latent(batch=2), batch_index=None)
    joined = batches.batch_latents(plain, any_latent(5, 6, batch=2, seed=1))
    assert joined.samples.shape == (4, 4, 8, 8) and joined.batch_index == (0, 1, 10, 11)


def test_a_batch_with_fixed_noise_has_the_place_of_its_first():
    fixed = batches.choose_batch_noise(any_latent(batch=3), "fixed")
    assert fixed.batch_index == (10, 10, 10)
    assert batches.choose_batch_noise(fixed, "random").batch_index is None


def test_pictures_are_repeated(tmp_path: Path):
    with WorkflowBuilder() as workflow:
        batches.repeat_images(any_image(batch=2), amount=2)
    pixels = Bench.below(tmp_path, batches).last(workflow).pixels
    assert torch.equal(pixels[2:], pixels[:2]) and pixels.shape[0] == 4


def test_what_was_joined_can_be_cut_apart_again():
    first, second = any_latent(5, 6, batch=2), any_latent(3, 6, seed=1)
    joined = latent_transforms.join_latents(first, second, "-x")
    assert joined.samples.shape == (2, 4, 6, 8)
    assert torch.equal(latent_transforms.cut_latent(joined, "x", 0, 3).samples[1:], second.samples)
    assert torch.equal(latent_transforms.cut_latent(joined, "x", -5, 100).samples, first.samples)
    assert latent_transforms.cut_latent(joined, "y", 100, 2).samples.shape == (2, 4, 1, 8)


def test_latents_that_do_not_fit_side_by_side_are_refused():
    with pytest.raises(ValueError, match="one is 48 pixels in height and the other 40; make them alike"):
        latent_transforms.join_latents(any_latent(5, 6), any_latent(5, 5), "x")
    with pytest.raises(ValueError, match="no axis t; choose x or y"):
        latent_transforms.cut_latent(any_latent(), "t")
