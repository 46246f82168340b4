"""A way to PostgreSQL that treats notifications as a transaction pooler does.

Such a pooler links a client to a server connection for one transaction at a time: what the server says in between reaches nobody. So a client
that listens hears what it sends itself, within its own statement, and nothing from others.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit


class Pooler:
    """Listens on loopback and passes everything on to a server's socket; notifications only where `transparent`, or within a statement."""

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self._server = f"{query['host']}/.s.PGSQL.{query['port']}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        credentials = f"{parts.username}:{quote(parts.password or '', safe='')}"
        self.url = f"postgresql://{credentials}@127.0.0.1:{port}{parts.path}?sslmode=disable&gssencmode=disable"
        self.transparent = False

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
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._server)
        linked = threading.Event()
        threading.Thread(target=self._answer, args=(server, client, linked), daemon=True).start()
        with client, server, contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                linked.set()
                server.sendall(data)

    def _answer(
        self, server: socket.socket, client: socket.socket, linked: threading.Event
    ) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                head = _exactly(server, 5)
                message = head + _exactly(server, int.from_bytes(head[1:], "big") - 4)
                if head[:1] != b"A" or linked.is_set() or self.transparent:
                    client.sendall(message)
                if head[:1] == b"Z":  # ReadyForQuery: the transaction is over
                    linked.clear()
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data
