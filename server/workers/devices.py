"""Devices: how a worker gets the one it is for, and what can be said of it."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from server.workers.messages import Device

if TYPE_CHECKING:
    from torch import device as TorchDevice


class NoDevice(RuntimeError):
    """A worker cannot have the device it is for."""


def environment(device: str, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: of several GPUs it sees its own alone.

    So nothing it imports can take memory on another one, and what it makes is named as by any other GPU's worker.
    """
    kind, _, index = device.partition(":")
    changed = dict(given)
    if kind == "cuda" and index:
        visible = [name for name in given.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        if visible and int(index) >= len(visible):
            raise NoDevice(f"there is no {device}: CUDA_VISIBLE_DEVICES allows {len(visible)} devices")
        changed["CUDA_VISIBLE_DEVICES"] = visible[int(index)] if visible else index
    return changed


def pool_device(device: str) -> str:
    """What the model pool is to be told. Raises NoDevice.

    For a GPU that is `auto`, as results are named after what was asked for: so all GPUs, and `latentloom run`, share.
    """
    if not device.startswith("cuda"):
        return device
    import torch

    if not torch.cuda.is_available():
        raise NoDevice(f"there is no {device}: torch {torch.__version__} finds no CUDA device it can use")
    return "auto"


def inspect_cpu(name: str = "cpu") -> Device:
    """A device without memory of its own, as it is now."""
    total, free = _memory()
    return Device(
        name=name,
        type=name,
        index=None,
        vram_total=total,
        vram_free=free,
        torch_vram_total=total,
        torch_vram_free=free,
    )


def inspect(device: "TorchDevice") -> Device:
    """A device as it is now."""
    if device.type != "cuda":
        return inspect_cpu(device.type)
    import torch

    cuda = cast(Any, torch.cuda)
    free, total = cuda.mem_get_info(device)
    statistics = cuda.memory_stats(device)
    reserved, active = statistics["reserved_bytes.all.current"], statistics["active_bytes.all.current"]
    return Device(
        name=f"cuda:{device.index or 0} {cuda.get_device_name(device)}",
        type="cuda",
        index=device.index or 0,
        vram_total=total,
        vram_free=free + reserved - active,
        torch_vram_total=reserved,
        torch_vram_free=reserved - active,
    )


def _memory() -> tuple[int, int]:
    """The machine's memory and what is free of it, in bytes; 0 where the system does not tell."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0, 0
