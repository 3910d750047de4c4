from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nodes.maths import masks
from nodes.maths.masks import Operation

offsets = st.integers(-12, 12)
sides = st.integers(1, 9)


@pytest.mark.parametrize("expand", [3, 1, 0, -2, 500, -500])
@pytest.mark.parametrize("tapered", [True, False])
def test_growing_is_grey_dilation_and_erosion(expand: int, tapered: bool):
    mask = torch.rand(2, 7, 11, generator=torch.Generator().manual_seed(expand + 1000))
    corner = 0 if tapered else 1
    footprint = np.array([[corner, 1, corner], [1, 1, 1], [corner, 1, corner]])
    step: Any = ndimage.grey_dilation if expand > 0 else ndimage.grey_erosion
    expected = [plane.numpy() for plane in mask]
    for _ in range(abs(expand)):
        expected = [step(plane, footprint=footprint) for plane in expected]
    assert torch.equal(masks.grow(mask, expand, tapered), torch.as_tensor(np.stack(expected)))


def test_growing_a_point_makes_a_diamond_or_a_square():
    point = torch.zeros(7, 7)
    point[3, 3] = 1.0
    assert masks.grow(point, 2).sum() == 13
    assert masks.grow(point, 2, tapered_corners=False).sum() == 25


def test_feather_is_linear_on_the_left_and_shifted_by_one_on_the_right():
    ones = torch.ones(1, 1, 8)
    torch.testing.assert_close(masks.feather(ones, 4, 0, 0, 0).flatten(), torch.tensor([1, 2, 3, 4, 4, 4, 4, 4]) / 4)
    torch.testing.assert_close(masks.feather(ones, 0, 0, 4, 0).flatten(), torch.tensor([1, 4, 4, 4, 4, 4, 3, 2]) / 4)
    assert torch.equal(masks.feather(ones.mT, 0, 4, 0, 4), masks.feather(ones, 4, 0, 4, 0).mT)


@settings(max_examples=40, deadline=None)
@given(sides, sides, *[st.integers(0, 20)] * 4)
def test_feather_is_its_definition(height: int, width: int, left: int, top: int, right: int, bottom: int):
    mask = torch.rand(2, height, width)
    expected = mask.clone()
    for axis, size, sign in ((2, left, 1), (2, right, -1), (1, top, 1), (1, bottom, -1)):
        size = min(size, mask.shape[axis])
        for k in range(size):
            expected.select(axis, sign * k).mul_((k + 1) / size)
    torch.testing.assert_close(masks.feather(mask, left, top, right, bottom), expected)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, offsets, offsets, st.sampled_from(sorted(masks.OPERATIONS)))
def test_composites_keep_size_and_range_at_any_offset(
    h: int, w: int, h2: int, w2: int, x: int, y: int, operation: Operation
):
    destination = torch.rand(2, h, w)
    result = masks.composite(destination, torch.rand(h2, w2), x, y, operation)
    assert result.shape == destination.shape
    assert 0.0 <= float(result.min()) <= float(result.max()) <= 1.0


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("multiply", [0.0, 0.25, 0.6]),
        ("add", [0.6, 1.0, 1.0]),
        ("subtract", [0.0, 0.0, 0.4]),
        ("and", [0.0, 0.0, 1.0]),
        ("or", [1.0, 0.0, 1.0]),
        ("xor", [1.0, 0.0, 0.0]),
    ],
)
def test_mask_operations(operation: Operation, expected: list[float]):
    under, over = torch.tensor([[[0.0, 0.5, 1.0]]]), torch.tensor([[[0.6, 0.5, 0.6]]])
    torch.testing.assert_close(masks.composite(under, over, 0, 0, operation), torch.tensor([[expected]]))


def test_composites_leave_the_destination_alone():
    destination = torch.zeros(1, 4, 4)
    result = masks.composite(destination, torch.ones(1, 2, 2), 3, -1, "add")
    assert result.sum() == 1 and result[0, 0, 3] == 1
    assert destination.sum() == 0


@pytest.mark.parametrize("size", [1, 2, 3, 6, 64])
def test_the_inpainting_mask_is_a_convolution_with_ones(size: int):
    mask = torch.zeros(1, 24, 16)
    mask[0, 10:12, 7:9] = 1.0
    padding = -(-(size - 1) // 2)
    touched = F.conv2d(mask[None], torch.ones(1, 1, size, size), padding=padding).clamp(0, 1)[..., :24, :16]
    assert torch.equal(masks.prepare_inpainting(torch.rand(1, 24, 16, 3), mask, size).noise_mask, touched.round())


def test_an_even_inpainting_window_reaches_further_up_and_left():
    mask = torch.zeros(1, 16, 16)
    mask[0, 8, 8] = 1.0
    rows = masks.prepare_inpainting(torch.rand(1, 16, 16, 3), mask, 6).noise_mask[0, 0, :, 8].nonzero().flatten()
    assert torch.equal(rows, torch.tensor([6, 7, 8, 9, 10, 11]))


def test_inpainting_blanks_under_the_mask_only():
    pixels, mask = torch.rand(2, 16, 16, 3), torch.zeros(1, 16, 16)
    mask[:, :, 8:] = 0.7
    start = masks.prepare_inpainting(pixels, mask)
    torch.testing.assert_close(start.pixels[:, :, :8], pixels[:, :, :8])
    assert torch.equal(start.pixels[:, :, 8:], torch.full((2, 16, 8, 3), 0.5))


def test_inpainting_cuts_the_middle_out_and_resizes_the_mask():
    pixels = torch.arange(21.0).reshape(1, 1, 21, 1).expand(1, 11, 21, 3) / 21
    start = masks.prepare_inpainting(pixels, torch.zeros(5, 7), grow_mask_by=0)
    assert start.noise_mask.shape == (1, 1, 8, 16)
    torch.testing.assert_close(start.pixels, pixels[:, 1:9, 2:18])


@pytest.mark.parametrize("sides", [(8, 0, 0, 16), (0, 8, 8, 0), (8, 8, 8, 8), (0, 0, 0, 0)])
@pytest.mark.parametrize("feathering", [0, 3, 5, 40])
def test_outpainting_is_its_definition(sides: tuple[int, int, int, int], feathering: int):
    left, top, right, bottom = sides
    height, width, pixels = 12, 13, torch.rand(2, 12, 13, 3)
    padded, mask = masks.pad_for_outpainting(pixels, left, top, right, bottom, feathering)
    expected = torch.ones(1, height + top + bottom, width + left + right)
    inner = expected[0, top : top + height, left : left + width]
    for i in range(height):
        for j in range(width):
            edges = [(i, top, height), (height - i, bottom, height), (j, left, width), (width - j, right, width)]
            distance = min(steps if side else length for steps, side, length in edges)
            fits = 2 * feathering < min(height, width)
            inner[i, j] = ((feathering - distance) / feathering) ** 2 if fits and distance < feathering else 0.0
    assert torch.equal(mask, expected)
    assert torch.equal(padded[:, top : top + height, left : left + width], pixels)
    assert float(padded.sum() - pixels.sum()) == pytest.approx(0.5 * (padded.numel() - pixels.numel()), rel=1e-4)


def test_masks_and_pictures_turn_into_each_other():
    mask = torch.rand(2, 3, 4)
    assert torch.equal(masks.from_picture(masks.to_picture(mask), "green"), mask)
    assert masks.to_picture(mask[0]).shape == (1, 3, 4, 3)


def test_a_picture_without_alpha_says_so():
    with pytest.raises(ValueError, match="no alpha channel; choose one of red, green, blue"):
        masks.from_picture(torch.rand(1, 2, 2, 3), "alpha")


def test_solid_and_inverted_masks():
    assert torch.equal(masks.invert(masks.solid(0.25, 3, 2)), torch.full((1, 2, 3), 0.75))
