"""Send one call to one target and read its answer, whole or as it arrives.

    with client.send(target, "/chat/completions", body, headers.to_upstream(...)) as answer:
        for piece in answer.chunks():
            ...

`send` returns when the answer's head is there. From then on the connection is the answer's: it goes back to the
pool the moment the body is complete (so read to the end, also after `[DONE]`), and is closed if the answer is
closed, or dropped by an exception, before that; the upstream server sees the caller leave.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from math import inf
from time import monotonic
from types import TracebackType
from typing import Self

from dwctl.config import Outbound
from dwctl.upstream.addresses import Policy, Purpose, policy_for
from dwctl.upstream.coding import plain
from dwctl.upstream.connections import Connection, Pool, default_tls_context, open_connection
from dwctl.upstream.errors import BadResponse, ConnectionFailed, Phase, ResponseTooLarge, Timeout
from dwctl.upstream.http1 import MAX_HEAD_BYTES, Head, parse_head
from dwctl.upstream.redaction import without
from dwctl.upstream.target import Target

_HEAD_END = b"\r\n\r\n"
_TELLING_BYTES = 8  # of a body, blanks at its beginning not counted
_BY_DEFAULT = policy_for(Outbound(), Purpose.ENDPOINTS)


class _Stale(Exception):
    """A kept-alive connection had been closed before the request reached the other side.

    RFC 9110, 9.2.2: what is not idempotent is repeated only by who can tell that the original was never applied. Here the other
    side's TCP tells: it ended the connection in good order without having acknowledged the request.
    """


class UpstreamClient:
    """Keeps connections to any number of servers; one for each process is enough."""

    def __init__(
        self,
        *,
        max_idle_per_origin: int = 100,
        max_idle_s: float = 90.0,
        tls: ssl.SSLContext | None = None,
        policy: Policy = _BY_DEFAULT,
    ) -> None:
        """`tls`: which certificates are trusted, in place of the system's. `policy`: which addresses are called."""
        self._pool = Pool(max_per_origin=max_idle_per_origin, max_idle_s=max_idle_s)
        self._given_tls = tls
        self._policy = policy

    @property
    def idle_connections(self) -> int:
        return len(self._pool)

    def send(
        self,
        target: Target,
        path: str,
        body: bytes,
        headers: Sequence[tuple[str, str]],
        *,
        method: str = "POST",
        due: float = inf,
    ) -> UpstreamResponse:
        """Send one request, and wait for the head of its answer. An error status is an answer too.

        `path` is without `/ai/v1`, with its query; `headers` are what `headers.to_upstream` let pass. `due` (monotonic) ends the call
        beside the target's own total time-out, whichever is first.
        Raises: ConnectionFailed, Timeout, BadResponse; ValueError for a header that no request can carry.
        """
        request = _request(target, path, body, headers, method)
        total_s = target.timeouts.total_s
        total_due = due if total_s is None else min(due, monotonic() + total_s)
        connection = self._pool.take(target.origin)
        if connection is not None:
            try:
                return self._exchange(connection, request, method, target, total_due)
            except _Stale:
                pass
        connection = self._open(target, total_due)
        return self._exchange(connection, request, method, target, total_due)

    def close(self) -> None:
        """Close idle connections; answers that are being read may be read to their end."""
        self._pool.close()

    def _open(self, target: Target, total_due: float) -> Connection:
        left_s = total_due - monotonic()
        if left_s <= 0:
            raise Timeout(Phase.TOTAL)
        connect_s = min(target.timeouts.connect_s, left_s)
        try:
            return open_connection(
                target.origin, connect_s=connect_s, tls=lambda: self._tls, policy=self._policy
            )
        except Timeout as error:
            if connect_s == left_s:
                raise Timeout(Phase.TOTAL) from error
            raise

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._given_tls or default_tls_context()

    def _exchange(
        self,
        connection: Connection,
        request: bytes,
        method: str,
        target: Target,
        total_due: float,
    ) -> UpstreamResponse:
        timeouts = target.timeouts
        due, phase = monotonic() + timeouts.first_byte_s, Phase.FIRST_BYTE
        if total_due < due:
            due, phase = total_due, Phase.TOTAL
        try:
            received = _first_bytes(connection, request, due, phase)
            head, rest = _read_head(connection, received, method, due, phase)
            return UpstreamResponse(
                head, rest, connection, self._pool, timeouts.idle_s, total_due, target.secret
            )
        except OSError as error:
            connection.close()
            raise BadResponse("The upstream server's answer was cut short.") from error
        except BaseException:
            connection.close()
            raise


class UpstreamResponse:
    """One answer. `headers` are in the order received, their names in lower case. Our credential is hidden in its body."""

    __slots__ = (
        "_ahead",
        "_body",
        "_connection",
        "_idle_s",
        "_persistent",
        "_pool",
        "_rest",
        "_secret",
        "_total_due",
        "headers",
        "status",
    )

    def __init__(
        self,
        head: Head,
        rest: bytes,
        connection: Connection,
        pool: Pool,
        idle_s: float,
        total_due: float,
        secret: bytes,
    ) -> None:
        self._secret = secret
        self._ahead: Iterator[bytes] | None = None
        self._connection: Connection | None = connection
        self.status = head.status
        self.headers = head.headers
        self._body = head.body
        self._persistent = head.persistent
        self._pool = pool
        self._idle_s = idle_s
        self._total_due = total_due
        self._rest = self._body.feed(rest)
        if self._body.done:
            self._give_back()

    def header(self, name: str) -> str | None:
        """The first header of that name (in lower case)."""
        for found, value in self.headers:
            if found == name:
                return value
        return None

    def read(self, limit: int) -> bytes:
        """The whole body. Raises: ResponseTooLarge above `limit` bytes, and what `chunks` raises."""
        if self._is_here and len(self._rest) <= limit:
            rest, self._rest = self._rest, b""
            return rest
        pieces = []
        size = 0
        for piece in self.chunks():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                self.close()
                raise ResponseTooLarge
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def _is_here(self) -> bool:
        """Whether it came whole with the head, as most small answers do, and is given as it came."""
        return (
            self._body.done
            and self._ahead is None
            and self._connection is None
            and not (self._secret and self._secret in self._rest)
            and self.header("content-encoding") is None
        )

    def chunks(self) -> Iterator[bytes]:
        """The body in the pieces in which it arrives, none of them empty; to be read once.

        Raises: Timeout (idle, total) and BadResponse, also after some pieces: then the body is not complete.
        """
        ahead, self._ahead = self._ahead, None
        return self._chunks() if ahead is None else ahead

    __iter__ = chunks

    def beginning(self) -> bytes:
        """So much of the body that it can be told what it is; `chunks` gives it once more. Raises what `chunks` raises."""
        pieces = self.chunks()
        first = b""
        while len(first.lstrip()) < _TELLING_BYTES and (piece := next(pieces, None)) is not None:
            first += piece
        self._ahead = chain([first] if first else [], pieces)
        return first

    def _chunks(self) -> Iterator[bytes]:
        coding = self.header("content-encoding")
        pieces = plain(self._pieces(), coding) if coding else self._pieces()
        try:
            yield from without(self._secret, pieces) if self._secret else pieces
        finally:
            self.close()

    def close(self) -> None:
        """Give the answer up: what has not arrived yet will not be read."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        self.close()  # the timer knows the connection: it would not go away by itself

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _pieces(self) -> Iterator[bytes]:
        rest, self._rest = self._rest, b""
        if rest:
            yield rest
        while not self._body.done:
            if piece := self._next():
                yield piece

    def _next(self) -> bytes:
        """One more piece; it may be empty."""
        connection = self._connection
        if connection is None:
            raise BadResponse("The upstream call was ended on our side.")
        try:
            received = connection.receive(*self._due())
            if received:
                piece = self._body.feed(received)
            else:
                self._body.end()
                piece = b""
        except OSError as error:
            self.close()
            raise BadResponse("The upstream server's answer was cut short.") from error
        except BaseException:
            self.close()
            raise
        if self._body.done:
            self._give_back()
        return piece

    def _due(self) -> tuple[float, Phase]:
        now = monotonic()
        if now >= self._total_due:
            raise Timeout(Phase.TOTAL)
        due = now + self._idle_s
        return (due, Phase.IDLE) if due < self._total_due else (self._total_due, Phase.TOTAL)

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._persistent and not self._body.excess:
            self._pool.put(connection)
        else:
            connection.close()


def _request(
    target: Target, path: str, body: bytes, headers: Sequence[tuple[str, str]], method: str
) -> bytes:
    """Head and body in one piece, so that a small request is one packet."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if lines.count("\r") != len(headers) or lines.count("\n") != len(headers):
        raise ValueError("A header cannot contain line breaks")
    length = f"content-length: {len(body)}\r\n" if body or method != "GET" else ""
    start = f"{method} {target.request_path(path)} HTTP/1.1\r\n"
    return f"{start}{target.fixed_lines}{lines}{length}\r\n".encode("latin-1") + body


def _first_bytes(connection: Connection, request: bytes, due: float, phase: Phase) -> bytes:
    """Send, and wait until the other side says something."""
    failure: OSError | None = None
    received = b""
    try:
        connection.send(request, due, phase)
    except OSError as error:  # it may still have said why it stopped listening
        failure = error
    try:
        received = connection.receive(due, phase)
    except OSError as error:
        failure = failure or error
    if received:
        return received
    in_good_order = not isinstance(failure, ConnectionResetError)
    if connection.reused and in_good_order and connection.left_something():
        raise _Stale
    raise ConnectionFailed("The upstream server closed the connection.") from failure


def _read_head(
    connection: Connection, received: bytes, method: str, due: float, phase: Phase
) -> tuple[Head, bytes]:
    """The final answer's head (those before it, 1xx, are skipped) and what was received after it."""
    looked = 0
    while True:
        end = received.find(_HEAD_END, looked)
        if end < 0:
            looked = max(0, len(received) - len(_HEAD_END) + 1)
            received += _more_of_head(connection, received, due, phase)
            continue
        head = parse_head(received[:end], method)
        received = received[end + len(_HEAD_END) :]
        looked = 0
        if head.status == 101:
            raise BadResponse("The upstream server wants another protocol.")
        if head.status >= 200:
            return head, received


def _more_of_head(connection: Connection, received: bytes, due: float, phase: Phase) -> bytes:
    if not received.startswith(b"HTTP/1."[: len(received)]):
        raise BadResponse("The upstream server does not speak HTTP/1.1.")
    if len(received) > MAX_HEAD_BYTES:
        raise BadResponse("The upstream server's answer has headers without end.")
    if (
        monotonic() >= due
    ):  # also where there is always something to read, such as one 1xx after the other
        raise Timeout(phase)
    more = connection.receive(due, phase)
    if not more:
        raise BadResponse("The upstream server's answer was cut short.")
    return more
