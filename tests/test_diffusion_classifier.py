"""The diffusion classifier: its formula, and what it sees with the embedded model."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.lists import Items
from nodes import checkpoints
from nodes.latent_scale import for_network
from nodes.maths.model_sampling import DiscreteSampling
from nodes.models import ModelPool
from nodes.vision import diffusion_classifier
from nodes.vision.answers import Named
from nodes.vision.diffusion_classifier import classify_by_denoising
from tests.drawings import CAPTIONS, DRAWINGS, drawings
from tests.running import Bench, any_image


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    used = Bench.below(tmp_path, diffusion_classifier, checkpoints)
    services = {ModelPool: ModelPool("fp32", "cpu")}
    return replace(used, services=services, catalogue=used.catalogue | DRAWINGS)


def listed(outputs: tuple[Items, Items, str]) -> Named:
    labels, scores, table = outputs
    return Named([str(label) for label in labels.values], [cast(float, score) for score in scores.values], table)


def classify(bench: Bench, prompts: str, levels: int = 3, batch: int = 1) -> Named:
    with WorkflowBuilder() as workflow:
        model, clip, vae = checkpoints.load_checkpoint("loomlet")
        classify_by_denoising(model, clip, vae, any_image(32, 32, batch), prompts, levels, draws=1)
    return listed(bench.last(workflow))


def test_the_embedded_model_knows_what_a_drawing_shows(bench: Bench):
    with WorkflowBuilder() as workflow:
        model, clip, vae = checkpoints.load_checkpoint("loomlet")
        classify_by_denoising(model, clip, vae, drawings(), "\n".join(CAPTIONS), levels=4, draws=1)
    found = listed(bench.last(workflow))
    assert found.labels == list(CAPTIONS)
    assert len(found.scores) == 9 and found.table.splitlines()[1].startswith(CAPTIONS[1])


def test_a_picture_has_the_same_scores_alone_and_in_a_batch(bench: Bench):
    alone = classify(bench, "a red house\na blue car")
    among = classify(bench, "a red house\na blue car", batch=2)
    assert among.scores[:2] == pytest.approx(alone.scores, rel=1e-4)
    assert len(among.scores) == 4


def test_a_score_is_the_negative_error_of_the_predicted_noise(bench: Bench):
    """Once more with the U-Net itself: v-prediction, one level, one draw."""
    (score,) = classify(bench, "a red house", levels=1).scores
    pool = bench.services[ModelPool]
    assert isinstance(pool, ModelPool)
    model, clip, vae = checkpoints.load_checkpoint.function("loomlet", bench.folders)
    pixels = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    latent = for_network(model, pool.encode_pixels(vae, pixels.movedim(-1, 1) * 2 - 1))
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    sampling = DiscreteSampling(
        beta_start=model.beta_start, beta_end=model.beta_end, schedule=model.beta_schedule, prediction="v_prediction"
    )
    sigma = sampling.percent_to_sigma(0.5)
    alpha = 1 / (1 + sigma**2) ** 0.5
    from nodes.text_encoding import encode_prompt

    tokens = encode_prompt(pool, clip, "a red house").prompts[0].tokens
    noisy = alpha * (latent + sigma * noise)
    v: Tensor = pool.denoise_network(model)(noisy, torch.tensor([sampling.timestep(sigma)]), tokens)
    predicted = alpha * sigma * noisy + alpha * v
    assert score == pytest.approx(-float((predicted - noise).square().mean()), rel=1e-3)


def test_no_prompt_is_an_error_that_says_so(bench: Bench):
    with WorkflowBuilder() as workflow:
        model, clip, vae = checkpoints.load_checkpoint("loomlet")
        classify_by_denoising(model, clip, vae, any_image(32, 32), " \n ")
    assert "the list of prompts is empty" in str(bench.run_last(workflow).failure)
