"""HTTP/1.1 answers: bytes in, heads and bodies out (RFC 9112). Pure.

Strict where a lenient reader could take one answer's end for another's beginning: line ends are CR LF, lengths are
digits and agree, `Transfer-Encoding` is `chunked` alone. What is not allowed raises BadResponse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from dwctl.upstream.errors import BadResponse

MAX_HEAD_BYTES = 64 * 1024
_MAX_CHUNK_LINE_BYTES = 4 * 1024

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: .*)?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)

_MALFORMED = "The upstream server's answer has a malformed header."
_BAD_CHUNK = "The upstream server's answer has a malformed chunk."
_BAD_FRAMING = "The upstream server's answer has no clear length."


class Body:
    """How an answer's body ends. `feed` gives the body's bytes among those received, until `done`.

    `excess`: more was received than the answer has, so the connection is good for nothing else.
    """

    __slots__ = ("done", "excess")

    def __init__(self, *, done: bool = False) -> None:
        self.done = done
        self.excess = False

    def feed(self, data: bytes) -> bytes:
        """Here: of an answer that has no body."""
        self.excess = self.excess or bool(data)
        return b""

    def end(self) -> None:
        """The other side has closed the connection."""
        raise BadResponse("The upstream server's answer was cut short.")


class LengthBody(Body):
    """As long as `Content-Length` says."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        super().__init__(done=length == 0)
        self._left = length

    def feed(self, data: bytes) -> bytes:
        if len(data) > self._left:
            self.excess = True
            data = data[: self._left]
        self._left -= len(data)
        self.done = self._left == 0
        return data


class UnboundedBody(Body):
    """Everything until the connection closes."""

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> None:
        self.done = True


class ChunkedBody(Body):
    """`Transfer-Encoding: chunked`; extensions and trailers are dropped."""

    __slots__ = ("_after_chunk", "_left", "_rest", "_trailer_bytes")

    def __init__(self) -> None:
        super().__init__()
        self._left = 0
        self._after_chunk = False
        self._rest = b""
        self._trailer_bytes = -1  # not there yet

    def feed(self, data: bytes) -> bytes:
        if self._rest:
            data = self._rest + data
        pieces = []
        at = 0
        while not self.done:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._after_chunk = True
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            self._line(data[at:end])
            at = end + 2
        self._keep(data[at:])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _keep(self, rest: bytes) -> None:
        self._rest = rest
        self.excess = self.done and bool(rest)
        if self._after_chunk and rest[:1] not in (b"", b"\r"):
            raise BadResponse(_BAD_CHUNK)
        if len(rest) > _MAX_CHUNK_LINE_BYTES:
            raise BadResponse(_BAD_CHUNK)

    def _line(self, line: bytes) -> None:
        """One line between two chunks: the end of the last one, a size, or a trailer."""
        if self._after_chunk:
            if line:
                raise BadResponse(_BAD_CHUNK)
            self._after_chunk = False
        elif self._trailer_bytes >= 0:
            self._trailer(line)
        else:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise BadResponse(_BAD_CHUNK)
            self._left = int(match[1], 16)
            if self._left == 0:
                self._trailer_bytes = 0

    def _trailer(self, line: bytes) -> None:
        self.done = not line
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_HEAD_BYTES:
            raise BadResponse("The upstream server's answer has trailers without end.")


@dataclass(slots=True)
class Head:
    """What stands before a body. Names are in lower case, in the order received."""

    status: int
    headers: list[tuple[str, str]]
    body: Body
    persistent: bool
    """May the connection serve another call once the body is done?"""


def parse_head(raw: bytes, method: str = "GET") -> Head:
    """Read a head (without its empty line). `method` matters because the answer to HEAD has no body."""
    text = raw.decode("latin-1")
    first, *lines = text.split("\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise BadResponse("The upstream server does not speak HTTP/1.1.")
    if not text.count("\r") == text.count("\n") == len(lines) or "\0" in text:
        raise BadResponse(_MALFORMED)
    headers = [_parse_line(line) for line in lines]

    status = int(status_line[2])
    length, coding, connection = _framing(headers)
    bodiless = method == "HEAD" or status < 200 or status in (204, 304)
    body = Body(done=True) if bodiless else _body(length, coding)
    persistent = "close" not in connection if status_line[1] == "1" else "keep-alive" in connection
    return Head(status, headers, body, persistent and not isinstance(body, UnboundedBody))


def _parse_line(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise BadResponse(_MALFORMED)
    return _parse_name(name), value.strip(" \t")


@lru_cache(1024)
def _parse_name(name: str) -> str:
    # Among others this refuses white space before the colon, and lines that continue the one before.
    if _NAME.fullmatch(name) is None:
        raise BadResponse(_MALFORMED)
    return name.lower()


def _framing(headers: list[tuple[str, str]]) -> tuple[str | None, str | None, str]:
    """`Content-Length`, `Transfer-Encoding`, and `Connection` in lower case."""
    last = dict(headers)
    if len(last) < len(headers):
        last = _combined(headers)
    connection = last.get("connection", "").lower()
    return last.get("content-length"), last.get("transfer-encoding"), connection


def _combined(headers: list[tuple[str, str]]) -> dict[str, str]:
    """Repeated headers as lists; a length that is only said twice is one."""
    combined: dict[str, str] = {}
    for name, value in headers:
        before = combined.get(name)
        if before is None or (name == "content-length" and before == value):
            combined[name] = value
        else:
            combined[name] = f"{before}, {value}"
    return combined


def _body(length: str | None, coding: str | None) -> Body:
    if coding is not None:
        # Both at once is how one answer is smuggled into another: RFC 9112, 6.3 lets us call it an error.
        if length is not None or coding.lower() != "chunked":
            raise BadResponse(_BAD_FRAMING)
        return ChunkedBody()
    if length is None:
        return UnboundedBody()
    if not (length.isascii() and length.isdecimal() and len(length) < 19):
        raise BadResponse(_BAD_FRAMING)
    return LengthBody(int(length))
