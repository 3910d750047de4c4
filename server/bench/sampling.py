"""Sampling speed: seconds per step against diffusers' own pipeline, with the same weights, precision and size."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from graph.builder import WorkflowBuilder
from graph.folders import Folders
from graph.store import MemoryStore
from nodes.checkpoints import load_checkpoint
from nodes.engine import Engine
from nodes.latents import empty_latent
from nodes.sampling import ksampler
from nodes.text import encode_text
from server.bench.random_models import RandomModel, write_folder
from server.settings import Settings

if TYPE_CHECKING:
    from nodes.precision import PrecisionChoice

FEW, MANY = 4, 28
"""A step's time is the difference between a long and a short run, so what surrounds the steps cancels out."""
LONGEST = 12.0
"""Seconds of steps in one run; where a step takes long, there are fewer."""
CFG = 4.0

Say = Callable[[str], None]
Sample = Callable[[int, int], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is sampled: pictures of these sizes, in batches of these, with a checkpoint or a random one."""

    sizes: Sequence[int]
    batches: Sequence[int]
    precision: "PrecisionChoice"
    checkpoint: str
    random: RandomModel | None = None
    repeats: int = 10


def measure(settings: Settings, asked: Asked, say: Say) -> None:
    """Print medians of interleaved runs in one process, for every size and batch."""
    if not asked.random:
        return _measure(settings.folders(), asked, say)
    with TemporaryDirectory() as folder:
        folders = Folders.below(Path(folder))
        say(f"making {asked.random} with random weights")
        write_folder(folders.models("checkpoints") / asked.checkpoint, asked.random)
        return _measure(folders, asked, say)


def _measure(folders: Folders, asked: Asked, say: Say) -> None:
    import torch

    engine = Engine(folders, store=MemoryStore(1 << 30), precision=asked.precision)
    cells = [(size, batch) for size in asked.sizes for batch in asked.batches]
    ours = {cell: _ours(engine, asked.checkpoint, *cell) for cell in cells}
    # Before the pipeline is loaded, so that whatever is wrong with the checkpoint is said by the engine.
    ours[cells[0]](1, 0)
    dtype = torch.bfloat16 if asked.precision == "bf16" else torch.float32
    pipeline = _pipeline(engine, asked.checkpoint, dtype)
    say(f"{asked.checkpoint}, {asked.precision}, cfg {CFG:g}, euler, {torch.get_num_threads()} threads: ms per step")
    say(f"{'pixels':>8}{'batch':>7}{'latentloom':>14}{'diffusers':>14}{'ratio':>9}{'of pairs':>10}")
    for cell in cells:
        mine, other = _paired(ours[cell], _theirs(pipeline, *cell), asked.repeats)
        a, b = statistics.median(mine), statistics.median(other)
        pairs = statistics.median(x / y for x, y in zip(mine, other, strict=True))
        say(f"{cell[0]:>8}{cell[1]:>7}{a * 1000:>14.2f}{b * 1000:>14.2f}{a / b:>9.3f}{pairs:>10.3f}")


def _paired(ours: Sample, theirs: Sample, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds per step, both in turn, `repeats` times each."""
    took = max(sample(2, 0) / 2 for sample in (ours, theirs))  # which warms up as well
    many = max(2, min(MANY, int(LONGEST / took)))
    few = min(FEW, many // 2)
    mine: list[float] = []
    other: list[float] = []
    for repeat in range(1, repeats + 1):
        pair = [(ours, mine), (theirs, other)]
        for sample, times in pair if repeat % 2 else reversed(pair):
            times.append((sample(many, 2 * repeat) - sample(few, 2 * repeat + 1)) / (many - few))
    return mine, other


def _ours(engine: Engine, checkpoint: str, size: int, batch: int) -> Sample:
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
                latent_image=empty_latent(width=size, height=size, batch_size=batch),
            )
        began = time.perf_counter()
        engine.run(workflow, targets=[latent.step]).checked()
        return time.perf_counter() - began

    return sample


def _pipeline(engine: Engine, checkpoint: str, dtype: Any) -> Any:
    import torch
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    from nodes.checkpoints import CHECKPOINTS

    path = CHECKPOINTS.locate(engine.folders, checkpoint)
    scheduler_class = cast(Any, EulerDiscreteScheduler)
    if (path / "text_encoder_2").is_dir():
        loaded = cast(Any, StableDiffusionXLPipeline).from_pretrained(path)
    else:
        loaded = cast(Any, StableDiffusionPipeline).from_pretrained(
            path, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline = loaded.to(engine.models.device, dtype)
    pipeline.scheduler = scheduler_class.from_config(pipeline.scheduler.config)
    if dtype == torch.bfloat16:
        pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _theirs(pipeline: Any, size: int, batch: int) -> Sample:
    import torch

    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    # Of two encoders there are pooled states as well.
    guided: dict[str, Any] = {"num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    texts = pipeline.encode_prompt("a red house", device=pipeline.device, **guided)
    encoded = dict(zip(names, texts, strict=False))

    def sample(steps: int, seed: int) -> float:
        began = time.perf_counter()
        made = pipeline(
            **encoded,
            num_inference_steps=steps,
            num_images_per_prompt=batch,
            guidance_scale=CFG,
            height=size,
            width=size,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
        )
        made.images.cpu()  # as the engine's latent is, and not before the last step is computed
        return time.perf_counter() - began

    return sample
