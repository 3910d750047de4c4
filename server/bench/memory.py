"""What a picture costs from the file on: seconds to the first step and to the picture, and memory, in fresh processes.

Both programs start with the libraries imported, make one picture from nothing and some more with everything warm. Ours
prepares a network the first time it reads it; that start is told by itself.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from mmap import mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from click import ClickException

from graph.events import Event, NodeProgressed
from graph.folders import Folders
from graph.store import MemoryStore
from nodes.engine import Engine
from server.bench.random_models import write_file, write_folder
from server.workers.worker import warm_up

if TYPE_CHECKING:
    from nodes.precision import PrecisionChoice

NAME = "sd15"
CFG = 7.0
WARM = 5

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one program: seconds, and mebibytes."""

    first_step: float
    first_picture: float
    warm_picture: float
    peak_mib: float


NAMES = {
    "first_step": "from the start to the first step, s",
    "first_picture": "from the start to the picture, s",
    "warm_picture": "a picture with everything warm, s",
    "peak_mib": "most memory at any time, MiB",
}


def measure(size: int, steps: int, precision: "PrecisionChoice", repeats: int, say: Say) -> None:
    """Print what both programs need, and what the machine needs for the same bytes alone."""
    with TemporaryDirectory() as folder:
        models = Folders.below(Path(folder)).models("checkpoints")
        say("making Stable Diffusion 1.5 with random weights")
        write_folder(models / NAME)
        file = write_file(Path(folder), NAME, models)
        floors: list[float] = []
        ours: list[Cost] = []
        theirs: list[Cost] = []
        new = _asked("latentloom", folder, size, steps, precision)
        for _ in range(repeats):  # in turn: memory that the machine has had before is quicker to have again
            floors.append(_floor(file))
            ours.append(_asked("latentloom", folder, size, steps, precision))
            theirs.append(_asked("diffusers", folder, size, steps, precision))
        weights = f"weights of {file.stat().st_size / 1e9:.2f} GB"
    say(f"{size} × {size} pixels, {steps} steps, cfg {CFG:g}, {precision}, {weights}; the best of {repeats}")
    say(f"{'':<40}{'latentloom':>12}{'diffusers':>12}{'ratio':>8}")
    for name, said in NAMES.items():
        a, b = (min(getattr(cost, name) for cost in costs) for costs in (ours, theirs))
        say(f"{said:<40}{a:>12.2f}{b:>12.2f}{a / b:>8.2f}")
    say(
        f"latentloom with a model that it has never read: {new.first_step:.2f} s to the first step, "
        f"{new.first_picture:.2f} s to the picture, {new.peak_mib:.0f} MiB"
    )
    say(f"the file's bytes read into new memory, and nothing else: {min(floors):.2f} s")


def _asked(program: str, folder: str, size: int, steps: int, precision: str) -> Cost:
    command = [sys.executable, "-m", "server.bench.memory", program, folder, str(size), str(steps), precision]
    said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode:
        raise ClickException(said.stderr.strip().rpartition("\n")[2])
    return Cost(**json.loads(said.stdout.rpartition("\n")[2]))


def _floor(file: Path) -> float:
    size = file.stat().st_size
    began = time.perf_counter()
    with open(file, "rb", buffering=0) as source, mmap(-1, size) as memory:
        while source.readinto(memoryview(memory)[source.tell() :]):
            pass
    return time.perf_counter() - began


# In a process of its own


def _ours(folder: Path, size: int, steps: int, precision: str) -> Cost:
    from graph.builder import WorkflowBuilder
    from nodes.checkpoints import load_checkpoint
    from nodes.latents import decode, empty_latent
    from nodes.sampling import ksampler
    from nodes.saving import save_image
    from nodes.text import encode_text

    engine = Engine(Folders.below(folder), store=MemoryStore(1 << 30), precision=cast(Any, precision))
    warm_up(engine)  # as a worker does before its first job

    def picture(seed: int) -> tuple[float, float]:
        with WorkflowBuilder() as workflow:
            model, clip, vae = load_checkpoint(ckpt_name=f"{NAME}.safetensors")
            latent = ksampler(
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
            save_image(images=decode(samples=latent, vae=vae))
        steps_done: list[float] = []

        def emit(event: Event) -> None:
            if isinstance(event, NodeProgressed):
                steps_done.append(time.perf_counter())

        began = time.perf_counter()
        engine.run(workflow, emit=emit).checked()
        return steps_done[0] - began, time.perf_counter() - began

    return _cost(picture)


def _theirs(folder: Path, size: int, steps: int, precision: str) -> Cost:
    import torch
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    loaded: list[Any] = []

    def picture(seed: int) -> tuple[float, float]:
        began = time.perf_counter()
        if not loaded:
            pipeline = cast(Any, StableDiffusionPipeline).from_pretrained(
                folder / "models" / "checkpoints" / NAME,
                torch_dtype=kind,
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
            pipeline.set_progress_bar_config(disable=True)
            loaded.append(pipeline)
        steps_done: list[float] = []

        def note(*_: object) -> dict[str, Any]:
            steps_done.append(time.perf_counter())
            return {}

        made = loaded[0](
            "a red house",
            negative_prompt="",
            num_inference_steps=steps,
            guidance_scale=CFG,
            height=size,
            width=size,
            generator=cast(Any, torch).Generator().manual_seed(seed),
            callback_on_step_end=note,
        )
        made.images[0].save(folder / f"{seed}.png")
        return steps_done[0] - began, time.perf_counter() - began

    return _cost(picture)


def _cost(picture: Callable[[int], tuple[float, float]]) -> Cost:
    first_step, first_picture = picture(0)
    warm = statistics.median(picture(seed)[1] for seed in range(1, WARM + 1))
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return Cost(first_step, first_picture, warm, int(found[1]) / 1024 if found else 0.0)


def _main(program: str, folder: str, size: str, steps: str, precision: str) -> None:
    os.environ["TQDM_DISABLE"] = "1"
    made = (_ours if program == "latentloom" else _theirs)(Path(folder), int(size), int(steps), precision)
    print(json.dumps(asdict(made)), end="")


if __name__ == "__main__":
    _main(*sys.argv[1:])
