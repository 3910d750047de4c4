"""A mask from what a diffusion model predicts under two prompts, with the embedded model."""

from pathlib import Path

import pytest
import torch

from graph.builder import WorkflowBuilder
from nodes.checkpoints import load_checkpoint
from nodes.text import encode_text
from nodes.values import Mask
from nodes.vision.diffusion_mask import mask_by_prompts
from tests.drawings import drawings
from tests.running import Bench, any_image
from tests.seeing import vision_bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return vision_bench(tmp_path)


def test_the_mask_covers_the_thing_that_is_to_be_another(bench: Bench):
    with WorkflowBuilder() as workflow:
        model, clip, vae = load_checkpoint("loomlet")
        there = encode_text("a yellow duck on a blue background", clip)
        wanted = encode_text("a red heart on a blue background", clip)
        mask_by_prompts(model, vae, drawings(), wanted, there, draws=4)
    mask: Mask = bench.last(workflow)
    assert mask.values.shape == (3, 128, 128) and torch.equal(mask.values, mask.values.round())
    duck = drawings.function().pixels[1]
    thing = ((duck - duck[2, 2]) > 0.2).any(-1)  # redder than the blue ground
    inside, outside = mask.values[1][thing].mean(), mask.values[1][~thing].mean()
    assert thing.any() and inside > 0.5 and outside < 0.25


def test_a_picture_of_an_uneven_size_gets_a_mask_of_its_size(bench: Bench):
    with WorkflowBuilder() as workflow:
        model, clip, vae = load_checkpoint("loomlet")
        mask_by_prompts(model, vae, any_image(37, 45), encode_text("a cat", clip), encode_text("", clip), draws=1)
    assert bench.last(workflow).values.shape == (1, 45, 37)
