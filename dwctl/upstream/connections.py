"""Connections to upstream servers: opened, kept and closed.

A connection is a raw non-blocking socket that waits on gevent's loop itself. It costs less than half of what
`gevent.socket` with time-outs does, for two reasons:
- It waits before it reads, instead of trying first: after a request nothing can be there yet.
- It has one timer, not one for each wait. A wait only notes when it is due; the timer is left as it is set, looks
  at that note when it fires, and sets itself again if it was early. Calls that end well hardly ever touch it.
The same timer closes connections that are kept idle for too long.

TLS is the same connection with an `SSLObject` between it and its bytes.
"""

from __future__ import annotations

import _socket
import errno
import os
import socket
import ssl
import struct
import sys
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

import certifi
import gevent

from dwctl import resolver
from dwctl.upstream.addresses import Policy
from dwctl.upstream.errors import ConnectionFailed, Phase, Timeout
from dwctl.upstream.target import Origin

_READ_BYTES = 64 * 1024
_WRITE_BYTES = 256 * 1024
_KEEPALIVE_S = 60
_KEEPALIVE_INTERVAL_S = 15
_KEEPALIVE_PROBES = 4
_BYTES_ACKED = struct.Struct("120xQ")  # tcpi_bytes_acked in linux/tcp.h's struct tcp_info
_READ, _WRITE = 1, 2  # libev's names for them


class Connection:
    """One TCP connection. Only one greenlet may use it at a time.

    `due` is a time of `monotonic()`; a wait that reaches it raises Timeout with the `phase` given. After any
    exception the connection is good for nothing but `close`, which its user must call.
    """

    def __init__(self, sock: _socket.socket, origin: Origin) -> None:
        self.origin = origin
        self.reused = False
        self._sock = sock
        self._hub = gevent.get_hub()
        self._readable = self._hub.loop.io(sock.fileno(), _READ)
        self._writable: Any = None
        self._waiter: Any = None
        self._phase = Phase.CONNECT
        self._due = inf
        self._timer: Any = None
        self._timer_at = inf
        self._on_idle: Callable[[Connection], None] | None = None
        self._sent = 0

    def connect(self, address: Any, due: float) -> None:
        error = self._sock.connect_ex(address)
        if error == errno.EINPROGRESS:
            self._wait(self._write_watcher(), due, Phase.CONNECT)
            error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def send(self, data: bytes, due: float, phase: Phase) -> None:
        sent = self._send_some(data)
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            self._wait(self._write_watcher(), due, phase)
            rest = rest[self._send_some(rest[:_WRITE_BYTES]) :]

    def receive(self, due: float, phase: Phase) -> bytes:
        """What has arrived, or nothing where the other side has closed the connection."""
        while True:
            self._wait(self._readable, due, phase)
            try:
                return self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                continue

    def keep_idle(self, until: float, on_idle: Callable[[Connection], None]) -> None:
        """Nobody uses it for now; `on_idle` is called if that lasts until then."""
        self._on_idle = on_idle
        self._note(until)

    def take_up(self) -> bool:
        """Use it again. False: it was closed meanwhile, or something came that nobody asked for."""
        self._on_idle = None
        self.reused = True
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def left_something(self) -> bool:
        """Whether the other side, which has closed the connection, had surely not received all that was sent when it did.

        What it has acknowledged, it may have worked on. A FIN carries the acknowledgement of all that came before it, so this is
        known for a connection that ended in good order; a reset one may have been reset before an acknowledgement was due.
        """
        acknowledged = _acknowledged(self._sock)
        return acknowledged is not None and acknowledged < self._sent

    def close(self) -> None:
        """Give it up, from whichever greenlet; one that waits for it gets ConnectionAbortedError."""
        if self._sock.fileno() < 0:
            return
        self._on_idle = None
        self._stop_timer()
        for watcher in (self._readable, self._writable):
            if watcher is not None:
                watcher.stop()  # before the descriptor can be given to somebody else
        self._sock.close()
        if self._waiter is not None:
            self._hub.loop.run_callback(self._interrupt, self._waiter)

    def _interrupt(self, waiter: Any) -> None:
        if self._waiter is waiter:
            waiter.throw(ConnectionAbortedError(errno.ECONNABORTED, "closed on our side"))

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            return 0
        self._sent += sent
        return sent

    def _write_watcher(self) -> Any:
        if self._writable is None:
            self._writable = self._hub.loop.io(self._sock.fileno(), _WRITE)
        return self._writable

    def _wait(self, watcher: Any, due: float, phase: Phase) -> None:
        if self._sock.fileno() < 0:
            raise ConnectionAbortedError(errno.ECONNABORTED, "closed on our side")
        self._phase = phase
        self._note(due)
        self._waiter = gevent.getcurrent()
        try:
            self._hub.wait(watcher)
        finally:
            self._waiter = None

    def _note(self, due: float) -> None:
        self._due = due
        if due < self._timer_at:
            self._set_timer(due)

    def _set_timer(self, at: float) -> None:
        self._stop_timer()
        self._timer_at = at
        self._timer = self._hub.loop.timer(max(0.001, at - monotonic()), ref=False)
        self._timer.start(self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
        self._timer_at = inf

    def _on_timer(self) -> None:
        """Runs in the hub. Where nobody waits and nothing is kept, the next wait sets the timer again."""
        self._stop_timer()
        if self._waiter is None and self._on_idle is None:
            return
        if monotonic() < self._due:
            self._note(self._due)
        elif self._waiter is not None:
            self._waiter.throw(Timeout(self._phase))
        elif self._on_idle is not None:
            self._on_idle(self)


class TlsConnection(Connection):
    """The same, with TLS between the socket and the bytes."""

    def __init__(self, sock: _socket.socket, origin: Origin, context: ssl.SSLContext) -> None:
        super().__init__(sock, origin)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=origin.host)

    def connect(self, address: Any, due: float) -> None:
        super().connect(address, due)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush(due, Phase.CONNECT)
                self._receive_some(due, Phase.CONNECT)
            except ssl.SSLError:
                self._sock.send(self._outgoing.read())  # the alert that tells the other side why
                raise
        self._flush(due, Phase.CONNECT)

    def send(self, data: bytes, due: float, phase: Phase) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest[:_WRITE_BYTES]) :]
            self._flush(due, phase)

    def receive(self, due: float, phase: Phase) -> bytes:
        while True:
            try:
                return self._tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                self._flush(due, phase)  # such as the answer to a change of keys
                self._receive_some(due, phase)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def take_up(self) -> bool:
        return super().take_up() and not self._incoming.pending and not self._tls.pending()

    def _flush(self, due: float, phase: Phase) -> None:
        if self._outgoing.pending:
            super().send(self._outgoing.read(), due, phase)

    def _receive_some(self, due: float, phase: Phase) -> None:
        data = super().receive(due, phase)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


class Pool:
    """Idle connections by origin, the last one used first, so that the rest can grow old and go."""

    def __init__(self, *, max_per_origin: int, max_idle_s: float) -> None:
        self._max_per_origin = max_per_origin
        self._max_idle_s = max_idle_s
        self._idle: dict[Origin, deque[Connection]] = {}
        self._closed = False

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))

    def take(self, origin: Origin) -> Connection | None:
        """One that is still open, or None."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.take_up():
                return connection
            connection.close()
        return None

    def put(self, connection: Connection) -> None:
        if self._closed:
            connection.close()
            return
        idle = self._idle.setdefault(connection.origin, deque())
        idle.append(connection)
        connection.keep_idle(monotonic() + self._max_idle_s, self._discard)
        if len(idle) > self._max_per_origin:
            idle.popleft().close()

    def close(self) -> None:
        """Close what is idle now, and what comes back later."""
        self._closed = True
        while self._idle:
            _, idle = self._idle.popitem()
            for connection in idle:
                connection.close()

    def _discard(self, connection: Connection) -> None:
        idle = self._idle[connection.origin]
        idle.remove(connection)
        if not idle:
            del self._idle[connection.origin]
        connection.close()


def open_connection(
    origin: Origin, *, connect_s: float, tls: Callable[[], ssl.SSLContext], policy: Policy
) -> Connection:
    """Resolve the name and try in turn those of its addresses that the policy allows; `tls` gives the context, for https only.

    Raises: ConnectionFailed (AddressNotAllowed where there are no such ones), or Timeout(CONNECT) when name, TCP and TLS together take longer than `connect_s`.
    """
    due = monotonic() + connect_s
    failure: OSError | Timeout | None = None
    try:
        found = resolver.addresses(origin.host, origin.port, timeout_s=connect_s)
    except resolver.LookupTimeout as error:
        raise Timeout(Phase.CONNECT) from error
    except (OSError, UnicodeError) as error:
        raise ConnectionFailed from error
    addresses = policy.judge(found)
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        # An address that swallows packets must leave time for the next.
        share = (due - monotonic()) / (len(addresses) - tried)
        try:
            sock = _make_socket(family, kind, protocol)
            return _connected(sock, origin, address, monotonic() + share, tls)
        except ssl.SSLCertVerificationError as error:
            raise ConnectionFailed(
                "The upstream server's certificate is not valid.", retryable=False
            ) from error
        except (OSError, Timeout) as error:
            failure = error
    if isinstance(failure, Timeout):
        raise failure
    raise ConnectionFailed from failure


def default_tls_context() -> ssl.SSLContext:
    """Verifies by the system's certificates (SSL_CERT_FILE and SSL_CERT_DIR move them), or by certifi's."""
    paths = ssl.get_default_verify_paths()
    system = bool(paths.cafile) or (bool(paths.capath) and any(os.scandir(paths.capath or "")))
    context = ssl.create_default_context(cafile=None if system else certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def _acknowledged(sock: _socket.socket) -> int | None:
    """Bytes that the other side has acknowledged, its SYN's one among them; None where the system does not tell (it is Linux that does)."""
    if sys.platform != "linux":
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    except OSError:
        return None
    return int(_BYTES_ACKED.unpack(info)[0]) if len(info) == _BYTES_ACKED.size else None


def _make_socket(family: int, kind: int, protocol: int) -> _socket.socket:
    sock = _socket.socket(family, kind, protocol)
    sock.setblocking(False)
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES),
    ):
        sock.setsockopt(level, option, value)
    return sock


def _connected(
    sock: _socket.socket,
    origin: Origin,
    address: Any,
    due: float,
    tls: Callable[[], ssl.SSLContext],
) -> Connection:
    if origin.scheme == "https":
        connection: Connection = TlsConnection(sock, origin, tls())
    else:
        connection = Connection(sock, origin)
    try:
        connection.connect(address, due)
    except BaseException:
        connection.close()
        raise
    return connection
