"""Server-sent events: bytes in any portions -> whole events, as the HTML standard reads them.

Pure: no sockets, no waiting. An event's `raw` bytes, one after the other, are the stream itself (but for a byte order mark), so a
relay can pass on what it need not change.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_EVENT_BYTES = 8 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
# A \r at the very end may be half of a \r\n: it counts once the next byte is there.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r(?!\Z))")


class SseEvent(NamedTuple):
    """What stood between two blank lines. A tuple, because streams make very many of them."""

    data: bytes | None  # several data lines joined by \n; None: there was no data line
    event: bytes | None = None  # the event's name, where it has one
    comment: bytes | None = None  # comment lines with their colon, joined by \n
    raw: bytes = b""  # with the blank line that ended it


class EventTooLarge(Exception):
    """An event grew beyond the limit before it ended."""


class SseParser:
    """Takes a stream apart. One for each stream."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._buffer = bytearray()
        self._at_start = True
        self._overflown = False

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes.

        Raises EventTooLarge, and then again at each call, after all events before the large one were returned.
        """
        if self._overflown:
            raise EventTooLarge
        if self._at_start:
            chunk = self._without_bom(chunk)
        buffer = self._buffer
        if not buffer and b"\r" not in chunk and len(chunk) <= self._max:
            *whole, rest = chunk.split(b"\n\n")
            buffer += rest
            return [_parse(frame, frame + b"\n\n") for frame in whole]
        return self._bounded(self._split(chunk))

    def close(self) -> list[SseEvent]:
        """What is left when the stream has ended: an event whose blank line never came counts, if it has data."""
        if self._overflown:
            raise EventTooLarge
        rest = bytes(self._buffer)
        self._buffer.clear()
        event = _parse(rest.strip(b"\r\n"), rest)
        return [event] if event.data is not None or event.comment is not None else []

    def _split(self, chunk: bytes) -> list[bytes]:
        """The whole frames up to here; what follows them stays in the buffer."""
        buffer = self._buffer
        searched = max(0, len(buffer) - 2)  # a line end is at most two bytes long
        buffer += chunk
        frames = []
        start = 0
        for blank in _BLANK_LINE.finditer(buffer, searched):
            frames.append(bytes(buffer[start : blank.end()]))
            start = blank.end()
        del buffer[:start]
        return frames

    def _bounded(self, frames: list[bytes]) -> list[SseEvent]:
        events = []
        for frame in frames:
            if len(frame) > self._max:
                self._overflown = True
                break
            events.append(_parse(frame.strip(b"\r\n"), frame))
        self._overflown = self._overflown or len(self._buffer) > self._max
        if self._overflown and not events:
            raise EventTooLarge
        return events

    def _without_bom(self, chunk: bytes) -> bytes:
        self._buffer += chunk
        begun = bytes(self._buffer)
        if len(begun) < len(_BOM) and _BOM.startswith(begun):
            return b""
        self._at_start = False
        self._buffer.clear()
        return begun.removeprefix(_BOM)


def _parse(body: bytes, raw: bytes) -> SseEvent:
    if body.startswith(b"data: ") and b"\n" not in body and b"\r" not in body:
        return SseEvent(body[6:], None, None, raw)
    data: list[bytes] = []
    comments: list[bytes] = []
    event = None
    for line in body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value
        elif not name and line:
            comments.append(line)
    return SseEvent(b"\n".join(data) if data else None, event, b"\n".join(comments) or None, raw)
