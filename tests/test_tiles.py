"""Tiles: against the whole, for functions of a pixel, convolutions, changes of size, and the nodes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.catalogue import Catalogue
from graph.node import node
from nodes import latents, tiled_vae, transparency
from nodes.maths.tiles import in_three_tilings, in_tiles, tiles
from nodes.models import ModelPool
from nodes.values import Vae, Weights
from tests.running import Bench, any_image, any_latent, any_mask


def planes(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height + width))


def upscaled(tile: Tensor) -> Tensor:
    return F.interpolate(tile, scale_factor=2.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 20), st.integers(0, 3))
def test_a_function_of_single_pixels_is_the_same_in_tiles(height: int, width: int, side: int, overlap: int):
    whole = planes(height, width, batch=2)
    found = in_tiles(lambda tile: upscaled(tile.square()), whole, (side, side + 2), overlap)
    torch.testing.assert_close(found, upscaled(whole.square()))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(4, 20))
def test_a_reduction_is_the_same_in_tiles_of_whole_blocks(rows: int, columns: int, side: int):
    whole = planes(rows * 8, columns * 8)
    found = in_three_tilings(lambda tile: F.avg_pool2d(tile, 8), whole, side // 2 * 16, 8)
    torch.testing.assert_close(found, F.avg_pool2d(whole, 8))


def test_every_tile_is_counted():
    told: list[tuple[int, int]] = []
    in_three_tilings(upscaled, planes(40, 100), 32, 8, lambda done, total: told.append((done, total)))
    count = sum(tiles(40, 100, shape, 8) for shape in ((64, 16), (16, 64), (32, 32)))
    assert told == [(done, count) for done in range(1, count + 1)] and count == 1 * 12 + 4 * 2 + 2 * 4


def test_a_convolution_is_the_same_but_near_the_seams():
    kernel = torch.rand(3, 3, 5, 5, generator=torch.Generator().manual_seed(1)) / 75

    def convolved(tile: Tensor) -> Tensor:
        return F.conv2d(tile, kernel, padding=2)

    whole = planes(96, 96)
    apart = (in_tiles(convolved, whole, (48, 48), 16) - convolved(whole)).abs().amax((0, 1))
    spans = [(0, 48), (32, 80), (64, 96)]
    # A tile is wrong in the two pixels within its own edges, which are not the picture's.
    near = {at for start, end in spans for at in (start, start + 1, end - 2, end - 1)} - {0, 1, 94, 95}
    far = [at for at in range(96) if at not in near]
    assert apart[far][:, far].max() < 1e-6
    # There the neighbouring tile, which is right, has the greater share.
    untiled_edge = (F.pad(convolved(whole[..., :48]), (0, 0)) - convolved(whole)[..., :48]).abs().max()
    assert 0 < apart.max() < 0.2 * untiled_edge


def test_three_tilings_leave_less_of_a_seam_than_one():
    kernel = torch.ones(3, 3, 5, 5) / 75

    def convolved(tile: Tensor) -> Tensor:
        return F.conv2d(tile, kernel, padding=2)

    whole = planes(128, 128)
    one = (in_tiles(convolved, whole, (32, 32), 8) - convolved(whole)).abs()
    three = (in_three_tilings(convolved, whole, 32, 8) - convolved(whole)).abs()
    assert three.max() < one.max()


class BlockVae(ModelPool):
    """In place of networks that look beyond a block: eight by eight pixels are one latent pixel, their mean."""

    def encode_pixels(self, vae: Vae, pixels: Tensor) -> Tensor:
        means = F.avg_pool2d(pixels, vae.factor)
        return torch.cat((means, means.mean(1, keepdim=True)), dim=1)

    def decode_latent(self, vae: Vae, samples: Tensor) -> Tensor:
        return F.interpolate(samples[:, :3], scale_factor=float(vae.factor))


@node("AnyVae")
def any_vae(channels: int = 4) -> Vae:
    """A reference to no file."""
    return Vae(Weights(Path(), "none", "blocks"), latent_channels=channels)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench.below(tmp_path, latents, tiled_vae, transparency)
    return replace(bench, catalogue=bench.catalogue | Catalogue([any_vae]), services={ModelPool: BlockVae()})


@pytest.mark.parametrize("tile_size", [64, 72, 96])
def test_pictures_and_latents_are_the_same_tiled(bench: Bench, tile_size: int):
    with WorkflowBuilder() as workflow:
        encoded = tiled_vae.encode_tiled(any_image(210, 130, batch=2), any_vae(), tile_size, overlap=16)
        tiled_vae.decode_tiled(encoded, any_vae(), tile_size, overlap=16)
    with WorkflowBuilder() as plain:
        latents.decode(latents.encode(any_image(210, 130, batch=2), any_vae()), any_vae())
    found = bench.last(workflow).pixels
    assert found.shape == (2, 128, 208, 3)
    torch.testing.assert_close(found, bench.last(plain).pixels)


def test_each_tile_is_told(bench: Bench):
    with WorkflowBuilder() as workflow:
        tiled_vae.decode_tiled(any_latent(16, 16), any_vae(), 64, 0)
    assert bench.run_last(workflow).progress == [(done, 12) for done in range(1, 13)]


def test_latents_of_another_kind_are_refused_tiled_too(bench: Bench):
    with WorkflowBuilder() as workflow:
        tiled_vae.decode_tiled(any_latent(channels=16), any_vae())
    assert "decodes latents of 4 channels, but this one has 16" in str(bench.run_last(workflow).failure)


def test_a_picture_smaller_than_a_latent_pixel_is_refused_tiled_too(bench: Bench):
    with WorkflowBuilder() as workflow:
        tiled_vae.encode_tiled(any_image(30, 7), any_vae())
    assert "is 30x7, but one latent pixel" in str(bench.run_last(workflow).failure)


@pytest.mark.parametrize("encode", [latents.encode, tiled_vae.encode_tiled])
def test_transparency_is_no_part_of_a_latent(bench: Bench, encode: Any):
    with WorkflowBuilder() as workflow:
        encode(transparency.join_image_with_alpha(any_image(16, 16), any_mask(3, 3)), any_vae())
    with WorkflowBuilder() as opaque:
        encode(any_image(16, 16), any_vae())
    assert torch.equal(bench.last(workflow).samples, bench.last(opaque).samples)
