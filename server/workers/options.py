"""What a pool of workers, and each of its workers, is told at the start."""

import re
from dataclasses import dataclass, field
from logging import WARNING
from pathlib import Path
from typing import Literal

from graph.folders import default_data_folder

StoreChoice = Literal["disk", "memory", "none"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
PictureFormat = Literal["jpeg", "png"]

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewOptions:
    """Pictures of work in progress, for jobs that want them.

    Args:
        most_per_second: of one job; those between are left out. 0: none.
        side: the longer side in pixels.
    """

    most_per_second: float = 10.0
    side: int = 512
    format: PictureFormat = "jpeg"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How a worker runs jobs.

    Args:
        data: the data folder; by default the one of this installation.
        output: where pictures go; by default `output/` in the data folder.
        own_nodes: Python files, or folders of them, with nodes beside those in the data folder's `nodes/`.
        store: where results are kept.
        store_bytes: how much the store may hold; None: as much as `latentloom run` lets it.
        prepared_bytes: how much networks may take on the disk that are kept as this machine computes with them; None:
            as much as `latentloom run` lets them.
        precision: the number format of denoising networks.
        allow_pickle: whether models in pickles are read, numbers alone.
        warm_up: import the heavy libraries before the first job comes, which then is not kept waiting by them.
        heartbeat: seconds between signs of life.
        progress_per_second: how often the progress of each node is told at most.
        log_level: of the log records that are passed on to the server's log.
    """

    data: Path = field(default_factory=default_data_folder)
    output: Path | None = None
    own_nodes: tuple[Path, ...] = ()
    store: StoreChoice = "disk"
    store_bytes: int | None = None
    prepared_bytes: int | None = None
    precision: Precision = "auto"
    allow_pickle: bool = False
    warm_up: bool = True
    heartbeat: float = 1.0
    progress_per_second: float = 20.0
    previews: PreviewOptions = PreviewOptions()
    log_level: int = WARNING


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How many workers there are, and when one is replaced.

    Args:
        devices: one worker for each: `auto`, `cpu`, `mps`, `cuda`, `cuda:0` … A device may stand there twice.
        hang_seconds: a worker that gives no sign of life for so long is killed. A node that holds Python's lock keeps
            its worker silent; one that computes does not.
        start_seconds: a worker that is not ready after so long is killed.
        cancel_seconds: a worker that is still at a job so long after it was cancelled is killed; None: never.
        max_jobs: a worker is replaced after so many jobs; None: never.
        max_rss: a worker that holds more bytes of memory than this is replaced, between jobs; None: never.
        first_pause: seconds before the third attempt to start a worker that ends again and again; then twice as many
            each time.
        longest_pause: seconds above which that does not grow.

    Raises:
        ValueError: a value is none of these.
    """

    devices: tuple[str, ...] = ("auto",)
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    hang_seconds: float = 60.0
    start_seconds: float = 300.0
    cancel_seconds: float | None = 30.0
    max_jobs: int | None = None
    max_rss: int | None = None
    first_pause: float = 0.5
    longest_pause: float = 60.0

    def __post_init__(self) -> None:
        if not self.devices:
            raise ValueError("a pool needs at least one device")
        for device in self.devices:
            if not DEVICE.fullmatch(device):
                raise ValueError(f"there is no device {device!r}; there are auto, cpu, mps, cuda, cuda:0, cuda:1 …")
        if self.hang_seconds <= 2 * self.worker.heartbeat:
            raise ValueError("a worker must be given the time of more than two heartbeats")
        if self.max_jobs is not None and self.max_jobs < 1:
            raise ValueError("a worker must be given at least one job")
