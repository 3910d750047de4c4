"""Filters against scipy, pillow and their definitions."""

from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from scipy import ndimage
from torch import Tensor

from nodes import image_filters
from nodes.maths import blending, filters
from nodes.maths.edges import canny, sobel
from nodes.maths.filters import Dither, Morphology
from nodes.values import Image
from tests.running import any_image


def noise(height: int = 12, width: int = 17, batch: int = 2, channels: int = 3) -> Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(height * width))


def test_the_choices_are_those_of_the_tables():
    assert get_args(image_filters.BlendMode) == tuple(blending.BLEND_MODES)
    assert get_args(image_filters.Operation) == tuple(filters.MORPHOLOGY)
    assert get_args(image_filters.Dither) == get_args(Dither)


@pytest.mark.parametrize(("radius", "sigma"), [(1, 1.0), (3, 0.3), (31, 10.0)])
def test_a_blur_is_a_convolution_with_a_bell_measured_in_radii(radius: int, sigma: float):
    steps = np.linspace(-1, 1, 2 * radius + 1)
    bell = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * sigma**2))
    kernel = (bell / bell.sum())[None, :, :, None]
    # scipy's mirror is torch's reflect: about the middle of the last pixel.
    expected = cast(Any, ndimage).convolve(noise().double().numpy(), kernel, mode="mirror")
    found = image_filters.blur_image(Image(noise()), radius, sigma).pixels
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


def test_a_picture_of_one_pixel_can_be_blurred():
    pixels = noise(1, 1)
    torch.testing.assert_close(filters.blur(pixels, 3, 1.0), pixels)


def test_sharpening_adds_what_a_blur_takes_away():
    pixels = noise() * 0.1 + 0.4
    found = image_filters.sharpen_image(Image(pixels), sharpen_radius=2, sigma=0.5, alpha=0.1).pixels
    torch.testing.assert_close(found, 2 * pixels - filters.blur(pixels, 2, 0.5))
    assert image_filters.sharpen_image(Image(noise()), alpha=5.0).pixels.max() == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 9), st.sampled_from(sorted(filters.MORPHOLOGY)))
def test_morphology_is_scipys(size: int, operation: Morphology):
    plane = noise(9, 8, 1, 1)[0, :, :, 0].numpy()
    found = image_filters.change_shapes(
        Image(torch.as_tensor(plane)[None, :, :, None].repeat(1, 1, 1, 3)), operation, size
    )
    start = size - size // 2

    def extreme(source: np.ndarray, least: bool) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(source, size, constant_values=np.nan), (size, size))
        seen = windows[start : start + 9, start : start + 8]
        return (np.nanmin if least else np.nanmax)(seen, axis=(2, 3))

    eroded, dilated = extreme(plane, True), extreme(plane, False)
    expected = {
        "erode": eroded,
        "dilate": dilated,
        "open": extreme(eroded, False),
        "close": extreme(dilated, True),
        "gradient": dilated - eroded,
        "top_hat": plane - extreme(eroded, False),
        "bottom_hat": extreme(dilated, True) - plane,
    }
    np.testing.assert_array_equal(found.pixels[0, :, :, 1].numpy(), expected[operation])


def test_noise_is_that_of_the_seed_and_cut_off():
    grey = Image(torch.full((1, 64, 64, 3), 0.5))
    found = image_filters.add_noise_to_image(grey, seed=7, strength=0.1).pixels
    drawn = torch.randn(1, 64, 64, 3, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(found, (0.5 + 0.1 * drawn).clamp(0, 1))
    assert image_filters.add_noise_to_image(grey, seed=7, strength=1.0).pixels.min() == 0


@pytest.mark.parametrize("dither", get_args(Dither))
def test_a_quantized_picture_has_so_many_colours_at_most(dither: Dither):
    ramp = torch.linspace(0, 1, 64).expand(1, 32, 64).unsqueeze(-1).repeat(1, 1, 1, 3)
    found = image_filters.quantize_image(Image(ramp), colors=4, dither=dither).pixels
    assert len(np.unique(found.reshape(-1, 3).numpy(), axis=0)) <= 4
    columns = found.mean((0, 1, 3))
    # Without dithering there are steps; with it the mean follows the ramp more closely.
    assert (len(np.unique(columns.numpy())) <= 4) == (dither == "none")


def test_quantizing_without_dithering_is_pillows():
    eighths = Pillow.fromarray((noise(16, 16, 1)[0] * 255).to(torch.uint8).numpy())
    expected = np.asarray(eighths.quantize(16, dither=Pillow.Dither.NONE).convert("RGB"))
    found = image_filters.quantize_image(Image(noise(16, 16, 1)), colors=16).pixels
    distance = np.abs(found[0].numpy() * 255 - expected).max(axis=-1)
    assert (distance < 0.5).mean() > 0.9  # the second pass maps to the nearest colour, the first by its boxes


def test_bayers_matrix_has_every_level_once():
    levels = np.sort(filters.bayer(8).flatten()) * 64
    np.testing.assert_allclose(levels, np.arange(64) - 31.5)


def test_the_gradient_of_a_ramp_is_its_slope():
    ramp = (torch.arange(9.0)[:, None] * 3 + torch.arange(7.0) * 2)[None, None]
    across, down = sobel(ramp)
    assert across[..., 1:-1, 1:-1].eq(16).all() and down[..., 1:-1, 1:-1].eq(24).all()


def test_the_edge_of_a_disc_is_one_closed_thin_line():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    distance = ((x - 31.3) ** 2 + (y - 30.6) ** 2).sqrt()
    edges = image_filters.find_edges(Image((20.5 - distance).clamp(0, 1)[None, :, :, None].repeat(1, 1, 1, 3))).pixels
    line = edges[0, :, :, 0].bool()
    assert np.unique(edges.numpy()).tolist() == [0, 1] and (distance[line] - 20).abs().max() < 1.5
    assert cast(Any, ndimage).label(line.numpy(), np.ones((3, 3)))[1] == 1
    assert cast(Any, ndimage).label(~line.numpy())[1] == 2  # inside and outside are apart
    assert line.sum() < 1.3 * 2 * torch.pi * 20


def test_a_weak_edge_counts_only_where_it_goes_on_from_a_strong_one():
    pixels = torch.zeros(1, 40, 40, 1)
    pixels[:, :, 20:] = torch.linspace(0.15, 1, 40)[:, None, None]  # weak above, strong below
    lone = torch.zeros(1, 40, 40, 1)
    lone[:, :, 20:] = 0.2
    both = canny(torch.cat((pixels, lone)).repeat(1, 1, 1, 3), 0.3, 2.0)
    assert both[0, 0, 5:, 19:21].sum() >= 35
    assert both[1].sum() == 0


def test_thresholds_the_wrong_way_round_are_refused_with_advice():
    with pytest.raises(ValueError, match="low_threshold is 0.8 and high_threshold 0.4.*exchange them"):
        image_filters.find_edges(any_image(), 0.8, 0.4)


def test_brightness_and_colour_are_taken_apart_and_put_together():
    steps = (noise() * 255).round()
    y, u, v = image_filters.split_brightness(Image(steps / 255))
    expected = np.asarray(Pillow.fromarray(steps[0].to(torch.uint8).numpy()).convert("YCbCr")) / 255
    found = torch.stack([part.pixels[0, :, :, 0] for part in (y, u, v)], dim=-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1.01 / 255)
    torch.testing.assert_close(image_filters.join_brightness(y, u, v).pixels, steps / 255, atol=0.5 / 255, rtol=0)
