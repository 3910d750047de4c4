"""Sampling speed: seconds per step against diffusers' own pipeline, with the same weights, precision and size."""

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from graph.builder import WorkflowBuilder
from graph.store import MemoryStore
from nodes.checkpoints import load_checkpoint
from nodes.engine import Engine
from nodes.latents import empty_latent
from nodes.sampling import ksampler
from nodes.text import encode_text
from server.settings import Settings

if TYPE_CHECKING:
    from nodes.precision import PrecisionChoice

FEW, MANY = 4, 28
"""A step's time is the difference between a long and a short run, so what surrounds the steps cancels out."""
CFG = 4.0

Say = Callable[[str], None]


def measure(
    settings: Settings, repeats: int, size: int, precision: "PrecisionChoice", checkpoint: str, say: Say
) -> None:
    """Print medians of interleaved runs in one process."""
    import torch

    engine = Engine(settings.folders(), store=MemoryStore(1 << 30), precision=precision)
    ours = _ours(engine, checkpoint, size)
    ours(FEW, 0)  # before the pipeline is loaded, so that whatever is wrong with the checkpoint is said by the engine
    theirs = _theirs(engine, checkpoint, size, torch.bfloat16 if precision == "bf16" else torch.float32)
    theirs(FEW, 0)
    mine: list[float] = []
    other: list[float] = []
    for repeat in range(1, repeats + 1):
        pair = [(ours, mine), (theirs, other)]
        for sample, times in pair if repeat % 2 else reversed(pair):
            times.append(_per_step(sample, repeat))
    a, b = statistics.median(mine), statistics.median(other)
    say(f"{checkpoint}, {size} × {size} pixels, {precision}, cfg {CFG:g}, euler, {torch.get_num_threads()} threads")
    say(f"latentloom            {a * 1000:9.2f} ms per step")
    say(f"diffusers' pipeline   {b * 1000:9.2f} ms per step")
    say(
        f"ratio                 {a / b:9.3f}   (median of the {repeats} paired ratios: "
        f"{statistics.median(x / y for x, y in zip(mine, other, strict=True)):.3f})"
    )


def _per_step(sample: Callable[[int, int], float], seed: int) -> float:
    return (sample(MANY, 2 * seed) - sample(FEW, 2 * seed + 1)) / (MANY - FEW)


def _ours(engine: Engine, checkpoint: str, size: int) -> Callable[[int, int], float]:
    def sample(steps: int, seed: int) -> float:
        with WorkflowBuilder() as workflow:
            model, clip, _ = load_checkpoint(ckpt_name=checkpoint)
            latent: Any = ksampler(
                model=model,
                seed=seed,
                steps=steps,
                cfg=CFG,
                sampler_name="euler",
                scheduler="normal",
                positive=encode_text(text="a red house", clip=clip),
                negative=encode_text(text="", clip=clip),
                latent_image=empty_latent(width=size, height=size),
            )
        began = time.perf_counter()
        engine.run(workflow, targets=[latent.step]).checked()
        return time.perf_counter() - began

    return sample


def _theirs(engine: Engine, checkpoint: str, size: int, dtype: Any) -> Callable[[int, int], float]:
    import torch
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    from nodes.checkpoints import CHECKPOINTS

    path = CHECKPOINTS.locate(engine.folders, checkpoint)
    pipeline_class, scheduler_class = cast(Any, StableDiffusionPipeline), cast(Any, EulerDiscreteScheduler)
    device = engine.models.device
    loaded = pipeline_class.from_pretrained(
        path, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline = loaded.to(device, dtype)
    pipeline.scheduler = scheduler_class.from_config(pipeline.scheduler.config)
    if dtype == torch.bfloat16:
        pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)
    prompt, negative = pipeline.encode_prompt("a red house", device, 1, True, "")

    def sample(steps: int, seed: int) -> float:
        began = time.perf_counter()
        made = pipeline(
            prompt_embeds=prompt,
            negative_prompt_embeds=negative,
            num_inference_steps=steps,
            guidance_scale=CFG,
            height=size,
            width=size,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
        )
        made.images.cpu()  # as the engine's latent is, and not before the last step is computed
        return time.perf_counter() - began

    return sample
