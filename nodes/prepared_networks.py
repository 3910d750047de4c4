"""Networks in the form in which this machine computes with them, in files that every process maps: `prepared/`.

To read a network for the first time is to copy it: into another type of numbers, into the order that the processor's
kernels want. The copy is kept, so that the next start has nothing to do but to map it, and workers share its memory.
"""

import atexit
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from graph.leases import Leases
from graph.store import Claim
from nodes.model_errors import ModelError
from nodes.safetensors_header import read_header

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Buffer

log = logging.getLogger("latentloom.models")

PREPARED_BYTES = 20 * 1024**3
LEAST_BYTES = 200_000_000
"""Smaller networks are read as quickly."""
ABANDONED_SECONDS = 3600.0
"""A draft of which nothing was written for so long belongs to a process that died."""
LEFT_FREE = 0.05
"""The share of the disk that is left to others."""
SUFFIX = ".safetensors"
ALIGNED = 64
ENTRY_BYTES = 160
"""What an entry of a header takes at most beside its name."""
TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "uint8": "U8", "int64": "I64"}


@dataclass(frozen=True, slots=True)
class PreparedNetworks:
    """Those below a folder, of `max_bytes` together: the ones that were not used for longest make way for others."""

    folder: Path
    max_bytes: int = PREPARED_BYTES
    least_bytes: int = LEAST_BYTES

    def find(self, key: bytes) -> "PreparedNetwork | None":
        """The network of a key, if it was prepared; a file that is not whole is removed."""
        path = self.path(key)
        try:
            found = PreparedNetwork(path)
        except FileNotFoundError:
            return None
        except (OSError, ModelError) as error:
            self.reject(key, error)
            return None
        with suppress(OSError):  # where nobody may write, nothing is removed either
            os.utime(path)
        return found

    def reject(self, key: bytes, error: Exception) -> None:
        """Remove a file that is not what its name says."""
        path = self.path(key)
        log.warning("%s cannot be used, and is made again: %s", path, error)
        with suppress(OSError):
            path.unlink(missing_ok=True)

    def begin(self, key: bytes, names: Iterable[str], nbytes: int) -> "Draft | None":
        """A file to write a network of about so many bytes into; None where it is too small, or there is no room.

        Also while another process writes the same. Raises OSError.
        """
        if not self.least_bytes <= nbytes <= self.max_bytes:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        claim = Leases(self.folder / "leases").claim(key)
        if claim is None:
            return None
        try:
            self._make_room(nbytes)
            disk = shutil.disk_usage(self.folder)
            if disk.free - nbytes < disk.total * LEFT_FREE:
                log.info("%s has no room for a network of %.0f MB", self.folder, nbytes / 1e6)
                claim.release()
                return None
            return Draft(self.path(key), names, claim)
        except BaseException:
            claim.release()
            raise

    def path(self, key: bytes) -> Path:
        return self.folder / f"{key.hex()}{SUFFIX}"

    def files(self) -> list[tuple[Path, os.stat_result]]:
        """The networks that are there, and the drafts, the one that was not used for longest first."""
        found: list[tuple[Path, os.stat_result]] = []
        with suppress(OSError):
            for entry in os.scandir(self.folder):
                with suppress(FileNotFoundError):
                    if entry.name.endswith((SUFFIX, ".tmp")):
                        found.append((Path(entry.path), entry.stat()))
        return sorted(found, key=lambda each: each[1].st_mtime)

    def clear(self, larger_than: int | None = None, before: float | None = None) -> tuple[int, int]:
        """Remove those above a size that were last used before a time. Who computes with one goes on doing so.

        Returns:
            How many there were, and their bytes.
        """
        chosen = [
            (path, status.st_size)
            for path, status in self.files()
            if (larger_than is None or status.st_size > larger_than) and (before is None or status.st_mtime < before)
        ]
        for path, _ in chosen:
            path.unlink(missing_ok=True)
        return len(chosen), sum(nbytes for _, nbytes in chosen)

    def _make_room(self, nbytes: int) -> None:
        total = sum(status.st_size for _, status in self.files())
        for path, status in self.files():
            is_draft = path.suffix == ".tmp"
            if status.st_mtime < time.time() - ABANDONED_SECONDS if is_draft else total + nbytes > self.max_bytes:
                path.unlink(missing_ok=True)
                total -= status.st_size
                log.info("removed %s: %.0f MB", path, status.st_size / 1e6)


class PreparedNetwork:
    """A network in a file, mapped. Raises ModelError for a file that is not whole, and OSError."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        if not path.exists():
            raise FileNotFoundError(path)
        self.names = frozenset(read_header(path))
        try:
            self._file = cast(Any, safe_open)(path, framework="pt", device="cpu").__enter__()
        except SafetensorError as error:
            raise ModelError(path, str(error)) from error

    def tensor(self, name: str) -> "Tensor":
        """One of its tensors, mapped from the file, which nobody changes."""
        return cast("Tensor", self._file.get_tensor(name))


class Draft:
    """A safetensors file of a network that is being written, tensor by tensor: all of them never are in memory.

    Args:
        names: of all tensors that are to come, for whose header there has to be room before the first.
    """

    def __init__(self, path: Path, names: Iterable[str], claim: Claim) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
        self._claim = claim
        self._entries: dict[str, dict[str, Any]] = {}
        room = 8 + sum(len(json.dumps(name)) + ENTRY_BYTES for name in names)
        self._start = -(-room // ALIGNED) * ALIGNED
        self._end = 0
        self._file: BinaryIO = open(self._temporary, "w+b", buffering=0)  # noqa: SIM115  # until it is finished
        self._file.seek(self._start)

    def add(self, name: str, tensor: "Tensor") -> None:
        """Write a tensor. Raises OSError."""
        import torch

        numbers = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        data = memoryview(cast("Buffer", numbers))
        start, self._end = self._end, self._end + len(data)
        kind = TYPES[str(tensor.dtype).removeprefix("torch.")]
        self._entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, self._end]}
        while data:
            data = data[self._file.write(data) :]

    def finish(self) -> PreparedNetwork:
        """The network that was written. It is shown to other processes as soon as no power cut can damage it.

        Raises OSError.
        """
        header = json.dumps(self._entries, separators=(",", ":")).encode()
        self._file.seek(0)
        room = self._start - 8
        self._file.write(room.to_bytes(8, "little") + header.ljust(room))
        network = PreparedNetwork(self._temporary)
        self._showing = Thread(target=self._show, name="prepared-network", daemon=True)
        self._showing.start()
        atexit.register(self._wait)
        return network

    def discard(self) -> None:
        """Give up."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)
        self._claim.release()

    def _wait(self) -> None:
        """Have the process that prepared a network end when it is there for the next one, or somebody is impatient."""
        try:
            self._showing.join()
        except KeyboardInterrupt:
            self._temporary.unlink(missing_ok=True)

    def _show(self) -> None:
        try:
            os.fsync(self._file.fileno())
            os.replace(self._temporary, self._path)
        except OSError as error:
            log.warning("%s cannot be kept: %s", self._path, error)
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)
        finally:
            self._file.close()
            self._claim.release()
            atexit.unregister(self._wait)
