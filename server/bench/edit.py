"""What an edit costs: the same picture made again after one thing was changed, against making it from nothing."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from graph.builder import WorkflowBuilder
from graph.events import Event, NodeFinished
from graph.store import MemoryStore
from nodes.checkpoints import load_checkpoint
from nodes.engine import Engine, usual_folders
from nodes.latents import decode, empty_latent
from nodes.sampling import ksampler_advanced
from nodes.saving import save_image
from nodes.text import encode_text

STEPS = 30
SWITCH = 20
"""The step from which another prompt guides."""

Say = Callable[[str], None]


def workflow(size: int, **changes: Any) -> WorkflowBuilder:
    """Thirty steps, the last ten under another prompt."""
    given: dict[str, Any] = {
        "seed": 7,
        "last_prompt": "a red house in the snow at night",
        "last_cfg": 2.0,
        "end": STEPS,
    }
    given |= {"prefix": "edit", **changes}
    with WorkflowBuilder() as builder:
        model, clip, vae = load_checkpoint(ckpt_name="loomlet")
        common: dict[str, Any] = {
            "model": model,
            "noise_seed": given["seed"],
            "steps": STEPS,
            "scheduler": "normal",
            "negative": encode_text(text="", clip=clip),
        }
        first = ksampler_advanced(
            **common,
            cfg=2.0,
            positive=encode_text(text="a red house in the snow by day", clip=clip),
            latent_image=empty_latent(width=size, height=size),
            end_at_step=SWITCH,
            return_with_leftover_noise="enable",
        )
        second = ksampler_advanced(
            **common,
            cfg=given["last_cfg"],
            positive=encode_text(text=given["last_prompt"], clip=clip),
            latent_image=first,
            add_noise="disable",
            start_at_step=SWITCH,
            end_at_step=given["end"],
        )
        save_image(images=decode(samples=second, vae=vae), filename_prefix=given["prefix"])
    return builder


EDITS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("nothing", {}),
    ("the name of the file", {"prefix": "another"}),
    ("where it ends: step 25 of 30", {"end": 25}),
    (f"the prompt from step {SWITCH} on", {"last_prompt": "a red house in the desert at night"}),
    (f"cfg from step {SWITCH} on", {"last_cfg": 3.0}),
    ("the seed", {"seed": 8}),
)


def measure(repeats: int, size: int, say: Say) -> None:
    """Print the steps and the seconds each edit costs, the models being loaded, as the median of several runs."""
    with TemporaryDirectory() as folder:
        engine = Engine(usual_folders(Path(folder)))
        engine.run(workflow(size)).checked()  # loads the models
        whole = _median([_run(engine, size, None, {}) for _ in range(repeats)])
        say(f"{STEPS} steps at {size} × {size} pixels; seconds, and steps that ran")
        say(f"{'from nothing':<34}{whole[1]:>8.2f} s{whole[0]:>6} steps")
        for name, changes in EDITS:
            edited = _median([_run(engine, size, {}, changes) for _ in range(repeats)])
            say(f"{name:<34}{edited[1]:>8.2f} s{edited[0]:>6} steps{edited[1] / whole[1]:>8.1%} of it")


def _run(engine: Engine, size: int, before: dict[str, Any] | None, changes: dict[str, Any]) -> tuple[int, float]:
    """Steps and seconds of a run, with the results of another one at hand."""
    engine.store = MemoryStore(1 << 30)
    if before is not None:
        engine.run(workflow(size, **before)).checked()
    steps = 0

    def count(event: Event) -> None:
        nonlocal steps
        steps += isinstance(event, NodeFinished) and event.class_name == "SamplerStepBetween"

    edited = workflow(size, **changes)
    began = time.perf_counter()
    engine.run(edited, emit=count).checked()
    return steps, time.perf_counter() - began


def _median(measured: list[tuple[int, float]]) -> tuple[int, float]:
    ordered = sorted(measured, key=lambda each: each[1])
    return ordered[len(ordered) // 2]
