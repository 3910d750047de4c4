"""Starting up: from the command line to the first event and the first picture, against the floor of the imports."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO, cast

from click import ClickException

from server.bench.environment import usual_environment

Say = Callable[[str], None]

FLOOR = """
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from transformers.models.clip.modeling_clip import CLIPTextModel
"""
"""What any program needs to import before it can make a picture with these libraries."""

QUICK = (["--help"], ["nodes"], ["validate", "text_to_image"])


def measure(repeats: int, say: Say) -> None:
    """Print medians over interleaved repeats, each in a process of its own."""
    floor: list[float] = []
    events: list[float] = []
    pictures: list[float] = []
    quick: dict[str, list[float]] = {" ".join(words): [] for words in QUICK}
    for _ in range(repeats):
        floor.append(_time([sys.executable, "-c", FLOOR]))
        first_event, picture = _first_picture()
        events.append(first_event)
        pictures.append(picture)
        for words in QUICK:
            quick[" ".join(words)].append(_time(_latentloom(*words)))
    base = statistics.median(floor)
    say(f"importing torch, diffusers' and transformers' models (the floor)  {base:6.2f} s   1.00 ×")
    say(_line("latentloom run text_to_image: to the first event", statistics.median(events), base))
    say(_line("latentloom run text_to_image: to the picture on disk", statistics.median(pictures), base))
    for words, times in quick.items():
        say(_line(f"latentloom {words}", statistics.median(times), base))


def _line(name: str, seconds: float, base: float) -> str:
    return f"{name:<66}{seconds:6.2f} s {seconds / base:6.2f} ×"


def _first_picture() -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        # A data folder of its own: results of earlier runs must not be reused.
        command = _latentloom("--data", folder, "run", "text_to_image", "--json")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=usual_environment()) as process:
            first = 0.0
            for line in cast(IO[str], process.stdout):
                first = first or time.perf_counter() - began
                if json.loads(line).get("files"):
                    return first, time.perf_counter() - began
        raise ClickException(f"no picture came out of: {' '.join(command)}")


def _latentloom(*words: str) -> list[str]:
    return [sys.executable, "-m", "server", *words]


def _time(command: Sequence[str]) -> float:
    began = time.perf_counter()
    if subprocess.run(command, stdout=subprocess.DEVNULL, env=usual_environment()).returncode:
        raise ClickException(f"this failed: {' '.join(command)}")
    return time.perf_counter() - began
