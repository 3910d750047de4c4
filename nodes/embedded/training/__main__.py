"""The whole training run: `python -m nodes.embedded.training --out training`.

Every stage keeps its result in the output folder and is skipped when it is there; the long ones also go on from where
they were interrupted. About an hour and a half on two idle processor cores.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from .. import DIRECTIONS, JUDGE, LOOMLET
from . import (
    adherence,
    album,
    autoencoder,
    captions,
    export,
    judge,
    picture_tower,
    preview,
    sheets,
    text_encoder,
    tokenizer,
    unet,
)
from .album import Album
from .painter import Painter
from .progress import say

SEED = 1


class Plan(NamedTuple):
    """What to draw and how long to train."""

    small: Album = Album("pictures128", 20000, 128, seed=1)
    large: Album = Album("pictures192", 4000, 192, seed=2)
    judging: Album = Album("judging128", 12000, 128, seed=3, held_out=0.2, kept_digits=True)
    sentences: int = 30000
    pictures: autoencoder.Schedule = autoencoder.Schedule()
    decoder: autoencoder.Schedule = autoencoder.Schedule(steps=600, learning_rate=8e-4)
    words: text_encoder.Schedule = text_encoder.Schedule()
    velocity: unet.Schedule = unet.Schedule()
    measured: int = 600


TRIAL = Plan(
    small=Album("pictures128", 120, 128, seed=1),
    large=Album("pictures192", 24, 192, seed=2),
    judging=Album("judging128", 300, 128, seed=3, held_out=0.2, kept_digits=True),
    sentences=2000,
    pictures=autoencoder.Schedule(steps=4),
    decoder=autoencoder.Schedule(steps=2),
    words=text_encoder.Schedule(steps=4),
    velocity=unet.Schedule(steps=8, sheet_every=20),
    measured=20,
)
"""Everything once, in two minutes: to see that it runs."""


def once(name: str, out: Path, stage: Callable[[], object]) -> None:
    """Run a stage unless an earlier run has finished it."""
    mark = out / f"{name}.done"
    if mark.exists():
        return say(name, "done before")
    say(name, "begins")
    stage()
    mark.touch()
    return say(name, "done")


def run(plan: Plan, out: Path, folder: Path, verdict: Path) -> None:
    """All stages in order; the checkpoint lands in `folder`, the judge in `verdict`."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    def draw() -> None:
        for each in (plan.small, plan.large):
            album.build(each, out)

    def learn_words() -> None:
        tokenizer.train(captions.corpus(plan.sentences, SEED), out / "tokenizer")
        text_encoder.train(tokenizer.load(out / "tokenizer"), out, plan.words, SEED)

    small = out / f"{plan.small.name}.npy"

    def learn_pictures() -> None:
        autoencoder.train(small, out, plan.pictures, SEED)
        autoencoder.whiten(small, out)

    def encode() -> None:
        for each in (plan.small, plan.large):
            autoencoder.encode_album(out / f"{each.name}.npy", out)

    once("pictures", out, draw)
    once("words", out, learn_words)
    once("autoencoder", out, learn_pictures)
    once("latents", out, encode)
    once("unet", out, lambda: unet.train((plan.small, plan.large), out, plan.velocity, SEED))
    once("decoder", out, lambda: autoencoder.refine(small, out, plan.decoder, SEED))
    once("judge", out, lambda: judge.train(plan.judging, out, verdict, SEED))
    export.write(out, folder)
    preview.write(folder)
    picture_tower.write(verdict.with_name(DIRECTIONS.name), SEED)
    say("export", f"{export.size(folder) / 1e6:.1f} MB in {folder}")
    sheets.save(Painter.shipped(folder).paint, folder.parent / "contact_sheet.png")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m nodes.embedded.training", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("training"), help="where pictures and unfinished stages lie")
    parser.add_argument("--trial", action="store_true", help="everything once, at tiny sizes, into the output folder")
    given = parser.parse_args()
    if given.trial:
        run(TRIAL, given.out, given.out / "loomlet", given.out / "judge.safetensors")
        return
    run(Plan(), given.out, LOOMLET, JUDGE)
    print(adherence.shipped(Plan().measured).text())


if __name__ == "__main__":
    main()
