"""An answer as bytes: head and first of the body in one send, then a send for each chunk.

Nothing that an application or an upstream says can break the framing: control characters in values are left out, headers about one
connection are ours to say, and of a body there is what its length says.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from wsgiref.handlers import format_date_time

from dwctl.clock import uuid7
from dwctl.errors import DwctlError
from dwctl.web.head import Head
from dwctl.web.refusals import body_of

if TYPE_CHECKING:
    from dwctl.web.body import Body
    from dwctl.web.connection import Connection

Headers = list[tuple[str, str]]

_SENT_TOGETHER = 64 * 1024
_OURS = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "trailers", "transfer-encoding", "upgrade", "date", "server"}
)  # fmt: skip
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOSNIFF = "x-content-type-options"


class Writer:
    """Writes one answer. `status` and `headers` as they were given, `sent` bytes of its body: what an access log wants to know.

    Its methods raise ConnectionError where the caller has left.
    """

    def __init__(self, connection: Connection, head: Head, body: Body) -> None:
        self.status = ""
        self.headers: Headers = []
        self.sent = 0
        self.has_begun = False
        """Whether something of it was sent."""
        self._connection = connection
        self._request = head
        self._body = body
        self._head = b""
        self._left: int | None = None
        self._is_chunked = False
        self._omits_body = False

    def send(self, status: int, headers: Headers, body: bytes | Iterable[bytes]) -> None:
        """The whole answer; an iterator is closed in the end."""
        if isinstance(body, bytes):
            self._begin(status_line(status), headers, len(body))
            if body:
                self.write(body)
            self.end()
            return
        try:
            self._begin(status_line(status), headers, None)
            for piece in body:
                if piece:
                    self.write(piece)
            self.end()
        finally:
            body.close()  # type: ignore[attr-defined]  # a generator, or like one

    def start_response(
        self, status: str, headers: Headers, exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """PEP 3333."""
        if exc_info is not None:
            try:
                if self.has_begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status:
            raise AssertionError("the answer has begun already")
        self._begin(status, headers, None)
        return self.write

    def write(self, piece: bytes) -> None:
        """The next of the body."""
        if not isinstance(piece, bytes):
            raise TypeError(f"{type(piece).__name__} is not bytes")
        if not self.status:
            raise AssertionError("the application gave no status")
        if self._omits_body or not piece:
            return
        if self._left is not None:
            piece = piece[: self._left] if len(piece) > self._left else piece
            self._left -= len(piece)
            if not piece:
                return
        self.sent += len(piece)
        head, self._head = self._head, b""
        self.has_begun = True
        send = self._connection.send
        if self._is_chunked:
            size = b"%x\r\n" % len(piece)
            if len(piece) <= _SENT_TOGETHER:
                send(b"%b%b%b\r\n" % (head, size, piece))
                return
            send(head + size)
            send(piece)
            send(b"\r\n")
        elif len(piece) <= _SENT_TOGETHER:
            send(head + piece if head else piece)
        else:
            # Copying it for the sake of its head would cost more than a second call.
            if head:
                send(head)
            send(piece)

    def end(self) -> None:
        """Nothing follows."""
        if not self.status:
            raise AssertionError("the application gave no status")
        head, self._head = self._head, b""
        last = b"0\r\n\r\n" if self._is_chunked else b""
        if self._left and not self._omits_body:
            # Less than was announced: only the end of the connection can tell the caller.
            self._connection.spoil()
        if head or last:
            self.has_begun = True
            self._connection.send(head + last)

    def refuse(self, error: DwctlError) -> None:
        """An error in place of an answer of which nothing was sent."""
        self.status, self._left, self._is_chunked = "", None, False
        body, headers = _json_of(error, self._request.path)
        self.send(error.status, headers, body)

    @staticmethod
    def refusal(error: DwctlError, path: str) -> bytes:
        """The whole answer to what could not be read as a request; the last one on its connection."""
        body, headers = _json_of(error, path)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = (
            f"HTTP/1.1 {status_line(error.status)}\r\nDate: {_date(int(time.time()))}\r\nConnection: close\r\n"
            f"{lines}{_NOSNIFF}: nosniff\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode("latin-1", "replace") + body

    def _begin(self, status: str, headers: Headers, length: int | None) -> None:
        request, connection = self._request, self._connection
        code = int(status[:3])
        self._omits_body = request.method == "HEAD" or code in (204, 304) or code < 200
        lines = []
        says_length = False
        for name, value in headers:
            lower = _lower(name)
            if lower in _OURS:
                if lower == "connection" and "close" in value.lower():
                    connection.spoil()
                continue
            if lower == "content-length":
                if code == 204 or code < 200:
                    continue
                length, says_length = int(value), True
            if lower == _NOSNIFF:
                continue
            if not value.isprintable():
                value = _CONTROLS.sub("", value)
            lines.append(f"{name}: {value}\r\n")
        self._left = length
        self._is_chunked = length is None and request.is_1_1 and not self._omits_body
        if length is None and not self._is_chunked and not self._omits_body:
            connection.spoil()
        if not self._body.is_at_hand:
            connection.spoil()
        if self._is_chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        elif length is not None and not says_length and code != 204:
            lines.append(f"content-length: {length}\r\n")
        kept = "keep-alive" if connection.stays_open() else "close"
        text = (
            f"HTTP/1.{1 if request.is_1_1 else 0} {status}\r\nDate: {_date(int(time.time()))}\r\n"
            f"Connection: {kept}\r\n{''.join(lines)}{_NOSNIFF}: nosniff\r\n\r\n"
        )
        self._head = text.encode("latin-1", "replace")
        self.status, self.headers = status, headers

    @property
    def response_length(self) -> int:
        """For the access log."""
        return self.sent


def _json_of(error: DwctlError, path: str) -> tuple[bytes, Headers]:
    id = str(uuid7())
    headers = [("content-type", "application/json"), ("x-request-id", id)]
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(error.retry_after_s)))
    return body_of(error, path, id), headers


@lru_cache(64)
def status_line(status: int) -> str:
    """`200 OK`; statuses without a name of their own get one."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


@lru_cache(1)
def _date(second: int) -> str:
    return format_date_time(second)


@lru_cache(512)
def _lower(name: str) -> str:
    """The name in lower case. Raises ValueError for what is none."""
    if not _NAME.fullmatch(name):
        raise ValueError("a header's name has characters that no name can have")
    return name.lower()
