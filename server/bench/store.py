"""The disk tier: what it costs sampling, and what opening it and reading from it cost."""

import os
import sqlite3
import statistics
import time
from collections.abc import Callable
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
from nodes.values import Image, Latent
from server.settings import Settings

FEW, MANY = 2, 10
"""A step's time is the difference between a long and a short run, so what surrounds the steps cancels out."""
ROOM = 20 << 30
LOOKS = 100

Say = Callable[[str], None]
Times = tuple[float, float]
"""Seconds that passed, and seconds of processors: what else the machine does disturbs these less."""


def measure(settings: Settings, repeats: int, size: int, entries: int, say: Say) -> None:
    """Print medians of interleaved runs in one process."""
    with TemporaryDirectory() as folder:
        _sampling(settings, Path(folder) / "sampling", repeats, size, say)
        _reading(Path(folder) / "reading", entries, say)


def _sampling(settings: Settings, folder: Path, repeats: int, size: int, say: Say) -> None:
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


def _reading(folder: Path, entries: int, say: Say) -> None:
    import torch

    kinds = {
        "a latent of 64 × 64": (Latent(torch.randn(1, 4, 64, 64)),),
        "a picture of 512 × 512": (Image(torch.rand(1, 512, 512, 3)),),
        "a picture of 2048 × 2048": (Image(torch.rand(1, 2048, 2048, 3)),),
    }
    store = DiskStore(folder, ROOM, CODEC)
    for name, outputs in kinds.items():
        store.put(_key(name), outputs, class_name="Bench", seconds=1.0)
    store.close()
    with closing(sqlite3.connect(store.folder.index)) as index, index:
        index.execute(
            "WITH RECURSIVE row(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM row WHERE at < ?) "
            "INSERT INTO entry SELECT randomblob(32), 'Bench', 1000, 1, 0, 0, 0, 1 FROM row",
            (entries,),
        )
    began = time.perf_counter()
    store = DiskStore(folder, ROOM, CODEC)
    store.get(_key("a latent of 64 × 64"))
    opened = time.perf_counter() - began
    say(f"a store of {entries:,} entries is opened, and the first found, in {opened * 1000:.2f} ms")
    say(f"a look-up in vain takes {_median(lambda: store.get(b'?' * 32)) * 1e6:.0f} µs")
    say("found on the disk, and how many times that is reading a plain file of the size:")
    for name, outputs in kinds.items():
        key = _key(name)
        path = store.folder.path(key)
        look = partial(store.get, key)
        cold, cold_ratio = _against(look, path.read_bytes, partial(_forget, path))
        warm, warm_ratio = _against(look, path.read_bytes)
        written = _median(partial(_write, store, key, outputs), 20)
        say(
            f"{name:<25}{cold * 1000:8.2f} ms {cold_ratio:5.2f} × from the disk itself, {warm * 1000:8.2f} ms "
            f"{warm_ratio:5.2f} × from the system's cache; written in {written * 1000:.2f} ms"
        )
    store.close()


def _write(store: DiskStore, key: Key, outputs: Outputs) -> None:
    store.put(key, outputs, class_name="Bench", seconds=1.0)
    store.flush()


def _against(
    look: Callable[[], object], read: Callable[[], object], before: Callable[[], object] = int
) -> tuple[float, float]:
    """The median of the first, and the median of the paired ratios."""
    pairs = [(_time(look, before), _time(read, before)) for _ in range(LOOKS)]
    return statistics.median(one for one, _ in pairs), statistics.median(one / other for one, other in pairs)


def _forget(path: Path) -> None:
    """Let the system drop what it has of a file in memory, where it can be asked to."""
    advise = getattr(os, "posix_fadvise", None)
    if advise is not None:
        with open(path, "rb") as file:
            advise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _median(action: Callable[[], object], times: int = LOOKS) -> float:
    return statistics.median(_time(action) for _ in range(times))


def _time(action: Callable[[], object], before: Callable[[], object] = int) -> float:
    before()
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _key(name: str) -> Key:
    return blake2b(name.encode(), digest_size=32).digest()
