"""`latentloom bench`: measure this installation."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from server.settings import Settings, wrong_requests

if TYPE_CHECKING:
    from nodes.precision import PrecisionChoice
    from server.bench.random_models import RandomModel

PRECISIONS: "tuple[PrecisionChoice, ...]" = ("fp32", "bf16")
RANDOM: "tuple[RandomModel, ...]" = ("sd15", "sdxl-small")


@click.group(epilog="Example: latentloom bench engine")
def bench() -> None:
    """Measure speed and quality here; every figure is a ratio or a rate taken in one run."""


def _numbers(context: click.Context, parameter: click.Parameter, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise click.BadParameter("it should be numbers from 1 with commas between, for example 10,1000")
    return numbers


def _sizes(context: click.Context, parameter: click.Parameter, text: str) -> list[int]:
    numbers = _numbers(context, parameter, text)
    if min(numbers) < 64:
        raise click.BadParameter("a picture has 64 pixels a side or more")
    return numbers


@contextmanager
def _explained() -> Generator[None]:
    """A sentence instead of a traceback for what cannot be measured."""
    from graph.errors import RunFailed

    with wrong_requests():
        try:
            yield
        except RunFailed as error:
            raise click.ClickException(str(error)) from error


@bench.command()
@click.option(
    "--sizes",
    default="100,300,1000,10000,100000",
    show_default=True,
    callback=_numbers,
    help="Numbers of nodes, from 1.",
)
def engine(sizes: list[int]) -> None:
    """Time per node of chains, wide graphs and lattices of trivial nodes: cold, unchanged, and with the end changed."""
    from server.bench.engine import measure

    measure(sizes, click.echo)


@bench.command()
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
def start(repeats: int) -> None:
    """Time from the command line to the first event and to the first picture, against the floor of the imports."""
    from server.bench.start import measure

    measure(repeats, click.echo)


@bench.command()
@click.option("--repeats", type=click.IntRange(1), default=10, show_default=True)
@click.option("--size", "sizes", default="128", show_default=True, callback=_sizes, help="Pixels of a side: 128,256.")
@click.option("--batch", "batches", default="1", show_default=True, callback=_numbers, help="Pictures at once: 1,4.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True)
@click.option("--checkpoint", default="loomlet", show_default=True, help="A diffusers folder below models/checkpoints.")
@click.option("--random", type=click.Choice(RANDOM), help="A model with random weights, made for the occasion.")
@click.pass_obj
def sampling(
    settings: Settings,
    repeats: int,
    sizes: list[int],
    batches: list[int],
    precision: "PrecisionChoice",
    checkpoint: str,
    random: "RandomModel | None",
) -> None:
    """Seconds per sampler step against diffusers' own pipeline: same weights, precision and size, interleaved."""
    from server.bench.sampling import Asked, measure

    asked = Asked(
        sizes=sizes,
        batches=batches,
        precision=precision,
        checkpoint=random or checkpoint,
        random=random,
        repeats=repeats,
    )
    with _explained():
        measure(settings, asked, click.echo)


@bench.command()
@click.option("--size", type=click.IntRange(64), default=128, show_default=True, help="Pixels of a side.")
@click.option("--steps", type=click.IntRange(1), default=4, show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default="bf16", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
def memory(size: int, steps: int, precision: "PrecisionChoice", repeats: int) -> None:
    """Stable Diffusion 1.5 with random weights, from a file to a picture: seconds and memory, against diffusers."""
    from server.bench.memory import measure

    with _explained():
        measure(size, steps, precision, repeats, click.echo)


@bench.command()
@click.option("--repeats", type=click.IntRange(2), default=10, show_default=True)
@click.option("--size", type=click.IntRange(64), default=512, show_default=True, help="Pixels of a side.")
@click.option("--entries", default=100_000, show_default=True, help="How many entries the large store has.")
@click.pass_obj
def store(settings: Settings, repeats: int, size: int, entries: int) -> None:
    """What keeping every step on disk costs sampling, and what finding it again costs against reading a plain file."""
    from server.bench.store import measure

    with _explained():
        measure(settings, repeats, size, entries, click.echo)


@bench.command()
@click.option("--kills", type=click.IntRange(1), default=50, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=30, show_default=True)
@click.option("--size", type=click.IntRange(64), default=256, show_default=True, help="Pixels of a side.")
@click.option("--seed", default=0, show_default=True, help="Of the moments of the kills, and of the picture.")
def resume(kills: int, steps: int, size: int, seed: int) -> None:
    """Kill a run at random moments: how many steps are computed again, and whether the picture is the same."""
    from server.bench.resume import measure

    measure(kills, steps, size, seed, click.echo)


@bench.command()
@click.option("--over", type=click.IntRange(0), default=100_000, show_default=True, help="Jobs that are over.")
@click.option("--waiting", type=click.IntRange(0), default=10_000, show_default=True, help="Jobs that wait.")
@click.option("--repeats", type=click.IntRange(1), default=50, show_default=True)
@click.option("--database", metavar="URL", help="An empty database, postgresql+asyncpg://…; else SQLite for a while.")
def queue(over: int, waiting: int, repeats: int, database: str | None) -> None:
    """How fast the server's queue takes, hands out and ends jobs beside many others, and finds them in its history."""
    from server.bench.queue import measure

    measure(over, waiting, repeats, database, click.echo)


@bench.command()
@click.option("--repeats", type=click.IntRange(1), default=9, show_default=True)
@click.option("--submissions", type=click.IntRange(50), default=3000, show_default=True, help="Jobs handed in at once.")
@click.option("--over", type=click.IntRange(1), default=100_000, show_default=True, help="Jobs in the history.")
@click.option("--waiting", type=click.IntRange(1), default=10_000, show_default=True, help="Jobs in the queue.")
@click.option("--listeners", type=click.IntRange(2), default=1000, show_default=True, help="Websockets of one job.")
def server(repeats: int, submissions: int, over: int, waiting: int, listeners: int) -> None:
    """A whole server under load from outside: its start, chains of nodes, submissions, many jobs, many websockets."""
    from server.bench.server import Load, measure

    load = Load(repeats=repeats, submissions=submissions, over=over, waiting=waiting, listeners=listeners)
    with _explained():
        measure(load, click.echo)


@bench.command()
@click.option(
    "--count",
    type=click.IntRange(20),
    default=480,
    show_default=True,
    help="Pictures to judge, over all kinds of prompts.",
)
@click.pass_obj
def model(settings: Settings, count: int) -> None:
    """How well the embedded model follows its prompts, by an independent judge whose own accuracy is printed first."""
    from server.bench.model import measure

    with _explained():
        measure(settings, count, click.echo)


@bench.command()
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--size", type=click.IntRange(64), default=128, show_default=True, help="Pixels of a side.")
def edit(repeats: int, size: int) -> None:
    """What it costs to make a picture again after one thing was changed, against making it from nothing."""
    from server.bench.edit import measure

    with _explained():
        measure(repeats, size, click.echo)
