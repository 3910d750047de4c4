"""The embedded model: what ships, what it was taught, and whether it paints what it is asked for."""

import random
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.embedded import JUDGE, LOOMLET
from nodes.embedded.training import adherence, judge, tokenizer
from nodes.embedded.training.captions import describe
from nodes.embedded.training.painter import Painter
from nodes.embedded.training.pictures import draw, sample
from nodes.embedded.training.vocabulary import HELD_OUT, OBJECTS, Attributes, encode, is_held_out


@pytest.fixture(scope="module")
def painter() -> Iterator[Painter]:
    """Paints with one thread: on a busy machine two of them mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Painter.shipped(LOOMLET, steps=12)
    torch.set_num_threads(threads)


def test_model_and_judge_are_small() -> None:
    assert sum(path.stat().st_size for path in LOOMLET.rglob("*")) <= 20e6
    assert JUDGE.stat().st_size <= 1.5e6


# diffusers hands a torch tensor to numpy in a way that numpy 2 discourages.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_loads_in_the_pipeline_of_diffusers() -> None:
    pipeline = cast(Any, StableDiffusionPipeline).from_pretrained(LOOMLET).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline("a red house on a white background", num_inference_steps=2, height=128, width=128)
    assert made.images[0].size == (128, 128)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"


def test_no_training_picture_shows_a_held_out_pair() -> None:
    rng = random.Random(0)
    assert not any(is_held_out(sample(rng)) for _ in range(3000))
    assert all(is_held_out(sample(rng, held_out=True)) for _ in range(300))


def test_every_object_misses_a_colour_in_training() -> None:
    assert {name for name, _ in HELD_OUT} >= set(OBJECTS)


def test_same_seed_draws_the_same_picture_and_caption() -> None:
    attributes = sample(random.Random(5))
    assert np.array_equal(draw(attributes, 3), draw(attributes, 3))
    assert describe(attributes, random.Random(4)) == describe(attributes, random.Random(4))


def test_captions_say_nothing_that_the_picture_lacks() -> None:
    rng = random.Random(1)
    for _ in range(500):
        attributes = sample(rng)
        said = describe(attributes, rng).said
        assert all(word in ("", there) for word, there in zip(said, attributes, strict=True))


def test_absent_attributes_are_encoded_as_zero() -> None:
    assert encode(Attributes("icon", "house", "red")) == (1, 1, 1, 0, 0, 0, 0, 0, 0)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_has_tokens(text: str) -> None:
    words = tokenizer.load(LOOMLET / "tokenizer")
    ids = tokenizer.tokens(words, [text])
    assert ids.shape == (1, 77)
    assert ids.max() < len(words)


def test_the_judge_is_right_about_drawings() -> None:
    rng = random.Random(8)
    wanted = [sample(rng, held_out=i % 4 == 0) for i in range(60)]
    answers = judge.load(JUDGE).name(np.stack([draw(attributes, i) for i, attributes in enumerate(wanted)]))
    assert judge.correct(answers, wanted).all(axis=1).mean() > 0.9


def test_pictures_show_what_their_prompts_say(painter: Painter) -> None:
    report = adherence.measure(painter.paint, count=24, seeds=(1,))
    singles = [score.everything for score in report.adherence if "combinations" in score.name]
    assert min(singles) >= 0.8


def test_a_picture_does_not_depend_on_its_batch(painter: Painter) -> None:
    alone = painter.paint(["a red car"], [5], 128)[0].astype(int)
    among = painter.paint(["a blue cat", "a red car"], [4, 5], 128)[1].astype(int)
    assert np.abs(alone - among).mean() < 1
