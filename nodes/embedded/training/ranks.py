"""Training on several processor cores: one process each with one thread, gradients averaged once per step.

On two cores this is much faster than two threads, which wait for each other in every small operation.
"""

import os
import socket
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, ParamSpec, cast

import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor
from torch.nn import Parameter

P = ParamSpec("P")
# torch annotates neither of these two modules completely.
dist = cast(Any, torch.distributed)
mp = cast(Any, torch.multiprocessing)


def launch(worker: Callable[Concatenate[int, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run `worker(rank, *args)` in one process per core, and wait."""
    world = os.cpu_count() or 1
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    mp.start_processes(_join, args=(worker, world, port, args, kwargs), nprocs=world, start_method="spawn")


def _join(
    rank: int,
    worker: Callable[..., None],
    world: int,
    port: int,
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    try:
        worker(rank, *args, **kwargs)
    finally:
        dist.destroy_process_group()


def world() -> int:
    """How many processes train together."""
    return cast(int, dist.get_world_size())


def average_gradients(parameters: Iterable[Parameter]) -> None:
    """Give every process the mean of all gradients."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def share(values: Tensor) -> None:
    """Give every process the values of the first, in place."""
    dist.broadcast(values, 0)
