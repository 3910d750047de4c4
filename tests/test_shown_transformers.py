"""Flux Fill and Flux's networks for depth and edges, scaled down, against diffusers' pipelines."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nodes.denoiser import guided_denoiser
from nodes.inspection import describe
from nodes.model_inputs import inpaint_conditioning, pix2pix_conditioning
from nodes.models import ModelPool
from nodes.single_files import read_single_unet, read_single_vae
from nodes.values import Conditioning, Image, Mask, Model, Prompt, Shown, Vae
from tests import original_layouts as layouts
from tests import small_transformers
from tests.small_transformers import CHANNELS, CONTEXT, POOLED, SMALL, drawn
from tests.transformer_layouts import Flux

pytestmark = [
    pytest.mark.usefixtures("packed_as_large_ones"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
POOL = ModelPool("fp32", "cpu")
SIGMAS, SIDE, GUIDANCE = [1.0, 0.8, 0.5, 0.0], 64, 3.5
NETWORKS = {
    "Fill": cast(Flux, replace(SMALL["Flux dev"].network, inputs=384)),
    "Control": cast(Flux, replace(SMALL["Flux dev"].network, inputs=128)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    for name, of in NETWORKS.items():
        small_transformers.write_network(folder / f"{name}.safetensors", of)
    layouts.write_weights(folder / "vae.safetensors", small_transformers.vae_weights())
    return folder


def model(folder: Path, name: str) -> Model:
    return read_single_unet(folder / f"{name}.safetensors", name)


def vae(folder: Path) -> Vae:
    return read_single_vae(folder / "vae.safetensors", "vae")


PROMPT = Prompt(drawn(1, 5, CONTEXT, seed=1), drawn(1, POOLED, seed=2), guidance=GUIDANCE)
SAID = Conditioning((PROMPT,))
NOISE = drawn(1, CHANNELS, SIDE // 8, SIDE // 8, seed=3)
PICTURE = drawn(1, SIDE, SIDE, 3, seed=4).sigmoid()
HOLE = torch.zeros(1, SIDE, SIDE)
HOLE[:, 4 : SIDE // 2, 10:30] = 1


class Mode:
    """diffusers draws from a posterior where its mode is taken here."""

    def __init__(self, encoded: Any) -> None:
        self.latents = encoded.latent_dist.mode()
        self.latent_dist = self

    def sample(self, generator: Any = None) -> Tensor:
        return self.latents


def theirs(name: str, **shown: Tensor) -> Tensor:
    """The latents of diffusers' pipeline."""
    import diffusers

    library: Any = diffusers
    parts = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    autoencoder = small_transformers.vae(SMALL["Flux dev"])
    encode = autoencoder.encode

    def encoded(pixels: Tensor) -> Mode:
        return Mode(encode(pixels))

    autoencoder.encode = encoded
    made = getattr(library, f"Flux{name}Pipeline")(
        transformer=small_transformers.network(NETWORKS[name]),
        vae=autoencoder,
        scheduler=library.FlowMatchEulerDiscreteScheduler(shift=1.0),
        **parts,
    )
    made.set_progress_bar_config(disable=True)
    asked: dict[str, Any] = {"prompt_embeds": PROMPT.tokens, "pooled_prompt_embeds": PROMPT.pooled}
    asked |= {"height": SIDE, "width": SIDE, "num_inference_steps": 3, "sigmas": SIGMAS[:-1]}
    packed = made._pack_latents(NOISE, 1, CHANNELS, SIDE // 8, SIDE // 8)
    answer = made(**asked, **shown, latents=packed, guidance_scale=GUIDANCE, output_type="latent").images
    return made._unpack_latents(answer, SIDE, SIDE, 8)


def ours(model: Model, prompts: Conditioning, kept: Shown | None = None) -> Tensor:
    """Euler's steps."""
    x = NOISE
    denoise = guided_denoiser(POOL, model, prompts, None, 1.0, len(x), kept=kept)
    for sigma, following in zip(SIGMAS, SIGMAS[1:], strict=False):
        x = x + (x - denoise(x, sigma)) / sigma * (following - sigma)
    return x


def near(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_what_is_painted_anew_is_that_of_diffusers_pipeline(folder: Path):
    shown = inpaint_conditioning(SAID, SAID, vae(folder), Image(PICTURE), Mask(HOLE), False, POOL).positive
    found = ours(model(folder, "Fill"), shown)
    near(found, theirs("Fill", image=PICTURE.movedim(-1, 1), mask_image=HOLE[:, None]))
    assert not torch.allclose(found, ours(model(folder, "Fill"), SAID), atol=1e-2)


def test_a_picture_of_edges_counts_as_in_diffusers_pipeline(folder: Path):
    shown = pix2pix_conditioning(SAID, SAID, vae(folder), Image(PICTURE), POOL).positive
    found = ours(model(folder, "Control"), shown)
    # Which takes tensors as its autoencoder does.
    near(found, theirs("Control", control_image=PICTURE.movedim(-1, 1) * 2 - 1))
    assert not torch.allclose(found, ours(model(folder, "Control"), SAID), atol=1e-2)


def test_a_latent_with_a_mask_of_its_own_is_shown(folder: Path):
    """As one that SetLatentNoiseMask gives, where no InpaintModelConditioning is."""
    shown = inpaint_conditioning(SAID, SAID, vae(folder), Image(PICTURE), Mask(HOLE), False, POOL).positive
    kept = shown.prompts[0].shown
    near(ours(model(folder, "Fill"), SAID, kept), ours(model(folder, "Fill"), shown))


def test_they_are_named(folder: Path):
    titles = {name: describe(folder / f"{name}.safetensors").title for name in NETWORKS}
    assert titles["Fill"] == "Flux inpainting diffusion transformer (original layout)"
    assert titles["Control"] == "Flux pix2pix diffusion transformer (original layout)"
