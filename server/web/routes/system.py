"""`/system_stats`, `/features` and what else an editor asks at its start, of the server as a whole."""

import asyncio
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel

from server.web.endpoint import get
from server.web.machine import free_memory, whole_memory
from server.web.site import Site

PROTOCOL = "0.3.64"
"""The version of ComfyUI whose protocol this is."""


class System(BaseModel):
    """The machine and its programs. Memory is in bytes."""

    os: str
    ram_total: int
    ram_free: int
    comfyui_version: str = PROTOCOL
    latentloom_version: str | None
    required_frontend_version: str | None
    installed_templates_version: str | None
    required_templates_version: str | None
    python_version: str
    pytorch_version: str | None
    embedded_python: bool = False
    argv: list[str]


class SystemStats(BaseModel):
    """What runs here."""

    system: System
    devices: list[dict[str, Any]]


async def system_stats(site: Site) -> SystemStats:
    """The machine, its programs, and its devices."""
    system = await asyncio.to_thread(_system, site)
    return SystemStats(system=system, devices=[dict(device) for device in await site.device_stats()])


def _system(site: Site) -> System:
    templates = _installed("comfyui-workflow-templates")
    return System(
        os=os.name,
        ram_total=whole_memory(),
        ram_free=free_memory(),
        latentloom_version=_installed("latentloom"),
        required_frontend_version=_installed("comfyui-frontend-package"),
        installed_templates_version=templates,
        required_templates_version=templates,
        python_version=sys.version,
        pytorch_version=_installed("torch"),
        argv=list(site.arguments),
    )


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


async def features(site: Site) -> dict[str, Any]:
    """What this server can do beside what every server of the protocol can."""
    return {
        "supports_preview_metadata": True,
        "max_upload_size": site.limits.upload_bytes,
        **site.features,
    }


async def extensions(site: Site) -> list[str]:
    """Scripts that an editor is to load."""
    return list(site.extensions)


async def nothing() -> dict[str, Any]:
    """Nothing: this server has none of these."""
    return {}


async def translations() -> dict[str, Any]:
    """Nothing: the texts of nodes are in English alone."""
    return {}


ROUTES = (
    get("/system_stats", system_stats),
    get("/features", features),
    get("/extensions", extensions),
    get("/i18n", translations),
    get("/node_replacements", nothing),
    get("/global_subgraphs", nothing),
)
