from pathlib import Path
from typing import get_args

import pytest
import torch

from graph.builder import WorkflowBuilder
from graph.describe import node_info
from nodes import masks
from nodes.maths import masks as maths
from nodes.values import Image, Mask
from tests.running import Bench, any_image, any_mask


def test_the_choices_are_those_of_the_tables():
    assert get_args(masks.Channel) == maths.CHANNELS
    assert set(get_args(masks.Operation)) == set(maths.OPERATIONS)


def test_a_mask_is_cut_out_of_another_and_grown(tmp_path: Path):
    with WorkflowBuilder() as workflow:
        hole = masks.invert_mask(masks.solid_mask(value=1.0, width=2, height=2))
        cut = masks.composite_masks(masks.solid_mask(width=6, height=6), hole, x=2, y=2)
        masks.grow_mask(cut, expand=-1)
    grown = Bench.below(tmp_path, masks).last(workflow)
    assert (grown.values[0] == 0).nonzero().tolist() == [
        *([1, x] for x in (2, 3)),
        *([y, x] for y in (2, 3) for x in (1, 2, 3, 4)),
        *([4, x] for x in (2, 3)),
    ]


def test_a_mask_fades_towards_its_edges(tmp_path: Path):
    with WorkflowBuilder() as workflow:
        masks.feather_mask(masks.solid_mask(width=4, height=1), left=2)
    assert Bench.below(tmp_path, masks).last(workflow).values.tolist() == [[[0.5, 1, 1, 1]]]


def test_a_mask_becomes_a_picture_and_a_mask_again(tmp_path: Path):
    with WorkflowBuilder() as workflow:
        mask = any_mask(width=5, height=3, batch=2)
        masks.image_to_mask(masks.mask_to_image(mask), channel="blue")
    bench = Bench.below(tmp_path, masks)
    assert torch.equal(bench.last(workflow).values, any_mask(width=5, height=3, batch=2).values)


def test_a_picture_without_alpha_is_refused_in_a_sentence(tmp_path: Path):
    with WorkflowBuilder() as workflow:
        masks.image_to_mask(any_image(), channel="alpha")
    outcome = Bench.below(tmp_path, masks).run_last(workflow)
    assert "no alpha channel; choose one of red, green, blue" in str(outcome.failure)


def test_masks_of_any_size_and_batch_can_be_combined(tmp_path: Path):
    with WorkflowBuilder() as workflow:
        masks.composite_masks(any_mask(width=9, batch=3), any_mask(width=20, height=2, batch=2), operation="xor", y=7)
    assert Bench.below(tmp_path, masks).last(workflow).values.shape == (3, 8, 9)


def test_limits_and_steps_are_the_catalogues(tmp_path: Path):
    bench = Bench.below(tmp_path, masks)
    info = node_info(masks.grow_mask, bench.folders)["input"]["required"]
    assert list(info) == ["mask", "expand", "tapered_corners"]
    assert info["expand"][1] | {"tooltip": ""} == {
        "default": 0,
        "min": -16384,
        "max": 16384,
        "step": 1,
        "tooltip": "",
    }
    info = node_info(masks.solid_mask, bench.folders)["input"]["required"]
    assert [info[name][1]["min"] for name in ("value", "width", "height")] == [0, 1, 1]


def test_a_mask_is_hardened_strictly_above_the_value():
    soft = Mask(torch.tensor([[[0.2, 0.5, 0.7]]]))
    assert torch.equal(masks.threshold_mask(soft, 0.5).values, torch.tensor([[[0.0, 0.0, 1.0]]]))


def test_a_part_of_a_mask_is_cut_out():
    found = masks.crop_mask(any_mask(9, 7), x=4, y=5, width=3, height=100)
    assert torch.equal(found.values, any_mask(9, 7).values[:, 5:, 4:7])


def test_a_part_outside_a_mask_is_refused_with_its_size():
    with pytest.raises(ValueError, match="the corner 9, 0 lies outside the mask, which is 9x7"):
        masks.crop_mask(any_mask(9, 7), x=9)


def test_exactly_one_colour_becomes_a_mask():
    colours = torch.tensor([[255, 128, 0], [255, 127, 0], [0, 128, 255]]) / 255
    found = masks.colour_to_mask(Image(colours.reshape(1, 1, 3, 3)), 0xFF8000)
    assert torch.equal(found.values, torch.tensor([[[1.0, 0.0, 0.0]]]))
