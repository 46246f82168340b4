"""A client that sends what it is told to, byte for byte, and reads what comes as RFC 9112 says, leniently nowhere."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

PATIENCE_S = 4.0
PROBE = b"GET /healthz HTTP/1.1\r\nHost: probe\r\n\r\n"

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) ([\t \x21-\x7e]*)")
_FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t \x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*"
)
_SIZE = re.compile(rb"[0-9A-Fa-f]+")


class Malformed(AssertionError):
    """What came is no HTTP."""


class Ended(Exception):
    """The connection came to its end; the text says how: `closed` or `reset`."""


@dataclass(frozen=True)
class Pause:
    """Nothing is sent for so long."""

    seconds: float


@dataclass(frozen=True)
class Trickle:
    """One byte at a time."""

    data: bytes


@dataclass(frozen=True)
class Await:
    """Nothing more is sent until so many answers have come, interim ones included."""

    count: int = 1


@dataclass(frozen=True)
class HalfClose:
    """No more will be sent; answers are still read."""


Step = bytes | Trickle | Pause | Await | HalfClose


@dataclass(frozen=True)
class Answer:
    """One response as it came, the body freed from its framing. `framing`: `length`, `chunked`, `close` or `none`."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    framing: str
    whole: bool = True

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def header(self, name: str) -> str | None:
        found = self.all(name)
        return found[0] if found else None

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends with it."""
        tokens = ",".join(self.all("connection")).lower().split(",")
        return "close" in [token.strip() for token in tokens]

    def json(self) -> Any:
        assert (self.header("content-type") or "").startswith("application/json"), self
        return orjson.loads(self.body)


@dataclass
class Exchange:
    """All that came on one connection. `end`: `open`, `closed` or `reset`."""

    answers: list[Answer] = field(default_factory=list)
    end: str = "open"
    after: list[Answer] = field(default_factory=list)
    """What came although nothing was expected, or instead of the answer to an honest request that followed."""

    @property
    def statuses(self) -> tuple[int, ...]:
        return tuple(answer.status for answer in self.answers)


class Connection:
    """One connection to a server; `receive` reads one response after the other."""

    def __init__(
        self, port: int, patience_s: float = PATIENCE_S, source: str = "127.0.0.1"
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), patience_s, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Vanish: the other side hears a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, *data: bytes) -> None:
        for piece in data:
            self.socket.sendall(piece)

    def receive(self, *, to_head: bool = False) -> Answer:
        """The next response. TimeoutError, Ended or Malformed otherwise."""
        line = self._line()
        matched = _STATUS_LINE.fullmatch(line)
        if not matched:
            raise Malformed(f"status line {line!r}")
        status = int(matched[1])
        headers = tuple(self._fields())
        body, framing, whole = self._body(status, headers, to_head)
        return Answer(status, matched[2].decode(), headers, body, framing, whole)

    def ends(self, within_s: float = PATIENCE_S) -> str:
        """How it ends: `closed`, `reset`, or `open` if it does not; what is sent meanwhile is a Malformed."""
        self.socket.settimeout(within_s)
        try:
            self._more()
        except Ended as end:
            return str(end)
        except TimeoutError:
            return "open"
        raise Malformed(f"more than was expected: {self._read[:200]!r}")

    def _fields(self) -> Iterable[tuple[str, str]]:
        while line := self._line():
            matched = _FIELD.fullmatch(line)
            if not matched:
                raise Malformed(f"header line {line!r}")
            yield matched[1].decode().lower(), matched[2].decode("latin-1")

    def _body(
        self, status: int, headers: tuple[tuple[str, str], ...], to_head: bool
    ) -> tuple[bytes, str, bool]:
        lengths = [value for name, value in headers if name == "content-length"]
        codings = [value for name, value in headers if name == "transfer-encoding"]
        if len(lengths) > 1 or len(codings) > 1 or (lengths and codings):
            raise Malformed(f"two framings: {headers}")
        if status < 200 or status == 204:
            if lengths or codings:
                raise Malformed(f"{status} with a framing: {headers}")
            return b"", "none", True
        if to_head or status == 304:
            return b"", "none", True
        if lengths:
            if not lengths[0].isascii() or not lengths[0].isdecimal():
                raise Malformed(f"content-length {lengths[0]!r}")
            try:
                return self._exactly(int(lengths[0])), "length", True
            except Ended:
                return self._read, "length", False
        if codings:
            if codings[0].lower() != "chunked":
                raise Malformed(f"transfer-encoding {codings[0]!r}")
            return self._chunks()
        return self._rest(), "close", True

    def _chunks(self) -> tuple[bytes, str, bool]:
        body = b""
        try:
            while True:
                size, *_ = self._line().partition(b";")
                if not _SIZE.fullmatch(size):
                    raise Malformed(f"chunk size {size!r}")
                if not int(size, 16):
                    list(self._fields())
                    return body, "chunked", True
                body += self._exactly(int(size, 16))
                if self._exactly(2) != b"\r\n":
                    raise Malformed("chunk without its end")
        except Ended:
            return body, "chunked", False

    def _rest(self) -> bytes:
        with contextlib.suppress(Ended):
            while True:
                self._more()
        rest, self._read = self._read, b""
        return rest

    def _line(self) -> bytes:
        while b"\n" not in self._read:
            try:
                self._more()
            except Ended:
                if self._read:
                    raise Malformed(f"it ended within {self._read[:200]!r}") from None
                raise
        line, _, self._read = self._read.partition(b"\n")
        if not line.endswith(b"\r") or b"\r" in line[:-1]:
            raise Malformed(f"line end of {line!r}")
        return line[:-1]

    def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        data, self._read = self._read[:size], self._read[size:]
        return data

    def _more(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            raise Ended("reset") from None
        if not data:
            raise Ended("closed")
        self._read += data


def exchange(
    port: int,
    steps: Sequence[Step],
    *,
    expected: int = 1,
    heads: Sequence[int] = (),
    patience_s: float = PATIENCE_S,
) -> Exchange:
    """Send the steps, read so many final answers (or up to one that closes), then see whether the connection still serves.

    heads: which of the requests (0 is the first) are HEAD, whose answers have no body.
    """
    found = Exchange()
    with Connection(port, patience_s) as connection:
        came = threading.Semaphore(0)
        sender = threading.Thread(target=_send, args=(connection, steps, came), daemon=True)
        sender.start()
        try:
            _read_all(connection, found, expected, heads, came.release)
            # What came back may have come before all was sent.
            sender.join(patience_s)
            _probe(connection, found, expected)
        except Ended as end:
            found.end = str(end)
        except TimeoutError:
            found.end = "silent"
        finally:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
            sender.join(5)
    return found


def _read_all(
    connection: Connection,
    found: Exchange,
    expected: int,
    heads: Sequence[int],
    came: Callable[[], None],
) -> None:
    final = 0
    while final < expected:
        answer = connection.receive(to_head=final in heads)
        found.answers.append(answer)
        came()
        final += answer.status >= 200
        if answer.closes or answer.framing == "close":
            break


def _probe(connection: Connection, found: Exchange, expected: int) -> None:
    closes = bool(found.answers) and found.answers[-1].closes
    if expected and not closes:
        with contextlib.suppress(OSError):
            connection.send(PROBE)
    following = connection.receive()
    if closes or following.status != 200:
        found.after.append(following)


def _send(connection: Connection, steps: Sequence[Step], came: threading.Semaphore) -> None:
    with contextlib.suppress(OSError):
        for step in steps:
            match step:
                case bytes():
                    connection.send(step)
                case Trickle():
                    connection.send(*(step.data[i : i + 1] for i in range(len(step.data))))
                case Pause():
                    time.sleep(step.seconds)
                case Await():
                    for _ in range(step.count):
                        if not came.acquire(timeout=PATIENCE_S):
                            return
                case HalfClose():
                    connection.socket.shutdown(socket.SHUT_WR)
