"""The same seed gives the same picture as the reference: plain loops of its formulas around diffusers' networks.

The loops share no code with the nodes. They run on a tiny checkpoint with random weights, in fp32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, expm1, log, sqrt
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from graph.builder import WorkflowBuilder
from graph.catalogue import Catalogue
from graph.folders import Folders
from graph.node import node
from nodes.checkpoints import load_checkpoint
from nodes.engine import Engine, built_in
from nodes.latents import decode, empty_latent, set_noise_mask
from nodes.masks import feather_mask, solid_mask
from nodes.sampling import ksampler, ksampler_advanced
from nodes.text import combine, encode_text
from nodes.values import Conditioning, Image, Latent, Model, Vae
from tests import tiny_models

SCALE = 0.5  # the tiny VAE's
SEED, STEPS, CFG = 12, 6, 5.0
POSITIVE, NEGATIVE = "the blue cat", "dog"
Sampling = Callable[[Model, Conditioning, Conditioning], Latent]
Wanted = Latent | Image


@node("Before")
def before(batch: int = 1, index: int = -1) -> Latent:
    """A latent to start from; with an index, the one of that place in a larger batch."""
    samples = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    return Latent(samples[:batch]) if index < 0 else Latent(samples[index : index + 1], batch_index=(index,))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny_models.write_checkpoint(folder / "models" / "checkpoints" / "tiny")
    return folder


@pytest.fixture(scope="module")
def engine(data: Path) -> Engine:
    return Engine(Folders.below(data), catalogue=built_in() | Catalogue([before]), precision="fp32")


@pytest.fixture(scope="module")
def reference(data: Path) -> "Reference":
    return Reference.of(data / "models" / "checkpoints" / "tiny")


def made(engine: Engine, sampling: Sampling, then: Callable[[Latent, Vae], Wanted] = lambda latent, _: latent) -> Any:
    """What a workflow around a way of sampling gives."""
    with WorkflowBuilder() as workflow:
        model, clip, vae = load_checkpoint(ckpt_name="tiny")
        latent = sampling(model, encode_text(text=POSITIVE, clip=clip), encode_text(text=NEGATIVE, clip=clip))
        wanted: Any = then(latent, vae)
    (value,) = engine.run(workflow, targets=[wanted.step]).checked().outputs[wanted.step]
    return value


def latent(engine: Engine, sampling: Sampling) -> Tensor:
    return made(engine, sampling).samples


@dataclass(frozen=True)
class Reference:
    """diffusers' and transformers' own networks, and the formulas around them."""

    unet: Any
    tokenizer: Any
    encoder: Any
    sigmas: list[float]

    @staticmethod
    def of(folder: Path) -> "Reference":
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        from transformers.models.clip.modeling_clip import CLIPTextModel
        from transformers.models.clip.tokenization_clip import CLIPTokenizer

        roots = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
        kept = torch.cumprod(1 - roots**2, dim=0)
        return Reference(
            cast(Any, UNet2DConditionModel).from_pretrained(folder / "unet"),
            cast(Any, CLIPTokenizer).from_pretrained(folder / "tokenizer"),
            cast(Any, CLIPTextModel).from_pretrained(folder / "text_encoder"),
            [sqrt((1 - share) / share) for share in map(float, kept)],
        )

    def encode(self, text: str) -> Tensor:
        ids = self.tokenizer(text, padding="max_length", max_length=77, return_tensors="pt").input_ids
        with torch.no_grad():
            return self.encoder(ids).last_hidden_state

    def denoised(self, x: Tensor, sigma: float, text: Tensor) -> Tensor:
        timestep = min(range(1000), key=lambda t: abs(log(self.sigmas[t]) - log(sigma)))
        with torch.no_grad():
            noise = self.unet(x / sqrt(sigma**2 + 1), timestep, text.expand(len(x), -1, -1)).sample
        return x - sigma * noise

    def guided(self, x: Tensor, sigma: float, cfg: float = CFG) -> Tensor:
        cond, uncond = (self.denoised(x, sigma, self.encode(text)) for text in (POSITIVE, NEGATIVE))
        return uncond + cfg * (cond - uncond)

    def normal(self, steps: int = STEPS) -> list[float]:
        """Timesteps evenly apart from 999 to 0, log-linear between those of the table; then 0."""
        logs = [log(sigma) for sigma in self.sigmas]
        return [exp(np.interp(999 * (1 - i / (steps - 1)), range(1000), logs)) for i in range(steps)] + [0.0]

    def karras(self, steps: int = STEPS) -> list[float]:
        high, low = self.sigmas[-1] ** (1 / 7), self.sigmas[0] ** (1 / 7)
        return [(high + i / (steps - 1) * (low - high)) ** 7 for i in range(steps)] + [0.0]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED))


Guided = Callable[[Tensor, float], Tensor]


def euler(x: Tensor, sigmas: list[float], guided: Guided) -> Tensor:
    for sigma, after in zip(sigmas, sigmas[1:], strict=False):
        x = x + (x - guided(x, sigma)) / sigma * (after - sigma)
    return x


def dpmpp_2m(x: Tensor, sigmas: list[float], guided: Guided) -> Tensor:
    old, previous = None, 0.0
    for sigma, after in zip(sigmas, sigmas[1:], strict=False):
        denoised = guided(x, sigma)
        if after == 0:
            return denoised
        h = log(sigma) - log(after)
        r = (log(previous) - log(sigma)) / h if old is not None else 1.0
        used = denoised if old is None else (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * old
        x = after / sigma * x - expm1(-h) * used
        old, previous = denoised, sigma
    return x


def euler_ancestral(x: Tensor, sigmas: list[float], guided: Guided) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    for sigma, after in zip(sigmas, sigmas[1:], strict=False):
        denoised = guided(x, sigma)
        up = min(after, sqrt(after**2 * (sigma**2 - after**2) / sigma**2))
        x = x + (x - denoised) / sigma * (sqrt(after**2 - up**2) - sigma)
        if after > 0:
            x = x + torch.randn(x.shape, generator=generator) * up
    return x


def same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Within a share of the largest value."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


LOOPS = {"euler": euler, "dpmpp_2m": dpmpp_2m, "euler_ancestral": euler_ancestral}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("scheduler", ["normal", "karras"])
@pytest.mark.parametrize("name", list(LOOPS))
def test_ksampler_is_a_plain_loop(engine: Engine, reference: Reference, name: Any, scheduler: Any, batch: int):
    ours = latent(
        engine,
        lambda model, positive, negative: ksampler(
            model=model, seed=SEED, steps=STEPS, cfg=CFG, sampler_name=name, scheduler=scheduler, positive=positive,
            negative=negative, latent_image=empty_latent(width=64, height=64, batch_size=batch),
        ),
    )  # fmt: skip
    sigmas = getattr(reference, scheduler)()
    pure = noise(batch, 4, 8, 8) * sqrt(1 + sigmas[0] ** 2)
    same(ours, LOOPS[name](pure, sigmas, reference.guided) / SCALE)


def test_denoise_below_1_takes_the_end_of_a_longer_schedule(engine: Engine, reference: Reference):
    ours = latent(
        engine,
        lambda model, positive, negative: ksampler(
            model=model, seed=SEED, steps=STEPS, cfg=CFG, sampler_name="dpmpp_2m", scheduler="normal",
            positive=positive, negative=negative, latent_image=before(batch=2), denoise=0.55,
        ),
    )  # fmt: skip
    sigmas = reference.normal(10)[-(STEPS + 1) :]  # int(6 / 0.55) is 10
    start = before(batch=2).samples * SCALE + noise(2, 4, 8, 8) * sigmas[0]
    same(ours, dpmpp_2m(start, sigmas, reference.guided) / SCALE)


def test_an_early_end_jumps_to_the_denoised_picture_unless_noise_is_left_over(engine: Engine, reference: Reference):
    def stretch(leftover: Any) -> Tensor:
        return latent(
            engine,
            lambda model, positive, negative: ksampler_advanced(
                model=model, noise_seed=SEED, steps=STEPS, cfg=CFG, sampler_name="euler", scheduler="normal",
                positive=positive, negative=negative, latent_image=before(), start_at_step=1, end_at_step=4,
                return_with_leftover_noise=leftover,
            ),
        )  # fmt: skip

    sigmas = reference.normal()[1:5]
    start = before().samples * SCALE + noise(1, 4, 8, 8) * sigmas[0]
    same(stretch("enable"), euler(start, sigmas, reference.guided) / SCALE)
    same(stretch("disable"), euler(start, [*sigmas[:-1], 0.0], reference.guided) / SCALE)


def test_without_noise_a_noisy_latent_is_taken_as_it_is(engine: Engine, reference: Reference):
    ours = latent(
        engine,
        lambda model, positive, negative: ksampler_advanced(
            model=model, add_noise="disable", noise_seed=SEED, steps=STEPS, cfg=CFG, sampler_name="dpmpp_2m",
            scheduler="karras", positive=positive, negative=negative, latent_image=before(), start_at_step=3,
        ),
    )  # fmt: skip
    same(ours, dpmpp_2m(before().samples * SCALE, reference.karras()[3:], reference.guided) / SCALE)


def test_a_soft_noise_mask_mixes_at_every_step(engine: Engine, reference: Reference):
    ours = latent(
        engine,
        lambda model, positive, negative: ksampler(
            model=model, seed=SEED, steps=STEPS, cfg=CFG, sampler_name="euler", scheduler="normal",
            positive=positive, negative=negative, denoise=0.7,
            latent_image=set_noise_mask(
                samples=before(batch=2), mask=feather_mask(mask=solid_mask(width=50, height=70), left=40, top=9)
            ),
        ),
    )  # fmt: skip
    sigmas = reference.normal(8)[-(STEPS + 1) :]
    given, fixed = before(batch=2).samples * SCALE, noise(2, 4, 8, 8)
    pixels = feather_mask(mask=solid_mask(width=50, height=70), left=40, top=9).values
    mask = interpolate(pixels[None], size=(8, 8), mode="bilinear")

    def masked(x: Tensor, sigma: float) -> Tensor:
        seen = x * mask + (given + fixed * sigma) * (1 - mask)
        return reference.guided(seen, sigma) * mask + given * (1 - mask)

    assert 0 < mask.min() < mask.max() <= 1
    same(ours, euler(given + fixed * sigmas[0], sigmas, masked) / SCALE)


def test_combined_prompts_are_averaged_and_cfg_1_has_no_negative(engine: Engine, reference: Reference):
    ours = latent(
        engine,
        lambda model, positive, negative: ksampler(
            model=model, seed=SEED, steps=3, cfg=1.0, sampler_name="euler", scheduler="normal",
            positive=combine(conditioning_1=positive, conditioning_2=negative), negative=negative,
            latent_image=before(), denoise=0.5,
        ),
    )  # fmt: skip
    sigmas = reference.normal(6)[-4:]
    start = before().samples * SCALE + noise(1, 4, 8, 8) * sigmas[0]
    same(ours, euler(start, sigmas, lambda x, sigma: reference.guided(x, sigma, 0.5)) / SCALE)


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m"])
def test_a_sample_of_a_batch_is_the_same_alone_at_its_index(engine: Engine, name: Any):
    def of(given: Callable[[], Latent]) -> Tensor:
        return latent(
            engine,
            lambda model, positive, negative: ksampler(
                model=model, seed=SEED, steps=3, cfg=CFG, sampler_name=name, positive=positive, negative=negative,
                latent_image=given(), denoise=0.8,
            ),
        )  # fmt: skip

    batch = of(lambda: before(batch=4))
    same(of(lambda: before(index=2)), batch[2:3])
    assert not torch.allclose(batch[2], batch[3])


# diffusers hands a torch tensor to numpy in a way that numpy 2 discourages.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_the_pipeline_of_diffusers_paints_the_same_picture(data: Path, engine: Engine, reference: Reference):
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    steps = 10  # 999 in nine whole parts: the two schedules coincide
    scheduler = cast(Any, EulerDiscreteScheduler)(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace", steps_offset=1
    )
    folder = data / "models" / "checkpoints" / "tiny"
    pipeline = cast(Any, StableDiffusionPipeline).from_pretrained(folder, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    # The reference starts at the variance of training, sqrt(1 + sigma²); diffusers scales what it is given by sigma.
    start = noise(1, 4, 8, 8) * sqrt(1 + 1 / reference.sigmas[-1] ** 2)
    theirs = pipeline(
        POSITIVE, negative_prompt=NEGATIVE, num_inference_steps=steps, guidance_scale=CFG, latents=start,
        height=64, width=64, output_type="np",
    ).images  # fmt: skip
    ours: Image = made(
        engine,
        lambda model, positive, negative: ksampler(
            model=model, seed=SEED, steps=steps, cfg=CFG, sampler_name="euler", scheduler="normal", positive=positive,
            negative=negative, latent_image=empty_latent(width=64, height=64),
        ),
        lambda latent, vae: decode(samples=latent, vae=vae),
    )  # fmt: skip
    same(ours.pixels, torch.as_tensor(theirs))
