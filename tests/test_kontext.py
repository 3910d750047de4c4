"""Flux Kontext, scaled down: pictures that it is shown count as in diffusers' pipeline."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nodes.denoiser import guided_denoiser
from nodes.kontext import SIZES, scale_for_kontext, show_latent
from nodes.latent_scale import for_vae
from nodes.maths.patches import side_by_side
from nodes.models import ModelPool
from nodes.reference_tokens import WrongReference, reference_tokens
from nodes.values import Conditioning, Image, Latent, Model, Prompt
from tests import small_transformers
from tests.small_transformers import CHANNELS, CONTEXT, POOLED, SMALL, drawn

pytestmark = [
    pytest.mark.usefixtures("packed_as_large_ones"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
POOL = ModelPool("fp32", "cpu")
SIGMAS, GUIDANCE, SIDE = [1.0, 0.8, 0.5, 0.0], 3.5, 64


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return small_transformers.read_networks(tmp_path_factory.mktemp("networks"), "SD 3", "Flux dev")


def said(batch: int = 1) -> Conditioning:
    return Conditioning((Prompt(drawn(batch, 5, CONTEXT, seed=1), drawn(batch, POOLED, seed=2)),))


NOISE = drawn(1, CHANNELS, SIDE // 8, SIDE // 8, seed=3)
SHOWN = drawn(1, CHANNELS, 4, 6, seed=4)
"""A picture at the scale of the network."""


def sampled(model: Model, prompts: Conditioning) -> Tensor:
    """Euler's steps."""
    x = NOISE
    denoise = guided_denoiser(POOL, model, prompts, None, 1.0, len(x))
    for sigma, following in zip(SIGMAS, SIGMAS[1:], strict=False):
        x = x + (x - denoise(x, sigma)) / sigma * (following - sigma)
    return x


def test_the_latents_are_those_of_diffusers_pipeline(models: dict[str, Model]):
    import diffusers

    library: Any = diffusers
    small = SMALL["Flux dev"]
    parts = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    made = library.FluxKontextPipeline(
        transformer=small_transformers.network(small.network),
        vae=small_transformers.vae(small),
        scheduler=library.FlowMatchEulerDiscreteScheduler(shift=1.0),
        **parts,
    )
    made.set_progress_bar_config(disable=True)
    prompt = said().prompts[0]
    asked: dict[str, Any] = {"prompt_embeds": prompt.tokens, "pooled_prompt_embeds": prompt.pooled}
    asked |= {"height": SIDE, "width": SIDE, "num_inference_steps": 3, "sigmas": SIGMAS[:-1], "max_area": SIDE**2}
    packed = made._pack_latents(NOISE, 1, CHANNELS, SIDE // 8, SIDE // 8)
    answer = made(**asked, image=SHOWN, latents=packed, guidance_scale=GUIDANCE, output_type="latent").images
    theirs = made._unpack_latents(answer, SIDE, SIDE, 8)
    model = models["Flux dev"]
    ours = sampled(model, show_latent(said(), Latent(for_vae(model, SHOWN))))
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()
    assert not torch.allclose(ours, sampled(model, said()), atol=1e-2)


def test_prompts_with_and_without_pictures_are_guided_together(models: dict[str, Model]):
    model = models["Flux dev"]
    shown, plain = show_latent(said(), Latent(SHOWN)), said()
    answers = [
        guided_denoiser(POOL, model, each, None, 1.0, 2)(NOISE.expand(2, -1, -1, -1), 0.5) for each in (shown, plain)
    ]
    both = guided_denoiser(POOL, model, shown, plain, 2.0, 2)(NOISE.expand(2, -1, -1, -1), 0.5)
    torch.testing.assert_close(both, answers[1] + 2.0 * (answers[0] - answers[1]), rtol=1e-4, atol=1e-4)


def test_pictures_lie_side_by_side(models: dict[str, Model]):
    assert side_by_side([(4, 4), (4, 4), (4, 4), (2, 9)]) == [(0, 0), (4, 0), (0, 4), (8, 0)]
    prompt = show_latent(show_latent(said(), Latent(SHOWN)), Latent(drawn(1, CHANNELS, 3, 4, seed=5))).prompts[0]
    found = reference_tokens(models["Flux dev"], prompt, 2)
    assert found.references.shape == (2, 2 * 3 + 2 * 2, CHANNELS * 4)
    assert found.positions[1, :, 0].unique().tolist() == [1.0]  # pyright: ignore
    assert found.positions[0, 6:].tolist() == [[1, 2, 0], [1, 2, 1], [1, 3, 0], [1, 3, 1]]  # pyright: ignore


def test_no_latent_shows_nothing():
    assert show_latent(said()).prompts[0].references == ()


def test_pictures_that_a_network_cannot_be_shown_are_refused(models: dict[str, Model]):
    shown = show_latent(said(), Latent(SHOWN))
    with pytest.raises(
        WrongReference, match="shows pictures to networks of Flux, but that of 'SD 3' is one of SD 3; take"
    ):
        sampled(models["SD 3"], shown)
    with pytest.raises(WrongReference, match="a latent of 4 channels, and 'Flux dev' takes 16; encode the picture"):
        sampled(models["Flux dev"], show_latent(said(), Latent(SHOWN[:, :4])))


@pytest.mark.parametrize(
    ("size", "wanted"), [((100, 100), (1024, 1024)), ((900, 300), (1568, 672)), ((300, 400), (880, 1184))]
)
def test_pictures_are_cut_to_sizes_it_was_trained_on(size: tuple[int, int], wanted: tuple[int, int]):
    width, height = size
    found = scale_for_kontext(Image(torch.rand(1, height, width, 3))).pixels.shape
    assert (found[2], found[1]) == wanted and wanted in SIZES


def test_sizes_are_those_of_diffusers():
    from diffusers.pipelines.flux import pipeline_flux_kontext

    assert set(SIZES) == set(cast(Any, pipeline_flux_kontext).PREFERRED_KONTEXT_RESOLUTIONS)
