"""Gunicorn's gevent worker, with two things added. Imported by gunicorn before gevent patches: imports nothing of ours.

Told to end, it hangs up on callers that keep an idle connection open. Gunicorn waits for those until its grace is over, so that every
restart under a keep-alive client would take all of it. Whoever has a request under way is answered first; `end_requests` ends what takes
too long, before gunicorn kills the process.

An answer's head leaves together with the first of its body. Gunicorn sends them one after the other: two system calls and two segments.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent import monkey
from gunicorn.http import wsgi
from gunicorn.workers.ggevent import GeventWorker

_LAST_REQUEST_S = 0.1
_SENT_TOGETHER = 64 * 1024


class Server(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """`worker_class` of web and worker processes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients: dict[Any, socket.socket] = {}
        self._idle: dict[Any, gevent.Timeout] = {}

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serve one connection."""
        me = gevent.getcurrent()
        self._clients[me] = client
        try:
            super().handle(listener, client, addr)
        finally:
            del self._clients[me]

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Around the wait for a connection's next request, which silently ends when the time is over."""
        me = gevent.getcurrent()
        timeout = gevent.Timeout(self.cfg.keepalive if self.alive else _LAST_REQUEST_S, False)
        self._idle[me] = timeout
        try:
            with timeout:
                yield
        finally:
            del self._idle[me]

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM. A signal's handler must not block, so the rest is done beside it."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._hang_up)

    def end_requests(self) -> None:
        """Kill every connection's greenlet: the relay tells its callers, and writes down what they had."""
        gevent.killall(list(self._clients), block=False)

    def _hang_up(self) -> None:
        hub = gevent.get_hub()
        for greenlet, timeout in self._idle.items():
            hub.loop.run_callback(self._end_wait, greenlet, timeout)

    def _end_wait(self, greenlet: Any, timeout: gevent.Timeout) -> None:
        # A request that has just come in is answered.
        if self._idle.get(greenlet) is timeout and not _has_data(self._clients[greenlet]):
            greenlet.throw(timeout)


class _Response(wsgi.Response):  # type: ignore[misc]
    """Joins the head to the first of the body, unless joining costs more than it saves."""

    headers_sent: bool
    sock: Any

    def write(self, arg: bytes) -> None:
        """Called by gunicorn with each piece of the body."""
        if self.headers_sent or not 0 < len(arg) <= _SENT_TOGETHER:
            super().write(arg)
            return
        client, self.sock = self.sock, _Joined()
        try:
            super().write(arg)
        except BaseException:
            self.headers_sent = False
            raise
        finally:
            joined, self.sock = self.sock, client
        client.sendall(b"".join(joined.pieces))


class _Joined:
    """Stands in for a socket while head and body are put together."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.pieces.append(data)


# What gunicorn makes its answers with; it has no setting for that.
wsgi.Response = _Response


def _has_data(client: socket.socket) -> bool:
    poll = monkey.get_original("select", "poll")()
    poll.register(client.fileno(), select.POLLIN)
    return bool(poll.poll(0))
