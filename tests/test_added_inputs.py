from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nodes.added_inputs import MissingInput, shown, told
from nodes.values import Model, Prompt, Shown, Sizes, Weights

MODEL = Model(Weights(Path("none"), "toy", "toy"), latent_scale=0.5)
BASE, REFINER = replace(MODEL, told="sizes"), replace(MODEL, told="sizes and score")
INPAINTING, EDITING = replace(MODEL, variant="inpainting"), replace(MODEL, variant="pix2pix")
PROMPT = Prompt(torch.zeros(1, 3, 2), pooled=torch.ones(1, 5))
SHAPE = (2, 4, 2, 3)
PICTURE = torch.arange(24.0).reshape(1, 4, 2, 3)
HALF = torch.tensor([[[0.6, 0.6, 0.4], [0.0, 1.0, 0.0]]])


def numbers(model: Model, sizes: Sizes | None = None, *, negative: bool = False) -> list[float]:
    found = told(model, replace(PROMPT, sizes=sizes), SHAPE, 2, negative=negative)
    assert found is not None and found.pooled is not None and found.sizes is not None
    assert found.pooled.shape == (2, 5) and torch.equal(found.sizes[0], found.sizes[1])
    return found.sizes[0].tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # torch's own


def test_sizes_follow_the_latent_unless_they_are_stated():
    assert numbers(BASE) == [16, 24, 0, 0, 16, 24]
    assert numbers(BASE, Sizes(40, 30, 2, 1)) == [30, 40, 1, 2, 30, 40]
    assert numbers(BASE, Sizes(40, 30, 2, 1, 8, 7)) == [30, 40, 1, 2, 7, 8]
    assert numbers(BASE, Sizes(0, 0, 0, 0, 0, 0)) == [0] * 6


def test_the_refiner_is_told_a_score_that_is_lower_for_what_is_not_wanted():
    assert numbers(REFINER) == [16, 24, 0, 0, 6.0]
    assert numbers(REFINER, negative=True) == [16, 24, 0, 0, 2.5]
    assert numbers(REFINER, Sizes(score=9.0), negative=True)[-1] == 9.0


def test_a_prompt_without_a_pooled_state_is_refused_where_it_is_needed():
    assert told(MODEL, replace(PROMPT, pooled=None), SHAPE, 2, negative=False) is None
    with pytest.raises(MissingInput, match="'toy' has to be told the pooled state of a text; encode the prompt with"):
        told(BASE, replace(PROMPT, pooled=None), SHAPE, 2, negative=False)


def test_without_a_picture_an_inpainting_network_sees_grey_that_is_all_to_be_painted():
    seen = shown(INPAINTING, PROMPT, None, SHAPE, 2)
    assert seen is not None and seen.shape == (2, 5, 2, 3)
    assert seen[1, :, 0, 0].allclose(torch.tensor([1.0, 0.8223, -0.6876, 0.6364, 0.1380]))


def test_it_sees_the_prompts_picture_or_else_the_latents_own_under_a_rounded_mask():
    own, kept = Shown(PICTURE, HALF), Shown(PICTURE + 1, 1 - HALF)
    for prompt, picture, mask in (
        (replace(PROMPT, shown=own), PICTURE, HALF),
        (PROMPT, PICTURE + 1, 1 - HALF),
    ):
        seen = shown(INPAINTING, prompt, kept, SHAPE, 2)
        assert seen is not None and torch.equal(seen[:, 0], mask.round().expand(2, -1, -1))
        assert torch.equal(seen[1, 1:], picture[0] * 0.5)


def test_a_mask_is_cut_to_the_latents_proportions_with_its_picture_but_not_the_latents_own():
    ends = torch.tensor([[[1.0, 0.0, 0.0, 0.0, 1.0]] * 2])
    cut = shown(INPAINTING, replace(PROMPT, shown=Shown(PICTURE, ends)), None, SHAPE, 2)
    whole = shown(INPAINTING, PROMPT, Shown(PICTURE, ends), SHAPE, 2)
    assert cut is not None and not cut[:, 0].any()
    assert whole is not None and torch.equal(whole[:, 0], torch.tensor([1.0, 0.0, 1.0]).expand(2, 2, 3))


def test_an_editing_network_sees_the_picture_unscaled_or_nothing():
    edited, blank = (
        shown(EDITING, prompt, None, SHAPE, 2) for prompt in (replace(PROMPT, shown=Shown(PICTURE)), PROMPT)
    )
    assert edited is not None and torch.equal(edited, PICTURE.expand(2, -1, -1, -1))
    assert blank is not None and blank.shape == SHAPE and not blank.any()
    assert shown(MODEL, PROMPT, Shown(PICTURE, HALF), SHAPE, 2) is None
