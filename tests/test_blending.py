"""Blend modes and Porter and Duff, by their definitions."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.builder import WorkflowBuilder
from nodes import image_filters, loading, masks, saving, transparency
from nodes.maths import blending
from nodes.maths.blending import BlendMode, PorterDuffMode
from nodes.values import Image, Mask, ShapeError
from tests.running import Bench, any_image, any_mask

shares = st.floats(0, 1, width=32)


def one_pixel(*channels: float) -> Image:
    return Image(torch.tensor(channels).expand(1, 1, 1, 3).clone())


def one_mask(value: float) -> Mask:
    return Mask(torch.full((1, 1, 1), value))


def test_the_choices_are_those_of_the_tables():
    assert get_args(transparency.Mode) == tuple(blending.PORTER_DUFF)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("normal", [0.8, 0.2, 0.5]),
        ("multiply", [0.16, 0.16, 0.45]),
        ("screen", [0.84, 0.84, 0.95]),
        ("overlay", [0.32, 0.68, 0.9]),
        ("soft_light", [0.2 + 0.6 * (((16 * 0.2 - 12) * 0.2 + 4) * 0.2 - 0.2), 0.8 - 0.6 * 0.8 * 0.2, 0.9]),
        ("difference", [0.0, 0.6, 0.4]),
    ],
)
def test_blend_modes(mode: BlendMode, expected: list[float]):
    found = image_filters.blend_images(one_pixel(0.2, 0.8, 0.9), one_pixel(0.8, 0.2, 0.5), 1.0, mode)
    torch.testing.assert_close(found.pixels.flatten(), torch.tensor(expected))


@settings(max_examples=30, deadline=None)
@given(shares, shares, shares, st.sampled_from(sorted(blending.BLEND_MODES)))
def test_blending_stays_in_range_and_a_factor_of_zero_changes_nothing(a: float, b: float, f: float, mode: BlendMode):
    first, second = one_pixel(a, a, a), one_pixel(b, b, b)
    assert 0 <= image_filters.blend_images(first, second, f, mode).pixels.min() <= 1
    assert torch.equal(image_filters.blend_images(first, second, 0.0, mode).pixels, first.pixels)


def test_pictures_of_other_sizes_and_batches_are_blended():
    found = image_filters.blend_images(any_image(batch=2), any_image(width=30, height=9, batch=3), 0.5, "screen")
    assert found.pixels.shape == (3, 8, 8, 3)


# What lies where: in the source alone, in the destination alone, in both (as for opaque layers with partial cover).
REGIONS: dict[PorterDuffMode, tuple[bool, bool, str]] = {
    "CLEAR": (False, False, ""),
    "SRC": (True, False, "s"),
    "DST": (False, True, "d"),
    "SRC_OVER": (True, True, "s"),
    "DST_OVER": (True, True, "d"),
    "SRC_IN": (False, False, "s"),
    "DST_IN": (False, False, "d"),
    "SRC_OUT": (True, False, ""),
    "DST_OUT": (False, True, ""),
    "SRC_ATOP": (False, True, "s"),
    "DST_ATOP": (True, False, "d"),
    "XOR": (True, True, ""),
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(REGIONS)), shares, shares, shares, shares)
def test_porter_and_duffs_modes_are_areas_that_are_kept(mode: PorterDuffMode, s: float, d: float, sa: float, da: float):
    """The paper's argument: independent coverage splits a pixel into four parts, and a mode says what each shows."""
    alone, under, both = REGIONS[mode]
    parts = [
        (sa * (1 - da) * alone, s),
        (da * (1 - sa) * under, d),
        (sa * da * (both != ""), s if both == "s" else d),
    ]
    opacity = sum(area for area, _ in parts)
    image, mask = transparency.composite_porter_duff(
        one_pixel(s, s, s), one_mask(1 - sa), one_pixel(d, d, d), one_mask(1 - da), mode
    )
    assert float(mask.values) == pytest.approx(1 - opacity, abs=1e-6)
    if opacity > 1e-3:
        colour = sum(area * shade for area, shade in parts) / opacity
        assert float(image.pixels[0, 0, 0, 0]) == pytest.approx(colour, abs=1e-3)


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("ADD", 1.0), ("DARKEN", 0.3), ("LIGHTEN", 0.8), ("MULTIPLY", 0.24), ("SCREEN", 0.86), ("OVERLAY", 0.48)],
)
def test_the_other_modes_on_opaque_pictures(mode: PorterDuffMode, colour: float):
    image, mask = transparency.composite_porter_duff(
        one_pixel(0.8, 0.8, 0.8), one_mask(0), one_pixel(0.3, 0.3, 0.3), one_mask(0), mode
    )
    torch.testing.assert_close(image.pixels, one_pixel(colour, colour, colour).pixels)
    assert float(mask.values) == 0


def test_layers_of_other_sizes_take_that_of_the_destination():
    image, mask = transparency.composite_porter_duff(
        any_image(20, 11, batch=3), any_mask(5, 5, batch=4), any_image(batch=2), any_mask(9, 7, batch=2), "SRC_OVER"
    )
    assert image.pixels.shape == (2, 8, 8, 3) and mask.values.shape == (2, 8, 8)


def test_transparency_is_put_on_and_taken_off_again(tmp_path: Path):
    with WorkflowBuilder() as workflow:
        transparency.split_image_with_alpha(transparency.join_image_with_alpha(any_image(), any_mask(batch=2)))
    image, mask = Bench.below(tmp_path, transparency).last(workflow)
    assert torch.equal(image.pixels, any_image().pixels.repeat(2, 1, 1, 1))
    torch.testing.assert_close(mask.values, any_mask(batch=2).values)


def test_an_opaque_picture_has_an_empty_mask():
    assert not transparency.split_image_with_alpha(any_image()).MASK.values.any()


def test_the_alpha_of_a_transparent_picture_is_opacity():
    joined = transparency.join_image_with_alpha(any_image(), any_mask())
    torch.testing.assert_close(masks.image_to_mask(joined, "alpha").values, 1 - any_mask().values)


def test_two_channels_are_no_picture():
    with pytest.raises(ShapeError, match="3 \\(or 4 with alpha\\)"):
        Image(torch.zeros(1, 2, 2, 2))


def test_a_saved_transparent_picture_is_transparent_when_it_is_loaded(tmp_path: Path):
    with WorkflowBuilder() as workflow:
        saving.save_image(transparency.join_image_with_alpha(any_image(), any_mask()))
    bench = Bench.below(tmp_path, loading, saving, transparency)
    bench.run(workflow).result.checked()
    with WorkflowBuilder() as workflow:
        loading.load_output("ComfyUI_00001_.png [output]")
    image, mask = bench.last(workflow)
    torch.testing.assert_close(image.pixels, any_image().pixels, atol=1 / 255, rtol=0)
    torch.testing.assert_close(mask.values, any_mask().values, atol=1 / 255, rtol=0)
