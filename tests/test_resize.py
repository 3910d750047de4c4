import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.maths.resize import (
    RESIZERS,
    Crop,
    Method,
    common_upscale,
    fill_in_size,
    fit_batch,
    resize_mask,
    resize_picture,
    upscale_latent,
)

sides = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from(sorted(RESIZERS)), st.sampled_from(["disabled", "center"]))
def test_every_method_gives_the_size_asked_for(w: int, h: int, width: int, height: int, method: Method, crop: Crop):
    resized = common_upscale(torch.rand(2, 3, h, w), width, height, method, crop)
    assert resized.shape == (2, 3, height, width)
    assert bool(resized.isfinite().all())


@pytest.mark.parametrize("method", ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"])
def test_the_same_size_keeps_every_value(method: Method):
    samples = torch.randn(1, 4, 5, 6)
    torch.testing.assert_close(common_upscale(samples, 6, 5, method), samples)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_shrinking_is_not_antialiased(method: Method):
    stripes = torch.tensor([0.0, 0.0, 1.0, 1.0] * 4).expand(1, 1, 16, 16)
    resized = common_upscale(stripes, 4, 4, method)
    assert torch.equal(resized, F.interpolate(stripes, size=(4, 4), mode=method, antialias=False))


def test_lanczos_passes_through_truncated_bytes():
    half = torch.full((1, 3, 4, 4), 0.5)
    assert torch.equal(common_upscale(half, 4, 4, "lanczos"), torch.full((1, 3, 4, 4), 127 / 255))


def test_center_crop_rounds_half_to_even():
    row = torch.arange(7.0).expand(1, 1, 2, 7)
    # 7 wide, 2 kept: a margin of 2.5 rounds to 2, so three columns are squeezed into two.
    assert torch.equal(common_upscale(row, 2, 2, "nearest-exact", "center")[0, 0, 0], torch.Tensor([2.0, 4.0]))


def test_center_crop_cuts_the_taller_axis():
    column = torch.arange(8.0).reshape(1, 1, 8, 1).expand(1, 1, 8, 4)
    assert torch.equal(common_upscale(column, 4, 4, "area", "center")[0, 0, :, 0], torch.Tensor([2.0, 3.0, 4.0, 5.0]))


def test_bislerp_turns_directions_and_keeps_lengths():
    samples = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
    resized = common_upscale(samples, 6, 1, "bislerp")
    place = torch.tensor([0.0, 0.0, 1 / 3, 2 / 3, 1.0, 1.0])
    torch.testing.assert_close(resized.square().sum(1).flatten(), torch.ones(6))
    torch.testing.assert_close(torch.atan2(resized[0, 1, 0], resized[0, 0, 0]), place * torch.pi / 2)


def test_bislerp_survives_zero_equal_and_opposite_vectors():
    samples = torch.tensor([[0.0, 1.0, 1.0, -1.0, 0.0]]).reshape(1, 1, 1, 5)
    assert bool(common_upscale(samples, 13, 3, "bislerp").isfinite().all())


def test_a_side_of_zero_follows_the_proportions():
    assert fill_in_size(0, 100, 300, 200) == (150, 100)
    assert fill_in_size(30, 0, 300, 200) == (30, 20)
    assert fill_in_size(0, 0, 300, 200) == (300, 200)
    assert fill_in_size(1, 0, 300, 2) == (1, 1)


def test_latents_are_at_least_eight_by_eight():
    samples = torch.rand(1, 4, 16, 16)
    assert upscale_latent(samples, 8, 0, "bilinear").shape == (1, 4, 8, 8)
    assert upscale_latent(samples, 200, 100, "area", "center").shape == (1, 4, 12, 25)
    assert upscale_latent(samples, 0, 0, "bislerp") is samples


def test_pictures_keep_their_channels_last():
    assert resize_picture(torch.rand(2, 4, 6, 3), 9, 5, "bicubic").shape == (2, 5, 9, 3)


def test_masks_of_any_rank_become_planes():
    assert resize_mask(torch.rand(4, 6), 3, 2).shape == (1, 1, 2, 3)
    assert resize_mask(torch.rand(5, 1, 4, 6), 3, 2).shape == (5, 1, 2, 3)


def test_batches_repeat_from_the_start():
    pair = torch.tensor([[1.0], [2.0]])
    assert torch.equal(fit_batch(pair, 5).flatten(), torch.Tensor([1, 2, 1, 2, 1]))
    assert torch.equal(fit_batch(pair, 1).flatten(), torch.Tensor([1]))
