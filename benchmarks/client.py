"""A small HTTP client for many connections in one loop: raw asyncio, one call at a time on each connection."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from benchmarks.stage import SECRET

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """`began`, `first` (byte) and `ended` are times of CLOCK_MONOTONIC; `raw` is the body as it came, chunked or not."""

    status: int
    raw: bytes
    began: float
    first: float
    ended: float

    @property
    def seconds(self) -> float:
        """From the first byte sent to the last one received."""
        return self.ended - self.began


class Lost(Exception):
    """The connection was closed before the answer was complete."""


def request(url: str, body: bytes) -> bytes:
    """The bytes of a POST with the benchmark's API key."""
    parts = urlsplit(url)
    lines = (
        f"POST {parts.path} HTTP/1.1",
        f"host: {parts.netloc}",
        f"authorization: Bearer {SECRET}",
        "content-type: application/json",
        f"content-length: {len(body)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """One connection, kept alive."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._pieces: list[bytes] = []
        self._received = 0
        self._whole: int | None = None
        self._chunked = False
        self._status = 0
        self._began = self._first = 0.0
        self._answer: asyncio.Future[Answer] | None = None

    @classmethod
    async def open(cls, url: str) -> Connection:
        """Connect to the server in `url`."""
        host, _, port = urlsplit(url).netloc.partition(":")
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        return connection

    async def call(self, message: bytes) -> Answer:
        """Send it and wait for the whole answer. Raises Lost."""
        self._answer = asyncio.get_running_loop().create_future()
        self._pieces, self._received, self._status = [], 0, 0
        self._began = time.monotonic()
        self._transport.write(message)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Lost())

    def data_received(self, data: bytes) -> None:
        if not self._status:
            data = self._read_head(data)
        self._pieces.append(data)
        self._received += len(data)
        if self._chunked:
            ended = data.endswith(_LAST_CHUNK) or (
                len(data) < 5 and b"".join(self._pieces[-5:]).endswith(_LAST_CHUNK)
            )
        else:
            ended = self._received == self._whole
        if ended and self._answer is not None and not self._answer.done():
            self._answer.set_result(self._finished())

    def _read_head(self, data: bytes) -> bytes:
        """Servers here send a head in one segment."""
        self._first = time.monotonic()
        head, _, rest = data.partition(b"\r\n\r\n")
        status, length = _STATUS.match(head), _LENGTH.search(head)
        assert status is not None
        self._status = int(status[1])
        self._chunked = length is None
        self._whole = int(length[1]) if length else None
        return rest

    def _finished(self) -> Answer:
        raw = b"".join(self._pieces)
        return Answer(self._status, raw, self._began, self._first, time.monotonic())
