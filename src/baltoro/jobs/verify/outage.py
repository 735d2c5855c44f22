"""A door between a rehearsed run and its object store that can be shut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

_BUFFER_BYTES = 1 << 16


class OutageDoor:
    """Passes bytes between a port of this machine and a server, until it is shut.

    While it is shut new connections are refused as a dead server's are, and those that stand are cut.

    Args:
        endpoint: ``http://host:port`` of the server.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._server = (parts.hostname or "", parts.port or 80)
        self._listener: socket.socket | None = None
        self._streams: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._port = 0
        self.open()

    @property
    def endpoint(self) -> str:
        """What the run is told to use instead of the server's own address."""
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Listen, on the same port as before."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(128)
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="baltoro-door", daemon=True).start()

    def shut(self) -> None:
        """Refuse new connections and cut those that stand."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # Closing alone would leave a thread that waits in accept() with a working socket.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            streams, self._streams = self._streams, set()
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            with self._lock:
                if self._listener is not listener:
                    client.close()
                    server.close()
                    return
                self._streams |= {client, server}
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_BUFFER_BYTES):
                target.sendall(data)
        for stream in (source, target):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()
        with self._lock:
            self._streams -= {source, target}


@contextlib.contextmanager
def door_to(endpoint: str) -> Iterator[OutageDoor]:
    """Give a door that is shut for good at the end of the block."""
    door = OutageDoor(endpoint)
    try:
        yield door
    finally:
        door.shut()
