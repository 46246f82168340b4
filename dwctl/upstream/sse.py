"""Server-sent events: bytes in any portions -> whole events, as the HTML standard reads them, and as servers write them.

Pure: no sockets, no waiting. An event's `raw` bytes, one after the other, are the stream itself (but for a byte order mark), so a
relay can pass on what it need not change.

Beyond the standard: a field `error` is an event of that name; data lines that each hold an object of their own are as many events,
though no blank line parts them; JSON that stands without a field name is data, and so is each line of a stream of JSON lines. The
`raw` of such events is what they should have been. `id` and `retry` are left out of it: no stream of events goes on here by them, and
OpenAI's clients take each comment that follows an `id` for an event, whose data they cannot read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_EVENT_BYTES = 8 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t\r\n"
_STREAM_TYPES = frozenset(["text/event-stream", "application/x-ndjson", "application/jsonl", "application/x-jsonlines", "application/stream+json"])  # fmt: skip
_FIELD = re.compile(rb"(?:data|event|id|retry|error)?:")
_NUMBERS = re.compile(rb"(?:id|retry)(?::|\Z)")
_GLUED = re.compile(rb"\}\n(?=data:)")  # two events with no blank line between them
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


def is_event_stream(content_type: str | None, first: bytes) -> bool:
    """Whether an answer is a stream of events: its first bytes say so, and where they say nothing, or are not there yet, its type.

    first: from the beginning of the body, as much of it as is there. Servers send streams as JSON or with no type at all, and JSON as
    a stream of events.
    """
    beginning = first.removeprefix(_BOM).lstrip(_BLANKS)
    if beginning.startswith(b"{"):
        end = beginning.find(b"\n")
        if end < 0 or not beginning[max(0, end - 16) : end].rstrip().endswith(b"}"):
            return False
        return beginning[end : end + 64].lstrip(_BLANKS).startswith(b"{")
    if _FIELD.match(beginning):
        return True
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind in _STREAM_TYPES


class SseParser:
    """Takes a stream apart. One for each stream."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._buffer = bytearray()
        self._at_start = True
        self._has_lines = False  # it is a stream of JSON lines, or one JSON text
        self._overflown = False

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes.

        Raises EventTooLarge, and then again at each call, after all events before the large one were returned.
        """
        if self._overflown:
            raise EventTooLarge
        if self._at_start:
            chunk = self._begun(chunk)
        buffer = self._buffer
        if self._has_lines:
            return self._bounded(self._lines(chunk))
        if not buffer and b"\r" not in chunk and len(chunk) <= self._max:
            *whole, rest = chunk.split(b"\n\n")
            events = []
            for frame in whole:
                if frame.startswith(b"data: ") and b"\n" not in frame:
                    events.append(SseEvent(frame[6:], None, None, frame + b"\n\n"))
                else:
                    events += _parse(frame, frame + b"\n\n")
            if rest:
                buffer += rest
                events += self._glued(0)
            return events
        known = len(buffer)
        events = self._bounded(self._split(chunk))
        if buffer and not self._overflown:
            grew = len(buffer) == known + len(chunk)
            events += self._glued(max(0, known - len(b"}\ndata")) if grew else 0)
        return events

    def close(self) -> list[SseEvent]:
        """What is left when the stream has ended: an event whose blank line never came counts, if it has data."""
        if self._overflown:
            raise EventTooLarge
        rest = bytes(self._buffer)
        self._buffer.clear()
        events = _parse(rest.strip(b"\r\n"), rest)
        return [event for event in events if event.data is not None or event.comment is not None]

    def _glued(self, searched: int) -> list[SseEvent]:
        """The events in the buffer that no blank line parts from the next one; up to `searched` there is none."""
        buffer = self._buffer
        events: list[SseEvent] = []
        start = 0
        for end in _GLUED.finditer(buffer, searched):
            frame = bytes(buffer[start : end.start() + 1])
            events += _parse(frame, frame + b"\n\n")
            start = end.end()
        if start:
            del buffer[:start]
        return events

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

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The whole lines up to here that are objects of their own. A text that goes over several lines stays in the buffer."""
        buffer = self._buffer
        buffer += chunk
        if b"\n" not in chunk:
            return []
        lines = []
        start = 0
        while (end := buffer.find(b"\n", start)) >= 0:
            bare = bytes(buffer[start:end]).strip(_BLANKS)
            if (
                bare
                and not (bare.endswith(b"}") and bare.startswith(b"{"))
                and not _FIELD.match(bare)
            ):
                break
            if bare:
                lines.append(bare + b"\n\n")
            start = end + 1
        del buffer[:start]
        return lines

    def _bounded(self, frames: list[bytes]) -> list[SseEvent]:
        events: list[SseEvent] = []
        for frame in frames:
            if len(frame) > self._max:
                self._overflown = True
                break
            events += _parse(frame.strip(b"\r\n"), frame)
        self._overflown = self._overflown or len(self._buffer) > self._max
        if self._overflown and not events:
            raise EventTooLarge
        return events

    def _begun(self, chunk: bytes) -> bytes:
        """The beginning without a byte order mark, once it can be told what kind of stream it is; nothing until then."""
        self._buffer += chunk
        begun = bytes(self._buffer)
        if len(begun) < len(_BOM) and _BOM.startswith(begun):
            return b""
        begun = begun.removeprefix(_BOM)
        beginning = begun.lstrip(_BLANKS)
        if not beginning and len(begun) < self._max:
            return b""
        self._at_start = False
        self._has_lines = beginning.startswith(b"{")
        self._buffer.clear()
        return begun


def _parse(body: bytes, raw: bytes) -> list[SseEvent]:
    """The event that a frame is; several, where its lines are events of their own."""
    if body.startswith(b"data: ") and b"\n" not in body and b"\r" not in body:
        return [SseEvent(body[6:], None, None, raw)]
    data: list[bytes] = []
    comments: list[bytes] = []
    event = error = None
    is_numbered = False
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for line in lines:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value
        elif name == b"error":
            data.append(value)
            event, error = event or b"error", value
        elif name in (b"id", b"retry"):
            is_numbered = True
        elif not name and line:
            comments.append(line)
    if error is not None:
        raw = b"event: error\ndata: " + error + b"\n\n"
    elif is_numbered:
        raw = b"\n".join(line for line in lines if not _NUMBERS.match(line)) + b"\n\n"
    if not data and lines[0][:1] == b"{":
        data = lines
        raw = b"data: " + b"\ndata: ".join(lines) + b"\n\n"
    if len(data) > 1 and event is None and _are_objects(data):
        return [SseEvent(line, None, None, b"data: " + line + b"\n\n") for line in data]
    joined = b"\n".join(data) if data else None
    return [SseEvent(joined, event, b"\n".join(comments) or None, raw)]


def _are_objects(lines: list[bytes]) -> bool:
    """Whether each line is one JSON object, or what stands among them: nothing, `null`, the end marker."""
    return all(
        (line[:1] == b"{" and line.rstrip()[-1:] == b"}")
        or line.strip() in (b"", b"null", b"[DONE]")
        for line in lines
    )
