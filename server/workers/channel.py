"""A worker's end of the socket between it and the server.

It is a socket of its own, handed over when the process is started, and not the standard output: nodes may print there,
and write whatever they like. On Windows it would have to be handed over by `socket.share`, here and in `process.py`.
"""

import os
import socket
from contextlib import suppress

from server.workers.framing import HEADER_BYTES, read_header
from server.workers.messages import TO_WORKER, ToWorker


class Channel:
    """Messages in, frames out. One thread may receive while another sends.

    Args:
        descriptor: of a connected stream socket, which belongs to the channel from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        # Programs that nodes start must not have it, nor must copies of this process: the server could not tell
        # that the worker is gone.
        self._socket.set_inheritable(False)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._socket.close)

    def receive(self) -> list[ToWorker] | None:
        """Wait for the next messages. None: the server is gone, perhaps in the middle of a word. Raises BadFrame."""
        header = self._read(HEADER_BYTES)
        if header is None:
            return None
        sizes = read_header(header)
        body = self._read(sizes.body)
        return None if body is None else TO_WORKER.messages(sizes, body)

    def send(self, frame: bytes) -> None:
        """Say something. Waits until the server takes it. Raises OSError when it is gone."""
        self._socket.sendall(frame)

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, size: int) -> bytes | None:
        parts = bytearray(size)
        view = memoryview(parts)
        while view:
            try:
                count = self._socket.recv_into(view)
            except OSError:
                return None
            if not count:
                return None
            view = view[count:]
        return bytes(parts)
