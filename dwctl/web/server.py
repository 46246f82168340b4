"""Gunicorn's gevent worker, with five things added. Imported by gunicorn before gevent patches: imports nothing of ours
but `pace`, which imports nothing that is patched.

Told to end, it hangs up on callers that keep an idle connection open. Gunicorn waits for those until its grace is over, so that every
restart under a keep-alive client would take all of it. Whoever has a request under way is answered first; `end_requests` ends what takes
too long, before gunicorn kills the process.

A caller that takes nothing of its answer for too long is hung up on: gunicorn waits for it without limit. Its answer's iterator is closed
then, as when a caller leaves. One that stops in the middle of its request is taken to have left; gunicorn would wait for the rest without
limit, too.

A caller that always has more to send takes turns with the others. A socket that has something to read never waits, and what gunicorn does
with it is our time: a body in chunks of one byte costs a thousand times its reading, also one that nobody asked for and that is thrown away.

An answer's head leaves together with the first of its body. Gunicorn sends them one after the other: two system calls and two segments.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import select
import socket
import ssl
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import gevent.socket
from gevent import monkey
from gunicorn.http import wsgi
from gunicorn.workers.ggevent import GeventWorker

from dwctl.pace import Pace

log = logging.getLogger(__name__)

_LAST_REQUEST_S = 0.1
_SENT_TOGETHER = 64 * 1024
_NO_LINGER = struct.pack("ii", 1, 0)


class Server(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """`worker_class` of web and worker processes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients: dict[Any, socket.socket] = {}
        self._idle: dict[Any, gevent.Timeout] = {}
        self.stalled_reader_s: float | None = None
        """How long a caller may take nothing of an answer, or send nothing of a body; None for ever. Set when the settings are known."""

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serve one connection."""
        me = gevent.getcurrent()
        if not isinstance(client, ssl.SSLSocket):
            client = _Client(client, self.stalled_reader_s)
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
        client = self._clients[me]
        # A caller that has not begun its next request owes us nothing.
        ours = client if isinstance(client, _Client) else None
        if ours is not None:
            ours.owes_body = False
        try:
            with timeout:
                yield
        finally:
            if ours is not None:
                ours.owes_body = True
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


class _Client(gevent.socket.socket):  # type: ignore[misc]  # gevent has no types
    """A caller's connection: reads take turns with those of others; reads of a body and sends end when nothing moves for too long. (Over TLS of
    gunicorn's own nothing of that is so: that connection stays as gunicorn made it.)
    """

    def __init__(self, accepted: socket.socket, stalled_s: float | None) -> None:
        family, kind, protocol = accepted.family, accepted.type, accepted.proto
        super().__init__(family, kind, protocol, fileno=accepted.detach())
        self._stalled_s = stalled_s
        self._pace = Pace()
        self._had_more = False
        self.owes_body = False
        """Whether the rest of a request is waited for, not the next one."""
        self.has_stalled = False
        """It has not sent a request in full: what comes later is the rest of that, never another request."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        """What there is to read, when it is this connection's turn."""
        received: bytes | None = None
        if self._had_more:
            self._pace()
            received = self._read_now(size, flags)
        # Otherwise there is nothing yet, as a rule: waiting first costs less than trying in vain.
        while received is None:
            if not self._comes():
                return b""
            self._pace.begin()
            received = self._read_now(size, flags)
        self._had_more = len(received) == size
        return received

    def _read_now(self, size: int, flags: int) -> bytes | None:
        try:
            received: bytes = self._sock.recv(size, flags)
        except BlockingIOError:
            return None
        return received

    def _comes(self) -> bool:
        """Wait for something to read. False where a caller owes it and has stopped sending: then it is as if it had left."""
        try:
            gevent.socket.wait(
                self._read_event, self._stalled_s if self.owes_body else None, TimeoutError()
            )
        except TimeoutError:
            log.warning("a caller sent nothing of its request", extra={"for_s": self._stalled_s})
            self.has_stalled = True
            return False
        return True

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Raises: ConnectionResetError where the caller has stalled; it is what gunicorn takes for a caller that left."""
        sent = self._send_now(data, flags)
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            self._wait_for_room()
            rest = rest[self._send_now(rest, flags) :]

    def _send_now(self, data: bytes | memoryview, flags: int) -> int:
        try:
            sent: int = self._sock.send(data, flags)
        except BlockingIOError:
            return 0
        return sent

    def _wait_for_room(self) -> None:
        # A socket says that it has room when a third of its buffer is free, which takes a slow reader minutes: so what counts is whether
        # the other side has taken anything.
        waiting = _untaken(self)
        while True:
            try:
                gevent.socket.wait_write(self.fileno(), timeout=self._stalled_s)
                return
            except TimeoutError:
                before, waiting = waiting, _untaken(self)
            if waiting < before:
                continue
            log.warning("a caller took nothing of its answer", extra={"for_s": self._stalled_s})
            # What the kernel still holds for it is thrown away: it would wait there for as long as the caller likes.
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            raise ConnectionResetError(errno.ECONNRESET, "the caller reads nothing")


class _Response(wsgi.Response):  # type: ignore[misc]
    """Joins the head to the first of the body, unless joining costs more than it saves. The last one on a connection whose caller has stalled."""

    headers_sent: bool
    sock: Any

    def __init__(self, req: Any, sock: Any, cfg: Any) -> None:
        super().__init__(req, sock, cfg)
        self._client = sock

    def should_close(self) -> bool:
        """Asked by gunicorn for the head, and after the answer."""
        return getattr(self._client, "has_stalled", False) or bool(super().should_close())

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


def _untaken(client: socket.socket) -> int:
    """Bytes that were sent and that the other side has not acknowledged."""
    (count,) = struct.unpack("i", fcntl.ioctl(client.fileno(), termios.TIOCOUTQ, b"\0" * 4))
    return int(count)


def _has_data(client: socket.socket) -> bool:
    poll = monkey.get_original("select", "poll")()
    poll.register(client.fileno(), select.POLLIN)
    return bool(poll.poll(0))
