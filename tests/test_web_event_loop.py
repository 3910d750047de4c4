"""Nothing waits for the disk on the event loop: everybody else would wait with it."""

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.test_web_system import real_nodes
from tests.web_site import at_home, folders_in, form, png, put, told

pytestmark = pytest.mark.anyio

# What Python tells its audit hooks of files; there is nothing that would tell of `stat`.
OF_THE_DISK = frozenset(
    {"open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate"}
    | {"os.symlink", "os.chmod", "os.utime", "shutil.copyfile", "shutil.move", "sqlite3.connect", "subprocess.Popen"}
)

_watched: list[tuple[int, list[str]]] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    for thread, seen in _watched:
        if event in OF_THE_DISK and threading.get_ident() == thread:
            seen.append(f"{event} {arguments[:1]}")


# A hook stays until the process ends, so there is one for all tests, which mostly has nothing to listen for.
sys.addaudithook(_hear)


@contextmanager
def watched() -> Generator[list[str]]:
    """What this thread does with the disk."""
    seen: list[str] = []
    _watched.append((threading.get_ident(), seen))
    try:
        yield seen
    finally:
        _watched.pop()


async def test_the_watch_sees_what_it_should(tmp_path: Path):
    with watched() as seen:
        put(tmp_path / "a.txt")
    assert [event.split()[0] for event in seen] == ["os.mkdir", "open"] or [event.split()[0] for event in seen] == [
        "open"
    ]


async def test_no_route_waits_for_the_disk_on_the_loop(tmp_path: Path):
    folders = folders_in(tmp_path)
    put(folders.output / "a.png", png())
    put(folders.uploads / "a.png", png())
    put(folders.user / "a.txt")
    put(folders.models("loras") / "a.safetensors", (2).to_bytes(8, "little") + b"{}")
    put(folders.models("loras") / "a.png", png())
    gets = [
        "/view?filename=a.png",
        "/view?filename=a.png&preview=webp",
        "/view?filename=a.png&channel=rgb",
        "/view?filename=a.png&channel=a",
        "/view?filename=missing.png",
        "/view_metadata/loras?filename=a.safetensors",
        "/models",
        "/models/checkpoints",
        "/models/loras",
        "/embeddings",
        "/experiment/models",
        "/experiment/models/loras",
        "/experiment/models/checkpoints",
        "/experiment/models/preview/loras/0/a.safetensors",
        "/object_info",
        "/object_info/KSampler",
        "/workflow_templates",
        "/workflow_templates/latentloom/steps.json",
        "/workflow_templates/latentloom/steps.jpg",
        "/userdata?dir=.&recurse=true&full_info=true",
        "/v2/userdata",
        "/userdata/a.txt",
        "/settings",
        "/settings/a",
        "/system_stats",
        "/features",
        "/users",
        "/internal/files/output",
        "/internal/folder_paths",
        "/openapi.json",
        "/docs",
    ]
    async with at_home(tmp_path, describe_nodes=real_nodes) as client:

        async def everything() -> None:
            for path in gets:
                status, body = await told(client, "GET", path)
                assert status in (200, 404), (path, body)
            for name in ("/upload/image", "/upload/mask"):
                sent = form("b.png", png(), original_ref='{"filename": "a.png"}')
                assert (await told(client, "POST", name, **sent))[0] == 200
            assert (await told(client, "POST", "/userdata/b.txt", data=b"x"))[0] == 200
            assert (await told(client, "POST", "/userdata/b.txt/move/c.txt"))[0] == 200
            assert (await told(client, "DELETE", "/userdata/c.txt"))[0] == 204
            assert (await told(client, "POST", "/settings/a", data=b"1"))[0] == 200

        # Once beforehand: what is imported when it is first needed is read from the disk too.
        await everything()
        with watched() as seen:
            await everything()
    assert seen == []
