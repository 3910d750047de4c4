"""Stable Diffusion 3 and Flux, scaled down: diffusers' pipelines make the same latents, from files and from folders."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.catalogue import Catalogue
from graph.folders import Folders
from graph.node import node
from nodes.checkpoints import load_unet, load_vae
from nodes.denoiser import sampling_of
from nodes.engine import Engine, built_in
from nodes.latent_scale import for_network
from nodes.latents import decode, empty_latent, empty_sd3_latent, encode
from nodes.model_overrides import flow_aura, flow_flux, flow_sd3
from nodes.previews import preview_latent
from nodes.sampling import ksampler
from nodes.schedules import basic_scheduler
from nodes.single_files import read_single_unet
from nodes.transformer_prompts import state_guidance
from nodes.values import Conditioning, Image, Latent, Model, Prompt, Sigmas
from tests import original_layouts as layouts
from tests import small_transformers
from tests.small_transformers import CHANNELS, CONTEXT, POOLED, SMALL

pytestmark = [
    pytest.mark.usefixtures("packed_as_large_ones"),
    # diffusers hands torch's tensors to numpy in a way that numpy 2 warns of.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SIDE, STEPS, CFG, SEED, GUIDANCE = 64, 4, 4.0, 3, 2.5


def said(number: int) -> tuple[Tensor, Tensor]:
    """What text encoders make of a prompt: the states, and a pooled one."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(1, 5, CONTEXT, generator=generator), torch.randn(1, POOLED, generator=generator)


@node("Said")
def say(number: int = 0) -> Conditioning:
    """A prompt."""
    return Conditioning((Prompt(*said(number)),))


def noise() -> Tensor:
    return torch.randn(2, CHANNELS, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(SEED))


@node("Begun")
def begun() -> Latent:
    """Latents of nothing."""
    return Latent(noise())


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    data = tmp_path_factory.mktemp("data")
    for name, small in SMALL.items():
        folder = data / "models" / "diffusion_models"
        small_transformers.write_network(folder / f"{name}.safetensors", small.network, "model.diffusion_model.")
        small_transformers.write_network_folder(folder / name, small.network)
        layouts.write_weights(data / "models" / "vae" / f"{name}.safetensors", small_transformers.vae_weights())
    return Engine(Folders.below(data), catalogue=built_in() | Catalogue([say, begun]), precision="fp32")


def models(engine: Engine) -> Path:
    return engine.folders.data / "models" / "diffusion_models"


def sampled(engine: Engine, name: str, file: str, side: int = SIDE) -> tuple[Tensor, list[float]]:
    """The latents that a model gives, and the noise levels they went through."""
    flux = name.startswith("Flux")
    with WorkflowBuilder() as workflow:
        model = load_unet(unet_name=file)
        positive: Any = say(number=1)
        latent: Any = ksampler(
            model=model, seed=SEED, steps=STEPS, cfg=1.0 if flux else CFG, sampler_name="euler", scheduler="simple",
            positive=state_guidance(positive, GUIDANCE) if flux else positive, negative=say(number=2),
            latent_image=(empty_latent if flux else empty_sd3_latent)(side, SIDE, 2),
        )  # fmt: skip
        sigmas: Any = basic_scheduler(model=model, scheduler="simple", steps=STEPS)
    outputs = engine.run(workflow, targets=[latent.step, sigmas.step]).checked().outputs
    levels = cast(Sigmas, outputs[sigmas.step][0]).values
    return cast(Latent, outputs[latent.step][0]).samples, list(levels)


def theirs(name: str, sigmas: list[float]) -> Tensor:
    """The latents of diffusers' pipeline."""
    import diffusers

    library: Any = diffusers
    small, flux = SMALL[name], name.startswith("Flux")
    (text, pooled), (away, away_pooled) = ((each.expand(2, *each.shape[1:]) for each in said(of)) for of in (1, 2))
    parts: dict[str, Any] = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    parts |= {} if flux else dict.fromkeys(("text_encoder_3", "tokenizer_3"))
    # Its levels are given, already shifted.
    scheduler = library.FlowMatchEulerDiscreteScheduler(shift=1.0)
    made = getattr(library, small.pipeline)(
        transformer=small_transformers.network(small.network),
        vae=small_transformers.vae(small),
        scheduler=scheduler,
        **parts,
    )
    made.set_progress_bar_config(disable=True)
    asked: dict[str, Any] = {"prompt_embeds": text, "pooled_prompt_embeds": pooled, "output_type": "latent"}
    asked |= {"height": SIDE, "width": SIDE, "num_inference_steps": STEPS, "sigmas": sigmas[:-1]}
    if not flux:
        away_from = {"negative_prompt_embeds": away, "negative_pooled_prompt_embeds": away_pooled}
        return made(**asked, **away_from, latents=noise(), guidance_scale=CFG).images
    packed = made._pack_latents(noise(), 2, CHANNELS, SIDE // 8, SIDE // 8)
    return made._unpack_latents(made(**asked, latents=packed, guidance_scale=GUIDANCE).images, SIDE, SIDE, 8)


@pytest.mark.parametrize("name", SMALL)
def test_the_latents_are_those_of_diffusers_pipeline(name: str, engine: Engine):
    samples, sigmas = sampled(engine, name, f"{name}.safetensors")
    wanted = theirs(name, sigmas)
    ours = for_network(read_single_unet(models(engine) / f"{name}.safetensors", name), samples)
    assert ours.shape == wanted.shape and wanted.std() > 0.1
    assert (ours - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    assert torch.equal(samples, sampled(engine, name, name)[0])


@pytest.mark.parametrize("name", ["SD 3", "Flux dev"])
def test_sides_of_no_whole_patches_are_sampled(name: str, engine: Engine):
    samples, _ = sampled(engine, name, f"{name}.safetensors", side=SIDE + 16 if name == "SD 3" else SIDE + 8)
    assert samples.isfinite().all() and samples.shape[-1] == SIDE // 8 + (2 if name == "SD 3" else 1)


def trained(engine: Engine, name: str) -> Model:
    return read_single_unet(models(engine) / name, name)


def test_levels_are_those_that_the_families_were_trained_on(engine: Engine):
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    for name, shift in {"SD 3": 3.0, "SD 3.5": 3.0, "Flux schnell": 1.0}.items():
        levels: Any = cast(Any, FlowMatchEulerDiscreteScheduler)(shift=shift).sigmas.flip(0)
        torch.testing.assert_close(sampling_of(trained(engine, name)).sigmas, levels)
    dev = sampling_of(trained(engine, "Flux dev"))
    assert len(dev.sigmas) == 10000 and dev.sigma(0.5) == pytest.approx(1 / (1 + 2.718281828**-1.15))
    assert [sampling_of(trained(engine, name)).timestep(0.5) for name in SMALL] == [500, 500, 0.5, 0.5]


def test_every_shift_is_told_as_the_network_is_told(engine: Engine):
    sd3, flux = trained(engine, "SD 3"), trained(engine, "Flux dev")
    assert flow_sd3(sd3, 3.0) == sd3 and flow_flux(flux) == flux
    for shift in (flow_sd3, flow_flux, flow_aura):
        assert [sampling_of(shift(model)).timestep(0.5) for model in (sd3, flux)] == [500, 0.5]


@pytest.mark.parametrize("name", ["SD 3", "Flux dev"])
def test_latents_are_decoded_and_encoded_as_diffusers_does(name: str, engine: Engine):
    with WorkflowBuilder() as workflow:
        vae = load_vae(vae_name=f"{name}.safetensors")
        image: Any = decode(begun(), vae)
        latent: Any = encode(image, vae)
    outputs = engine.run(workflow, targets=[image.step, latent.step]).checked().outputs
    pixels, samples = cast(Image, outputs[image.step][0]).pixels, cast(Latent, outputs[latent.step][0]).samples
    theirs = small_transformers.vae(SMALL[name])
    with torch.no_grad():
        decoded = theirs.decode(noise()).sample
        encoded = theirs.encode(pixels.movedim(-1, 1) * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(pixels.movedim(-1, 1), ((decoded + 1) / 2).clamp(0, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(samples, encoded, rtol=1e-4, atol=1e-4)


def test_unfinished_latents_have_previews(engine: Engine):
    assert preview_latent(trained(engine, "Flux dev"), noise()).size == (8, 8)
