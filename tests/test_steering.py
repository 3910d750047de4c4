"""Classifier and CLIP guidance: the gradient against the formula, and what it does to the embedded model."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from nodes.checkpoints import load_checkpoint
from nodes.denoiser import guided_denoiser
from nodes.latent_scale import for_vae
from nodes.latents import decode, empty_latent
from nodes.models import ModelPool
from nodes.sampling import ksampler
from nodes.text import encode_text
from nodes.values import Model, Vae
from nodes.vision import seeing
from nodes.vision.classification import classify
from nodes.vision.guidance import SeenAs, classifier_guidance, clip_guidance
from nodes.vision.models import load_vision_model
from nodes.vision.similarity import similarity
from nodes.vision.steering import slope, steered
from tests import tiny_vision
from tests.drawings import drawings
from tests.running import Bench
from tests.seeing import given, has, plain, refused, vision_bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return vision_bench(tmp_path)


@pytest.fixture
def pool(bench: Bench) -> ModelPool:
    return cast(ModelPool, bench.services[ModelPool])


def digit(bench: Bench, pool: ModelPool, label: str, **settings: Any) -> tuple[Model, Model]:
    """The embedded model, and the same steered towards a digit."""
    model, _, vae = load_checkpoint.function("loomlet", bench.folders)
    vision = load_vision_model.function("loomlet-digit", bench.folders)
    return model, classifier_guidance.function(model, vae, vision, label, models=pool, **settings)


def noisy() -> Tensor:
    return 2.0 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def test_a_step_adds_the_gradient_of_the_log_probability_of_the_decoded_prediction(bench: Bench, pool: ModelPool):
    from nodes.text_encoding import encode_prompt

    model, steered_model = digit(bench, pool, "seven", strength=3.0)
    _, clip, vae = load_checkpoint.function("loomlet", bench.folders)
    prompt = encode_prompt(pool, clip, "a handwritten digit")
    x, sigma = noisy(), 2.0
    before = guided_denoiser(pool, model, prompt, None, 1.0, 2)(x, sigma)
    after = guided_denoiser(pool, steered_model, prompt, None, 1.0, 2)(x, sigma)
    leaf = before.clone().requires_grad_()
    decoded = cast(Any, pool.vae(vae)).decode(for_vae(model, leaf), return_dict=False)[0]
    vision = load_vision_model.function("loomlet-digit", bench.folders)
    at = seeing.labels(pool, vision).index("seven")
    score = seeing.logits(pool, vision, decoded / 2 + 0.5).log_softmax(1)[:, at].sum()
    (gradient,) = torch.autograd.grad(score, leaf)
    torch.testing.assert_close(after - before, 3.0 * 4.0 / 5.0 * gradient, rtol=1e-2, atol=1e-3)


def test_a_slope_is_a_quotient_of_differences(bench: Bench, pool: ModelPool):
    has(bench, tiny_vision.write_clip)
    vision = load_vision_model.function("tiny", bench.folders)
    planes = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(1))

    def score(planes: Tensor) -> Tensor:
        seen = seeing.picture_directions(pool, vision, planes, exact=False)
        return (seen * seeing.text_directions(pool, vision, ["the blue cat"])).sum(1)

    way = torch.randn(planes.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        difference = (score(planes + 5e-3 * way) - score(planes - 5e-3 * way)) / 1e-2
    assert float((slope(score, planes) * way).sum()) == pytest.approx(float(difference), rel=0.02)


def test_pictures_are_prepared_nearly_as_by_the_processor(bench: Bench, pool: ModelPool):
    has(bench, tiny_vision.write_clip)
    vision = load_vision_model.function("tiny", bench.folders)
    planes = drawings.function().pixels.movedim(-1, 1)[..., 9:, :]
    exact = seeing.inputs(pool, vision, planes.movedim(1, -1))["pixel_values"]
    assert (seeing.prepared(vision, planes) - exact).abs().mean() < 0.01


def test_through_the_network_it_is_exact_where_the_prediction_is_known(monkeypatch: pytest.MonkeyPatch):
    """Latents of variance 4 have the prediction 4x / (4 + sigma²), whose slope is 4 / (4 + sigma²)."""
    from nodes.vision import steering

    x, sigma, wanted = noisy(), 3.0, torch.full((1, 4, 8, 8), 0.5)
    monkeypatch.setattr(steering, "_score", lambda _models, _rule, latent: (latent * wanted).sum((1, 2, 3)))  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType, reportUnknownMemberType]  # a stand-in

    def ask(_side: str, at: Tensor) -> Tensor:
        return 4.0 * at / (4.0 + sigma**2)

    rule = cast(SeenAs, SimpleNamespace(strength=2.0, through_network=True, flow=False))
    found: Any = SimpleNamespace(x=x, sigma=sigma, cond=ask("cond", x), ask=ask, models=None)
    change = steered(rule, found, found.cond) - found.cond
    torch.testing.assert_close(change, 2.0 * 9.0 * 4.0 / 13.0 * wanted.expand(2, 4, 8, 8), rtol=1e-3, atol=1e-4)


def painted(bench: Bench, guide: Callable[[Model, Vae], Model]) -> tuple[str, float]:
    """The digit that is seen in a picture, and how well it fits "a blue heart"."""
    with WorkflowBuilder() as workflow:
        model, clip, vae = load_checkpoint("loomlet")
        latent = ksampler(
            model=guide(model, vae),
            seed=5,
            steps=8,
            cfg=1.0,
            sampler_name="euler",
            scheduler="normal",
            positive=encode_text(text="", clip=clip),
            negative=encode_text(text="", clip=clip),
            latent_image=empty_latent(width=64, height=64),
        )
        picture = decode(samples=latent, vae=vae)
        named: Any = classify(load_vision_model("loomlet-digit"), picture)
        fits: Any = similarity(load_vision_model("loomlet"), picture, "a blue heart on a white background")
    outputs = bench.run(workflow, named.labels.step, fits.step).result.checked().outputs
    return plain(outputs[named.labels.step])[0][0], plain(outputs[fits.step])[0][0]


def test_a_classifier_leads_the_embedded_model_to_its_digit(bench: Bench):
    assert painted(bench, lambda model, _: model)[0] != "three"
    vision = "loomlet-digit"
    assert painted(bench, lambda m, v: classifier_guidance(m, v, load_vision_model(vision), "three", 6.0))[0] == "three"


def test_a_text_leads_the_embedded_model_by_similarity(bench: Bench):
    text = "a blue heart on a white background"
    free = painted(bench, lambda model, _: model)[1]
    led = painted(bench, lambda m, v: clip_guidance(m, v, load_vision_model("loomlet"), text, 5.0))[1]
    assert led > free + 0.3


def test_guidance_of_no_strength_or_at_other_times_changes_nothing(bench: Bench, pool: ModelPool):
    from nodes.text_encoding import encode_prompt

    _, clip, _ = load_checkpoint.function("loomlet", bench.folders)
    prompt = encode_prompt(pool, clip, "")
    results = [
        guided_denoiser(pool, model, prompt, None, 1.0, 2)(noisy(), 2.0)
        for model in (
            *digit(bench, pool, "seven", strength=0.0),
            digit(bench, pool, "seven", strength=5.0, end=0.01)[1],
        )
    ]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_a_label_that_the_classifier_does_not_have_is_told_with_those_it_has(bench: Bench):
    def build() -> None:
        model, _, vae = load_checkpoint("loomlet")
        classifier_guidance(model, vae, load_vision_model("loomlet-digit"), "7")

    assert "'loomlet-digit' has no label '7'; it has none, zero, one" in refused(bench, build)


def test_a_span_that_is_empty_is_refused(bench: Bench):
    def build() -> None:
        model, _, vae = load_checkpoint("loomlet")
        clip_guidance(model, vae, load_vision_model("loomlet"), "a cat", start=0.5, end=0.5)

    assert "start must be less" in refused(bench, build)
    assert given(bench, lambda: load_vision_model("loomlet")).task == "text-image similarity"
