from pathlib import Path
from typing import get_args

import pytest
import torch

from graph.builder import WorkflowBuilder
from nodes import images
from nodes.maths.resize import RESIZERS
from nodes.maths.resize import Crop as AnyCrop
from tests.running import Bench, any_image, any_mask


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench.below(tmp_path, images)


def test_the_choices_are_those_of_the_tables():
    assert set(get_args(images.UpscaleMethod)) == set(RESIZERS) - {"bislerp"}
    assert get_args(get_args(images.Crop)[0]) == get_args(AnyCrop)


@pytest.mark.parametrize(
    ("width", "height", "shape"), [(4, 6, (6, 4)), (0, 5, (5, 10)), (20, 0, (10, 20)), (0, 0, (8, 16))]
)
def test_a_side_of_zero_follows_the_proportions(bench: Bench, width: int, height: int, shape: tuple[int, int]):
    with WorkflowBuilder() as workflow:
        images.scale_image(any_image(width=16), width=width, height=height)
    assert bench.last(workflow).pixels.shape == (1, *shape, 3)


@pytest.mark.parametrize("method", get_args(images.UpscaleMethod))
def test_every_method_resizes(bench: Bench, method: images.UpscaleMethod):
    with WorkflowBuilder() as workflow:
        images.scale_image(any_image(batch=2), upscale_method=method, width=12, height=5, crop="center")
    assert bench.last(workflow).pixels.shape == (2, 5, 12, 3)


def test_inverting_twice_gives_the_picture_back(bench: Bench):
    with WorkflowBuilder() as workflow:
        images.invert_image(images.invert_image(any_image()))
    torch.testing.assert_close(bench.last(workflow).pixels, any_image().pixels)


def test_a_batch_takes_the_size_of_its_first_picture(bench: Bench):
    with WorkflowBuilder() as workflow:
        images.batch_images(any_image(batch=2), any_image(width=30, height=9))
    assert bench.last(workflow).pixels.shape == (3, 8, 8, 3)


def test_a_canvas_grows_around_the_picture_with_a_mask_of_what_is_new(bench: Bench):
    with WorkflowBuilder() as workflow:
        images.pad_for_outpainting(any_image(), left=8, bottom=16, feathering=0)
    canvas, mask = bench.last(workflow)
    assert torch.equal(canvas.pixels[:, :8, 8:], any_image().pixels)
    assert canvas.pixels[:, 8:].eq(0.5).all()
    assert mask.values.shape == (1, 24, 16) and mask.values.sum() == 24 * 16 - 64


def test_only_the_masked_part_of_a_picture_is_pasted(bench: Bench):
    with WorkflowBuilder() as workflow:
        images.composite_images(any_image(), any_image(seed=1), x=4, mask=any_mask(width=30, height=20))
    pixels = bench.last(workflow).pixels
    assert pixels.shape == (1, 8, 8, 3)
    assert torch.equal(pixels[:, :, :4], any_image().pixels[:, :, :4])
    assert not torch.equal(pixels, any_image().pixels)


def test_without_a_mask_the_whole_picture_is_pasted(bench: Bench):
    with WorkflowBuilder() as workflow:
        images.composite_images(any_image(), any_image(width=20, height=3, seed=1), resize_source=True)
    assert bench.last(workflow).pixels.shape == (1, 8, 8, 3)


def test_a_mask_of_another_size_and_batch_mixes_two_pictures(bench: Bench):
    with WorkflowBuilder() as workflow:
        images.blend_images_by_mask(
            any_image(batch=2), any_image(width=11, seed=1), any_mask(width=3, height=50, batch=3)
        )
    pixels = bench.last(workflow).pixels
    assert pixels.shape == (3, 8, 8, 3)
    assert pixels.min() >= 0 and pixels.max() <= 1


def test_a_sheet_has_a_line_of_text_below_each_picture(bench: Bench):
    with WorkflowBuilder() as workflow:
        images.contact_sheet(any_image(width=64, height=64, batch=4), captions="one\ntwo", columns=4, padding=2)
    with WorkflowBuilder() as bare:
        images.contact_sheet(any_image(width=64, height=64, batch=4), columns=4, padding=2)
    sheet, plain = bench.last(workflow).pixels, bench.last(bare).pixels
    assert plain.shape == (1, 68, 4 * 64 + 5 * 2, 3)
    assert sheet.shape[1] > plain.shape[1]


def test_an_unknown_colour_is_one_failure_that_names_it(bench: Bench):
    with WorkflowBuilder() as workflow:
        images.contact_sheet(any_image(), background="nonesuch")
    assert "node 2 (ContactSheet) failed" in str(bench.run_last(workflow).failure)
    assert "nonesuch" in str(bench.run_last(workflow).failure)


def test_a_second_run_reuses_everything(bench: Bench):
    with WorkflowBuilder() as workflow:
        images.invert_image(images.scale_image(any_image(), width=3, height=3))
    assert bench.run_last(workflow).ran == ["AnyImage", "ImageScale", "ImageInvert"]
    again = bench.run_last(workflow)
    assert (again.ran, again.reused) == ([], ["ImageInvert"])
