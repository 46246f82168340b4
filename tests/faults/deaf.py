"""A way to PostgreSQL on which the answer to a COMMIT can get lost: the server has committed, and the client never hears of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit

_COMMIT = b"COMMIT\x00"


class DeafProxy:
    """Listens on loopback and passes everything on to a server.

    While `deaf_after` is a text, a connection that commits a transaction with that text in it is closed when the server has answered. Where
    `shuts` is true, nobody gets in after that until it is false again.
    """

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self._host = query.get("host") or parts.hostname or "127.0.0.1"
        self._port = int(query.get("port") or parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        credentials = f"{parts.username}:{quote(parts.password or '', safe='')}"
        self.url = f"postgresql://{credentials}@127.0.0.1:{port}{parts.path}"
        self.deaf_after: bytes | None = None
        self.shuts = False
        self.lost = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.shuts and self.lost:
                    client.close()
                    continue
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = self._connected()
        threading.Thread(target=_copy, args=(server, client), daemon=True).start()
        said = b""
        with client, server, contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                said += data
                if _COMMIT not in said:
                    server.sendall(data)
                    continue
                if self.deaf_after is not None and self.deaf_after in said:
                    # Its way back is shut before the server can answer.
                    client.shutdown(socket.SHUT_WR)
                    self.lost += 1
                    server.sendall(data)
                    return
                said = b""
                server.sendall(data)

    def _connected(self) -> socket.socket:
        if not self._host.startswith("/"):
            return socket.create_connection((self._host, self._port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{self._host}/.s.PGSQL.{self._port}")
        return server


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
