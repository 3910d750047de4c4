"""Pictures resized, cropped, turned, padded and joined."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.describe import node_info
from nodes import batches, image_transforms, images, transparency
from nodes.maths import transforms
from nodes.maths.resize import RESIZERS
from nodes.values import Image
from tests.running import Bench, any_image, any_mask

sides = st.integers(1, 9)


def test_the_choices_are_those_of_the_tables():
    assert get_args(image_transforms.Rotation) == tuple(transforms.ROTATIONS)
    assert get_args(get_args(image_transforms.FlipMethod)[0]) == tuple(transforms.FLIPPED_ROWS)
    assert get_args(get_args(image_transforms.Direction)[0]) == get_args(transforms.Direction)
    assert get_args(image_transforms.Colour) == tuple(transforms.COLOURS)
    for methods in (image_transforms.MaxDimensionMethod, image_transforms.PadMethod):
        assert set(get_args(methods)) == set(RESIZERS) - {"bislerp"}


def test_a_factor_scales_both_sides():
    assert image_transforms.scale_image_by(any_image(10, 5), "bilinear", 1.5).pixels.shape == (1, 8, 15, 3)


@pytest.mark.parametrize("size", [(64, 64), (200, 30), (7, 300)])
def test_a_number_of_pixels_keeps_the_proportions(size: tuple[int, int]):
    scaled = image_transforms.scale_to_total_pixels(any_image(*size), "area", 0.01).pixels
    height, width = scaled.shape[1:3]
    assert width * height == pytest.approx(0.01 * 1024 * 1024, rel=0.03)
    assert width / height == pytest.approx(size[0] / size[1], rel=0.06)


@pytest.mark.parametrize(("width", "height", "found"), [(64, 32, (40, 20)), (32, 64, (20, 40)), (8, 8, (40, 40))])
def test_the_longer_side_gets_its_length(width: int, height: int, found: tuple[int, int]):
    scaled = image_transforms.scale_to_max_dimension(any_image(width, height), "bicubic", 40).pixels
    assert (scaled.shape[2], scaled.shape[1]) == found


def test_a_longest_side_of_zero_leaves_the_picture_as_it_is():
    assert torch.equal(image_transforms.scale_to_max_dimension(any_image(), largest_size=0).pixels, any_image().pixels)


def test_what_was_pasted_can_be_cut_out_again(tmp_path: Path):
    with WorkflowBuilder() as workflow:
        pasted = images.composite_images(any_image(20, 15), any_image(6, 4, seed=1), x=9, y=3)
        image_transforms.crop_image(pasted, width=6, height=4, x=9, y=3)
    found = Bench.below(tmp_path, images, image_transforms).last(workflow)
    assert torch.equal(found.pixels, any_image(6, 4, seed=1).pixels)


def test_a_crop_beyond_the_end_is_the_last_pixel():
    found = image_transforms.crop_image(any_image(), 5, 5, x=100, y=6).pixels
    assert torch.equal(found, any_image().pixels[:, 6:, 7:])


@settings(max_examples=20, deadline=None)
@given(sides, sides, st.sampled_from(get_args(get_args(image_transforms.FlipMethod)[0])))
def test_flipping_twice_is_the_identity(width: int, height: int, method: transforms.FlipMethod):
    image = any_image(width, height)
    once = image_transforms.flip_image(image, method)
    assert torch.equal(image_transforms.flip_image(once, method).pixels, image.pixels)
    assert torch.equal(once.pixels.sum((1, 2)).round(decimals=3), image.pixels.sum((1, 2)).round(decimals=3))


@settings(max_examples=20, deadline=None)
@given(sides, sides)
def test_quarter_turns_add_up(width: int, height: int):
    def turned(image: Image, times: int) -> Tensor:
        for _ in range(times):
            image = image_transforms.rotate_image(image, "90 degrees")
        return image.pixels

    image = any_image(width, height)
    for times, name in enumerate(get_args(image_transforms.Rotation)):
        assert torch.equal(turned(image, times), image_transforms.rotate_image(image, name).pixels)
    assert torch.equal(turned(image, 4), image.pixels)


def test_a_quarter_turn_is_clockwise_and_the_x_axis_exchanges_top_and_bottom():
    corner = torch.zeros(1, 4, 6, 3)
    corner[:, 0, 0] = 1  # at the upper left
    assert image_transforms.rotate_image(Image(corner), "90 degrees").pixels[0, 0, 3, 0] == 1
    assert image_transforms.flip_image(Image(corner), "x-axis: vertically").pixels[0, 3, 0, 0] == 1
    assert image_transforms.flip_image(Image(corner), "y-axis: horizontally").pixels[0, 0, 5, 0] == 1


def test_a_picture_is_padded_to_a_size_in_its_middle():
    white = Image(torch.zeros(1, 4, 8, 3))
    found = image_transforms.resize_and_pad_image(white, 16, 13, "white", "nearest-exact").pixels[0, :, :, 0]
    assert found.shape == (13, 16)
    assert torch.equal((found == 0).all(dim=1).nonzero().flatten(), torch.arange(2, 10))


def test_pictures_are_put_side_by_side_with_a_bar_between():
    first, second = any_image(), any_image(4, 8, seed=1)
    joined = image_transforms.stitch_images(first, "right", True, 3, "red", second).pixels
    assert joined.shape == (1, 8, 8 + 4 + 4, 3)
    assert torch.equal(joined[:, :, :8], first.pixels)
    assert (joined[:, :, 8:12] == torch.tensor([1.0, 0, 0])).all()
    below = image_transforms.stitch_images(first, "up", True, 0, "white", first).pixels
    assert torch.equal(below[:, 8:], first.pixels) and below.shape == (1, 16, 8, 3)


@pytest.mark.parametrize(("direction", "shape"), [("left", (3, 8, 16, 4)), ("down", (3, 12, 8, 4))])
def test_joined_pictures_of_other_size_batch_and_channels(direction: transforms.Direction, shape: tuple[int, ...]):
    second = transparency.join_image_with_alpha(any_image(2, 2, batch=3), any_mask(2, 2))
    joined = image_transforms.stitch_images(any_image(batch=2), direction, True, 0, "white", second)
    if direction == "down":
        second = image_transforms.stitch_images(any_image(batch=2), "down", False, 2, "green", second)
        assert second.pixels.shape == shape
        assert torch.equal(second.pixels[2, :8, :, :3], any_image(batch=2).pixels[1])
    else:
        assert joined.pixels.shape == shape


def test_one_picture_alone_is_not_joined():
    assert torch.equal(image_transforms.stitch_images(any_image()).pixels, any_image().pixels)


def test_empty_pictures_have_the_colour_and_size_asked_for():
    image = images.empty_image(3, 2, 4, 0xFF8000)
    assert images.image_size(image) == (3, 2, 4)
    torch.testing.assert_close(image.pixels[3, 1, 2], torch.tensor([1.0, 128 / 255, 0.0]))


def test_what_follows_a_size_is_not_done_again_when_only_the_picture_changes(tmp_path: Path):
    bench = Bench.below(tmp_path, images)
    for seed, ran in ((0, ["AnyImage", "GetImageSize", "EmptyImage"]), (1, ["AnyImage", "GetImageSize"])):
        with WorkflowBuilder() as workflow:
            images.empty_image(width=images.image_size(any_image(seed=seed)).width)
        assert bench.run_last(workflow).ran == ran


def test_a_batch_of_opaque_and_transparent_pictures_is_transparent():
    transparent = transparency.join_image_with_alpha(any_image(), any_mask())
    for batch in (
        images.batch_images(any_image(), transparent),
        batches.image_list_to_batch([any_image(), transparent]),
    ):
        assert batch.pixels.shape == (2, 8, 8, 4) and batch.pixels[0, :, :, 3].eq(1).all()


def test_a_colour_is_offered_as_a_colour(tmp_path: Path):
    info = node_info(images.empty_image, Bench.below(tmp_path).folders)["input"]["required"]["color"][1]
    assert (info["display"], info["max"]) == ("color", 0xFFFFFF)
