"""One caller's connection, from the first byte to the last: the loop that reads requests, has them answered, and writes the answers.

    head (judged) -> direct door, or WSGI -> answer: head and first of the body in one send, then a send for each chunk -> next request

What RFC 9112 leaves to a server is decided here: whoever breaks the rules gets one JSON refusal, and then the connection ends. Waiting is
always in `_receive` (or for room, in `_send`): a `Deadline` is an attribute that a watch looks at each second, so that a call that is
quick pays for no timer.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import socket
import ssl
import struct
import termios
from collections.abc import Callable, Iterable
from enum import Enum
from time import monotonic
from typing import Any, NoReturn, Protocol

import gevent
import gevent.socket

from dwctl.errors import DwctlError
from dwctl.pace import Pace
from dwctl.web import head as heads
from dwctl.web import wsgi
from dwctl.web.body import Body
from dwctl.web.head import Head
from dwctl.web.peers import Peers
from dwctl.web.refusals import TooManyBodies, TooSlow
from dwctl.web.responses import Writer

log = logging.getLogger(__name__)

_AT_ONCE = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_LINGER = struct.pack("ii", 1, 0)
# A connection that is closed with something unread is reset, and the caller may never see why it was refused.
_DISCARDED_BYTES = 16 * 1024 * 1024
_DISCARDED_S = 2.0
_NEVER = float("inf")


class Waits(Enum):
    """What a connection waits for."""

    NOTHING = 0
    NEXT = 1
    """A request; its caller owes none."""
    HEAD = 2
    BODY = 3
    END = 4
    """What is still on its way after the last answer."""


class Overdue(Exception):
    """Raised where a connection waits for longer than it may."""


class Evicted(Exception):
    """Raised where a connection waits for a body, and makes room for others."""


class Answer(Protocol):
    """What the direct door gives: `body` in one piece, or an iterator that must be closed."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> list[tuple[str, str]]: ...
    @property
    def body(self) -> bytes | Iterable[bytes]: ...


Door = Callable[[Head, Body, socket.socket], Answer | None]
"""Answers the hot routes from plain values; None for what goes through WSGI."""


class Limits(Protocol):
    """Seconds, and bytes a second; see `config.RequestLimits`."""

    head_timeout: float
    body_grace: float
    body_min_rate: int
    body_timeout: float
    stalled_reader_timeout: float


class House(Protocol):
    """What all connections of a process share."""

    alive: bool
    door: Door | None
    wsgi: Callable[..., Iterable[bytes]]
    environ: dict[str, Any]
    """What is the same in each WSGI environment."""
    keepalive_s: float
    limits: Limits
    peers: Peers
    logs_access: bool

    def count(self) -> None:
        """A request has been read."""

    def turn_away(self, error: DwctlError, peer: str) -> None:
        """Somebody is refused before there is a request."""

    def access(self, head: Head, writer: Writer, environ: dict[str, Any], took_s: float) -> None:
        """An answer is over, or has been cut short; called where `logs_access`. What was never answered has no line."""


class Connection:
    """Made for one accepted socket; `serve` returns when it is over. The caller closes the socket."""

    def __init__(
        self, house: House, client: Any, peer: str, address: Any, server_address: Any
    ) -> None:
        self.client = client
        self.peer = peer
        self.address = address
        self.server_address = server_address
        self.until = _NEVER
        """When the wait at hand is over (monotonic)."""
        self.waits = Waits.NOTHING
        self.is_reusable = True
        """Whether another request can be read after the one at hand."""
        self.body_timeout_s = house.limits.body_timeout
        """For the whole of the body at hand."""
        self._house = house
        self._greenlet = gevent.getcurrent()
        self._hub = gevent.get_hub()
        self.is_tls = isinstance(client, ssl.SSLSocket)
        self._received = b""
        self._had_more = False
        self._pace = Pace()
        self.expects_continue = False
        """Whether the caller sends no body before it is told to."""
        self._body_began = 0.0
        self._body_bytes = 0
        self._said_goodbye = False

    # --- the loop

    def serve(self) -> None:
        """Answer one request after the other."""
        try:
            if self.is_tls:
                self._shake_hands()
            while self.is_reusable and self._next():
                if self._received:
                    # Whoever sends many at once never waits, and would keep the loop for himself.
                    self._pace()
            if self._received or _has_data(self.client):
                self._discard()
        except Overdue:
            return
        except ConnectionError:
            return

    def _shake_hands(self) -> None:
        """Begin with TLS: what has to be there in the time that a head has. Raises ConnectionError, Overdue."""
        self.until = monotonic() + self._house.limits.head_timeout
        self.waits = Waits.HEAD
        try:
            self.client.do_handshake()
        except OSError as error:
            raise _gone() from error
        finally:
            self.waits = Waits.NOTHING

    def _next(self) -> bool:
        """Answer the next request. False when there is none."""
        try:
            end = self._receive_head()
            if not end:
                return False
            head = heads.read(self._received, end)
        except DwctlError as error:
            self._refuse(error)
            return False
        self._received = self._received[end:]
        self._house.count()
        self.is_reusable = head.keeps_alive and self._house.alive
        self.expects_continue = head.expects_continue
        self._body_began = 0.0
        self.body_timeout_s = self._house.limits.body_timeout
        body = Body(self, head.length)
        self._answer(head, body)
        body.skip_what_came()
        if not body.is_over:
            self._discard()
        return True

    def _answer(self, head: Head, body: Body) -> None:
        began = monotonic()
        writer = Writer(self, head, body)
        door = self._house.door
        environ: dict[str, Any] = {}
        try:
            answer = door(head, body, self.client) if door is not None else None
            if answer is not None:
                writer.send(answer.status, answer.headers, answer.body)
            else:
                environ = wsgi.environ_of(self._house.environ, head, body, self)
                wsgi.run(self._house.wsgi, environ, writer)
        except ConnectionError:
            raise
        except Exception as error:
            self.is_reusable = False
            # Bodies are read by the application, which may let pass what they raise.
            known = error if isinstance(error, DwctlError) else None
            if known is None:
                log.exception("error while answering a request")
            # An answer that has begun is cut short by the end of the connection, so that its caller can tell.
            if not writer.has_begun:
                writer.refuse(known or DwctlError("Internal server error"))
        finally:
            if self._house.logs_access and writer.status:
                environ = environ or wsgi.environ_of(self._house.environ, head, body, self)
                self._house.access(head, writer, environ, monotonic() - began)

    def _refuse(self, error: DwctlError) -> None:
        self._house.turn_away(error, self.peer)
        self.is_reusable = False
        path = heads.path_of(self._received)
        try:
            self.send(Writer.refusal(error, path))
        except ConnectionError:
            return
        self._discard()

    # --- reading

    @property
    def received(self) -> int:
        """Bytes that came and that nobody has read yet."""
        return len(self._received)

    def receive_body(self, most: int) -> bytes:
        """Up to that many bytes of a body; nothing when the caller has left.

        Raises TooSlow, TooManyBodies.
        """
        if self._received:
            piece, self._received = self._received[:most], self._received[most:]
            return piece
        return self._wait_for_body(most)

    def credit(self, size: int) -> None:
        """So much of a body has come: what its lowest rate is measured by (the framing does not count)."""
        self._body_bytes += size

    def give_back(self, rest: bytes) -> None:
        """What was read and belongs to the next request."""
        self._received = rest + self._received

    def stays_open(self) -> bool:
        """Whether an answer that begins now may promise to take another request: a process that ends takes none."""
        self.is_reusable = self.is_reusable and self._house.alive
        return self.is_reusable

    def spoil(self) -> None:
        """Nothing more can be read as a request."""
        self.is_reusable = False

    def _receive_head(self) -> int:
        """Where the next head ends in what was received; 0 when there is none. Raises DwctlError for one that is too long, or too slow."""
        now = monotonic()
        limit = self._house.limits.head_timeout
        begun = bool(heads.without_blank_lines(self._received))
        idle = self._house.keepalive_s
        self.until = now + (limit if begun else idle) if self._house.alive or begun else now
        searched = 0
        while True:
            received = heads.without_blank_lines(self._received)
            if received:
                end = heads.end_of(received, searched)
                if end:
                    self._received = received
                    return end
                if not begun:
                    begun = True
                    self.until = monotonic() + limit
            try:
                more = self._receive(Waits.HEAD if begun else Waits.NEXT, _AT_ONCE)
            except Overdue:
                if begun:
                    raise TooSlow("The request's head did not come in time.") from None
                self._end_unread()
                return 0
            if not more:
                return 0
            searched = len(received)
            self._received = received + more if received else more

    def _wait_for_body(self, most: int) -> bytes:
        if self.expects_continue:
            self.expects_continue = False
            self.send(_CONTINUE)
        limits = self._house.limits
        if not self._body_began:
            self._body_began = monotonic()
            self._body_bytes = 0
        peers = self._house.peers
        # Only those count that have to wait: what a caller has sent is here, as a rule.
        self._pace()
        piece = self._receive_now(most)
        if piece is not None:
            return piece
        allowed = limits.body_grace
        if limits.body_min_rate:
            allowed += self._body_bytes / limits.body_min_rate
        self.until = self._body_began + min(allowed, self.body_timeout_s)
        peers.begin_waiting(self, self.peer, self._make_room)
        try:
            return self._receive(Waits.BODY, most)
        except Overdue:
            raise TooSlow("The request's body came too slowly, or not at all.") from None
        except Evicted:
            raise TooManyBodies(retry_after_s=1) from None
        finally:
            peers.end_waiting(self)

    def _receive(self, what: Waits, most: int) -> bytes:
        """What there is, when it is this connection's turn; nothing at the end. Raises Overdue after `until`."""
        if self.is_tls:
            return self._receive_tls(what, most)
        if self._had_more:
            self._pace()
            received = self._receive_now(most)
            if received is not None:
                return received
        client, hub = self.client, self._hub
        while True:
            # Waiting first costs less than trying in vain.
            self.waits = what
            try:
                hub.wait(client._read_event)
            finally:
                self.waits = Waits.NOTHING
            self._pace.begin()
            received = self._receive_now(most)
            if received is not None:
                return received

    def _receive_now(self, most: int) -> bytes | None:
        """None where nothing has come."""
        if self.is_tls:
            return None
        try:
            received: bytes = self.client._sock.recv(most)
        except BlockingIOError:
            return None
        except OSError:
            # Not all of what a network can do to a connection is a ConnectionError: a time-out, or a host that cannot be reached.
            return b""
        self._had_more = len(received) == most
        return received

    def _receive_tls(self, what: Waits, most: int) -> bytes:
        self._pace()
        self.waits = what
        try:
            received: bytes = self.client.recv(most)
        except OSError:
            return b""
        finally:
            self.waits = Waits.NOTHING
        return received

    # --- deadlines, from outside

    def look(self, now: float) -> None:
        """Called once a second: end the wait that is over."""
        if now >= self.until and self.waits is not Waits.NOTHING:
            gevent.get_hub().loop.run_callback(self._end_wait, self.waits, self.until)

    def hang_up(self) -> None:
        """End a wait for the next request, unless it has just come. An answer that has not begun says that it is the last."""
        self.is_reusable = False
        gevent.get_hub().loop.run_callback(self._end_idleness)

    def _end_wait(self, what: Waits, until: float) -> None:
        if self.waits is not what or self.until != until:
            return
        if what is Waits.NEXT and _has_data(self.client):
            return
        self._greenlet.throw(Overdue())

    def _end_idleness(self) -> None:
        if self.waits is Waits.NEXT and not _has_data(self.client):
            self._greenlet.throw(Overdue())

    def _make_room(self) -> None:
        gevent.get_hub().loop.run_callback(self._evict)

    def _evict(self) -> None:
        if self.waits is Waits.BODY:
            self._greenlet.throw(Evicted())

    # --- writing

    def send(self, data: bytes) -> None:
        """All of it. Raises ConnectionError where the caller has left, or takes nothing for too long."""
        sent = self._send_now(data)
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            self._wait_for_room()
            rest = rest[self._send_now(rest) :]

    def _send_now(self, data: bytes | memoryview) -> int:
        client = self.client
        try:
            sent: int = client._sslobj.write(data) if self.is_tls else client._sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return 0
        except ConnectionError:
            raise
        except OSError as error:
            # As when receiving; and who negotiates TLS anew within an answer.
            raise _gone() from error
        return sent

    def _wait_for_room(self) -> None:
        # A socket says that it has room when a third of its buffer is free, which takes a slow reader minutes: so what counts is whether
        # the other side has taken anything.
        stalled_s = self._house.limits.stalled_reader_timeout
        waiting = _untaken(self.client)
        while True:
            try:
                gevent.socket.wait_write(self.client.fileno(), timeout=stalled_s)
                return
            except TimeoutError:
                before, waiting = waiting, _untaken(self.client)
            if waiting >= before:
                self._give_up(stalled_s)

    def _give_up(self, stalled_s: float) -> NoReturn:
        log.warning("a caller took nothing of its answer", extra={"for_s": stalled_s})
        self._reset()
        raise ConnectionResetError(errno.ECONNRESET, "the caller reads nothing")

    def _end_unread(self) -> None:
        """Who takes nothing of answers that are all sent is noticed when it is hung up on. (Not while the process ends: that waits for nobody.)"""
        waiting = _untaken(self.client)
        if waiting and self._house.alive:
            gevent.sleep(self._house.limits.stalled_reader_timeout)
            if _untaken(self.client) >= waiting:
                self._reset()

    def _reset(self) -> None:
        # What the kernel still holds for it is thrown away: it would wait there for as long as the caller likes.
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)

    def _discard(self) -> None:
        """After the last answer: take what is still coming for a moment, so that the answer arrives."""
        self.is_reusable = False
        if self._said_goodbye:
            return
        self._said_goodbye = True
        try:
            self.client.shutdown(socket.SHUT_WR)
        except OSError:
            return
        self.until = monotonic() + _DISCARDED_S
        left = _DISCARDED_BYTES
        try:
            while left > 0 and (received := self._receive(Waits.END, _AT_ONCE)):
                left -= len(received)
        except Overdue:
            self._end_unread()


def _gone() -> ConnectionError:
    return ConnectionResetError(errno.ECONNRESET, "the caller has left")


def _untaken(client: socket.socket) -> int:
    """Bytes that were sent and that the other side has not acknowledged."""
    (count,) = struct.unpack("i", fcntl.ioctl(client.fileno(), termios.TIOCOUTQ, b"\0" * 4))
    return int(count)


def _has_data(client: socket.socket) -> bool:
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(client.fileno(), termios.FIONREAD, b"\0" * 4))
    except OSError:
        return True
    return bool(count)
