"""Killing runs: how much is computed again after `kill -9` at random moments, and whether the picture is the same."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from click import ClickException

STEP = "SamplerStepBetween"

Say = Callable[[str], None]


@dataclass(slots=True)
class Life:
    """What one process did until it ended. Steps go by their numbers, which are the same in every life."""

    begun: list[int] = field(default_factory=list[int])
    finished: list[int] = field(default_factory=list[int])
    seconds: list[float] = field(default_factory=list[float])
    """Of the steps finished; the first one is much longer than the others, as it loads the model."""
    files: list[str] = field(default_factory=list[str])
    killed: bool = False

    @property
    def picture(self) -> bytes | None:
        return Path(self.files[0]).read_bytes() if self.files else None

    def follow(self, event: dict[str, Any]) -> None:
        self.files += event.get("files", [])
        if event.get("class_type") != STEP:
            return
        number = int(event["node"].rpartition(".")[2])
        if event["event"] == "node_started":
            self.begun.append(number)
        elif event["event"] == "node_finished":
            self.finished.append(number)
            self.seconds.append(event["seconds"])


def measure(kills: int, steps: int, size: int, seed: int, say: Say) -> None:
    """Kill a run again and again, which goes on where it was; print what was computed again. Raises ClickException."""
    chance = Random(seed)
    lives: list[Life] = []
    pictures = 0
    with TemporaryDirectory() as folder:
        while True:  # until the kills are used up: a run may be done before its turn to be killed comes
            words = ["run", "text_to_image", "--json", "--seed", str(seed + pictures)]
            for change in (
                f"KSampler.steps={steps}",
                f"EmptyLatentImage.width={size}",
                f"EmptyLatentImage.height={size}",
            ):
                words += ["--set", change]
            whole = live(["--data", f"{folder}/whole {pictures}", *words, "--store", "none"])
            left = kills - sum(life.killed for life in lives)
            lives += _killed(["--data", f"{folder}/killed {pictures}", *words], left, whole, chance)
            if lives[-1].picture != whole.picture:
                raise ClickException(f"the picture of seed {seed + pictures} is another one after the kills")
            pictures += 1
            if sum(life.killed for life in lives) == kills:
                break
    say(
        f"{kills} kills of a run of {steps} steps of {median(whole.seconds):.3f} s (loomlet, {size} × {size} pixels): "
        f"{pictures} {'picture' if pictures == 1 else 'pictures'}, the same to the last byte as without a kill"
    )
    pairs = [(life, after) for life, after in pairwise(lives) if life.killed]
    finished = _counted(computed_again(life.finished, after) for life, after in pairs)
    begun = _counted(computed_again(life.begun, after) for life, after in pairs)
    say("steps computed again, and after how many kills")
    say(f"  that were finished                                {finished}")
    say(f"  with the one that was running when the kill came  {begun}")


def _killed(words: Sequence[str], kills: int, whole: Life, chance: Random) -> list[Life]:
    """The lives of one run that is killed so many times, at moments that are spread over all of its steps."""
    lives: list[Life] = []
    left = len(whole.begun)
    while len(lives) < kills:
        moment = chance.uniform(0, 2 * max(left, 1) / (kills - len(lives) + 1))
        lives.append(live(words, moment, whole.seconds))
        if not lives[-1].killed:
            return lives
        left = whole.begun[-1] - max([*lives[-1].finished, lives[-1].begun[0] - 1])
    return [*lives, live(words)]


def computed_again(steps: Iterable[int], after: Life) -> int:
    """How many of the steps of a life are computed in the next one too."""
    return sum(number >= after.begun[0] for number in steps) if after.begun else 0


def _counted(numbers: Iterable[int]) -> str:
    return ", ".join(f"{number}: {times} ×" for number, times in sorted(Counter(numbers).items()))


def live(words: Sequence[str], moment: float | None = None, seconds: Sequence[float] = ()) -> Life:
    """Run `latentloom` in a process of its own; kill it at a moment, counted in steps, if one is given.

    Args:
        words: the command line of a run that prints its events as JSON.
        seconds: that its steps take, the first one and the others.
    """
    command = [sys.executable, "-m", "server", *words]
    life = Life()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):  # the last one may have been cut off
                life.follow(json.loads(line))
            if moment is not None and life.begun and len(life.finished) >= int(moment) and not life.killed:
                time.sleep(moment % 1 * (median(seconds) if moment >= 1 else seconds[0]))
                process.kill()
                life.killed = True
    life.killed = life.killed and process.returncode != 0
    if process.returncode != 0 and not life.killed:
        raise ClickException(f"this failed: {' '.join(command)}")
    return life
