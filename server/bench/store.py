"""The disk tier: what it costs sampling, and what opening it and reading from it cost."""

import os
import sqlite3
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from graph.builder import WorkflowBuilder
from graph.disk_store import DiskStore
from graph.keys import Key
from graph.store import MemoryStore, Outputs, Store
from graph.tiered_store import TieredStore
from nodes.checkpoints import load_checkpoint
from nodes.codecs import CODEC
from nodes.engine import Engine
from nodes.latents import empty_latent
from nodes.sampling import ksampler
from nodes.text import encode_text
from nodes.values import Latent, SamplerState
from server.quantities import size_text
from server.settings import Settings

FEW, MANY = 2, 10
"""A step's time is the difference between a long and a short run, so what surrounds the steps cancels out."""
ROOM = 20 << 30
LOOKS = 100
SIZES = (1000, 64_000, 1_000_000, 4_000_000, 16_000_000, 100_000_000)
MOST_BYTES = 400_000_000
"""Of all entries of a size together."""

Say = Callable[[str], None]
Action = Callable[[], object]
Times = tuple[float, float]
"""Seconds that passed, and seconds of processors: what else the machine does disturbs these less."""


def measure(settings: Settings, repeats: int, size: int, entries: int, say: Say) -> None:
    """Print medians of interleaved runs in one process."""
    with TemporaryDirectory() as folder:
        step = _sampling(settings, Path(folder) / "sampling", repeats, size, say)
        _keeping(Path(folder) / "keeping", size, step, say)
        say("")
        _reading(Path(folder) / "reading", entries, say)


# Sampling


def _sampling(settings: Settings, folder: Path, repeats: int, size: int, say: Say) -> float:
    """Compare sampling with and without the disk; returns the seconds of a step."""
    engine = Engine(settings.folders())
    disk = DiskStore(folder, ROOM, CODEC)
    stores: dict[str, Store] = {
        "memory alone": MemoryStore(1 << 30),
        "memory and disk": TieredStore(MemoryStore(1 << 30), disk),
    }
    times: dict[str, list[Times]] = {name: [] for name in stores}
    for repeat in range(repeats + 1):
        for name in list(stores) if repeat % 2 else reversed(stores):
            engine.store = stores[name]
            many, few = _sample(engine, size, MANY, 2 * repeat), _sample(engine, size, FEW, 2 * repeat + 1)
            times[name].append((many[0] - few[0], many[1] - few[1]))
    disk.close()
    say(f"loomlet, {size} × {size} pixels, euler, every step kept; until the last result is on the disk, per step")
    for at, what in enumerate(("time", "processor time")):
        without, with_disk = ([each[at] / (MANY - FEW) for each in found[1:]] for found in times.values())
        ratios = [b / a for a, b in zip(without, with_disk, strict=True)]
        low, high = statistics.quantiles(ratios, n=4)[::2]
        say(
            f"{what:<15}{statistics.median(without) * 1000:9.2f} ms in memory alone, "
            f"{statistics.median(with_disk) * 1000:9.2f} ms with the disk; ratio {statistics.median(ratios):.3f} "
            f"(quartiles of the paired ratios: {low:.3f} … {high:.3f})"
        )
    return statistics.median(each[0] / (MANY - FEW) for each in times["memory alone"][1:])


def _sample(engine: Engine, size: int, steps: int, seed: int) -> Times:
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint(ckpt_name="loomlet")
        text = encode_text(text="a red house", clip=clip)
        latent: Any = ksampler(
            model=model,
            seed=seed,
            steps=steps,
            cfg=4.0,
            positive=text,
            negative=encode_text(text="", clip=clip),
            latent_image=empty_latent(width=size, height=size),
        )
    began, worked = time.perf_counter(), time.process_time()
    engine.run(workflow, targets=[latent.step]).checked()
    return time.perf_counter() - began, time.process_time() - worked


def _keeping(folder: Path, size: int, step: float, say: Say) -> None:
    """What one state costs, by itself: differences of a hundredth are hard to see between runs."""
    import torch

    disk = DiskStore(folder, ROOM, CODEC)
    waited: list[float] = []
    worked: list[float] = []
    other = torch.rand(1000, 1000)
    for at in range(LOOKS):
        x = torch.rand(1, 4, size // 8, size // 8)
        state = SamplerState(x, 1.0, "dpmpp_2m", 0, "", history=(x + 1,), denoised=x + 2)
        torch.mm(other, other)  # a step leaves nothing of the store's in the processor's cache
        began, used = time.perf_counter(), time.process_time()
        disk.put(_key(f"state {at}"), (state,), class_name="SamplerStepBetween", seconds=step)
        waited.append(time.perf_counter() - began)
        disk.flush()
        worked.append(time.process_time() - used)
    disk.close()
    nbytes = 3 * 4 * 4 * (size // 8) ** 2
    for what, seconds in (
        ("makes its sampler wait", statistics.median(waited)),
        ("costs processors", statistics.median(worked)),
    ):
        say(
            f"a state of {size_text(nbytes)} {what} {seconds * 1000:.2f} ms: {seconds / step:.2%} of such a step, "
            f"{seconds:.2%} of one that takes a second"
        )


# Reading


def _reading(folder: Path, entries: int, say: Say) -> None:
    store = DiskStore(folder / "store", ROOM, CODEC)
    store.put(_key("first"), _outputs(1000), class_name="Bench", seconds=1.0)
    store.close()
    with closing(sqlite3.connect(store.folder.index)) as index, index:
        index.execute(
            "WITH RECURSIVE row(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM row WHERE at < ?) "
            "INSERT INTO entry SELECT randomblob(32), 'Bench', 1000, 1, 0, 0, 0, 1 FROM row",
            (entries,),
        )
    began = time.perf_counter()
    store = DiskStore(folder / "store", ROOM, CODEC)
    store.get(_key("first"))
    opened = time.perf_counter() - began
    say(f"a store of {entries:,} entries is opened, and the first found, in {opened * 1000:.2f} ms")
    say(f"a look-up in vain takes {_median(lambda: store.get(b'?' * 32)) * 1e6:.0f} µs")
    say("")
    say("what is found on the disk, and how many times that is opening, reading and closing a plain file of the size")
    say(f"{'written in':>24}{'found: from the disk itself':>32}{'from the cache of the system':>32}")
    for size in SIZES:
        _read(store, folder, size, say)
    store.close()


def _read(store: DiskStore, folder: Path, size: int, say: Say) -> None:
    """Compare entries of a size with plain files; look at them in turn, as a run does."""
    count = max(2, min(LOOKS, MOST_BYTES // size))
    keys = [_key(f"{size} {at}") for at in range(count)]
    entries = [store.folder.path(key) for key in keys]
    files = [folder / f"{size} {at}" for at in range(count)]
    written = [_time(partial(_write, store, key, _outputs(size))) for key in keys]
    for entry, file in zip(entries, files, strict=True):
        file.write_bytes(entry.read_bytes())
        for each in (entry, file):
            _sync(each)
    looks = [partial(store.get, key) for key in keys]
    reads = [file.read_bytes for file in files]
    cold = _against(looks, reads, partial(_forget, (*entries, *files)))
    warm = [_against(looks, reads) for _ in range(1 + LOOKS // count)][1:]
    seconds, ratio = (statistics.median(each[at] for each in warm) for at in range(2))
    say(
        f"{size_text(size):>10}{statistics.median(written) * 1000:11.2f} ms{cold[0] * 1000:19.3f} ms{cold[1]:8.2f} ×"
        f"{seconds * 1000:19.3f} ms{ratio:8.2f} ×"
    )
    for each in (*entries, *files):
        each.unlink()


def _outputs(size: int) -> Outputs:
    """A latent of so many bytes."""
    import torch

    return (Latent(torch.rand(1, 4, size // 16, 1)),)


def _write(store: DiskStore, key: Key, outputs: Outputs) -> None:
    store.put(key, outputs, class_name="Bench", seconds=1.0)
    store.flush()


def _against(looks: Sequence[Action], reads: Sequence[Action], before: Action = int) -> Times:
    """The median of the first ones, and the median of the paired ratios."""
    before()
    pairs = [(_time(look), _time(read)) for look, read in zip(looks, reads, strict=True)]
    return statistics.median(one for one, _ in pairs), statistics.median(one / other for one, other in pairs)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _forget(paths: Sequence[Path]) -> None:
    """Let the system drop what it has of files in memory, where it can be asked to."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _median(action: Action) -> float:
    return statistics.median(_time(action) for _ in range(LOOKS))


def _time(action: Action) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _key(name: str) -> Key:
    return blake2b(name.encode(), digest_size=32).digest()
