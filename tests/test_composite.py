import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.maths.composite import (
    batch_pictures,
    blend_by_mask,
    blend_latents,
    blend_pictures_by_mask,
    paste,
    paste_latent,
    paste_picture,
)

offsets = st.integers(-12, 12)
sides = st.integers(1, 9)
batches = st.integers(1, 3)


@settings(max_examples=60, deadline=None)
@given(sides, sides, batches, sides, sides, batches, offsets, offsets, st.booleans(), st.booleans())
def test_pasting_keeps_size_and_batch_at_any_offset(
    h: int, w: int, n: int, h2: int, w2: int, n2: int, x: int, y: int, masked: bool, resize: bool
):
    destination = torch.rand(n, 4, h, w)
    before = destination.clone()
    mask = torch.rand(n2, 5, 5) if masked else None
    result = paste(destination, torch.rand(n2, 4, h2, w2), x, y, mask, resize)
    assert result.shape == destination.shape
    assert torch.equal(destination, before)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_pasted_latents_keep_the_size(h: int, w: int, h2: int, w2: int, x: int, y: int, feather: int):
    result = paste_latent(torch.zeros(2, 4, h, w), torch.ones(1, 4, h2, w2), x, y, feather)
    assert result.shape == (2, 4, h, w)
    assert 0.0 <= float(result.min()) <= float(result.max()) <= 1.0


def test_parts_outside_are_cut_off():
    source = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    assert torch.equal(paste(torch.zeros(1, 1, 2, 2), source, -1, -2)[0, 0], torch.Tensor([[8, 9], [0, 0]]))
    assert torch.equal(paste(torch.zeros(1, 1, 2, 2), source, 1, 1)[0, 0], torch.Tensor([[0, 0], [0, 1]]))
    assert torch.equal(paste(torch.zeros(1, 1, 2, 2), source, 5, -9)[0, 0], torch.Tensor([[0, 0], [0, 0]]))


def test_a_mask_is_fitted_to_the_source_before_it_is_cut():
    mask = torch.tensor([[[0.0, 1.0]]])
    result = paste(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4), 2, 0, mask)
    assert torch.equal(result[0, 0, 0], torch.Tensor([0, 0, 0.0, 0.25]))


def test_a_small_source_can_be_stretched_over_the_picture():
    result = paste_picture(torch.zeros(2, 4, 6, 3), torch.ones(1, 1, 1, 3), 0, 0, resize_source=True)
    assert torch.equal(result, torch.ones(2, 4, 6, 3))


def test_latents_fade_on_the_sides_inside_the_picture_only():
    result = paste_latent(torch.zeros(1, 1, 6, 8), torch.ones(1, 1, 6, 6), 2, 0, feather=2)
    assert torch.equal(result[0, 0, 0], torch.Tensor([0, 0, 0.5, 1, 1, 1, 1, 1]))
    assert torch.equal(result, result[:, :, :1].expand(-1, -1, 6, -1))


def test_latents_without_feather_are_replaced():
    result = paste_latent(torch.zeros(2, 4, 6, 6), torch.ones(1, 4, 3, 3), 1, 2)
    assert result.sum() == 2 * 4 * 9
    assert torch.equal(result[:, :, 2:5, 1:4], torch.ones(2, 4, 3, 3))


def test_a_blend_factor_of_one_gives_the_first():
    first, second = torch.rand(1, 4, 6, 6), torch.rand(1, 4, 3, 9)
    assert torch.equal(blend_latents(first, second, 1.0), first)
    assert blend_latents(first, second.repeat(2, 1, 1, 1), 0.25).shape == (2, 4, 6, 6)
    torch.testing.assert_close(blend_latents(first, first * 2, 0.25), first * 1.75)


def test_a_mask_blends_from_the_first_to_the_second():
    first, second = torch.zeros(1, 4, 2, 4), torch.ones(2, 4, 2, 4)
    blended = blend_by_mask(first, second, torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]))
    assert blended.shape == (2, 4, 2, 4)
    assert torch.equal(blended[1, 0, 0], torch.Tensor([0, 0, 1, 1]))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_blend_through_a_mask_fits_everything_to_the_first(batch: int):
    blended = blend_pictures_by_mask(torch.rand(1, 8, 6, 3), torch.rand(1, 5, 9, 3), torch.rand(batch, 3, 2))
    assert blended.shape == (batch, 8, 6, 3)
    assert 0.0 <= float(blended.min()) <= float(blended.max()) <= 1.0


def test_batching_fits_the_second_to_the_first():
    assert batch_pictures(torch.rand(2, 4, 6, 3), torch.rand(1, 9, 3, 3)).shape == (3, 4, 6, 3)
    first, second = torch.rand(1, 2, 2, 3), torch.rand(1, 2, 2, 3)
    assert torch.equal(batch_pictures(first, second), torch.cat((first, second)))
