"""An upload's form (multipart/form-data), read piece by piece: its one file is given on as it comes, its fields are kept. No Flask in here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import (
    NEED_DATA,
    Data,
    Epilogue,
    Event,
    Field,
    File,
    MultipartDecoder,
    State,
)

from dwctl.errors import Invalid

FILE = "file"
_MOST_PARTS = 100
_LONGEST_FIELD = 64 * 1024
_LONGEST_HEADERS = 64 * 1024
_LONGEST_BOUNDARY = 70
_LONGEST_PADDING = 64
_BETWEEN_PARTS = (State.PREAMBLE, State.PART)
_PLAIN_CODINGS = ("", "binary", "8bit", "7bit")

Judge = Callable[[str, str], None]


class Form:
    """`file` gives the bytes of the part of that name, and reads the form to its end; then `fields` and `filename` are complete.

    judge: is told each field as it ends, and may refuse it. Raises Invalid for what is no form, or has a second file.
    """

    def __init__(self, content_type: str, pieces: Iterable[bytes], judge: Judge) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.has_file = False
        boundary = _boundary(content_type)
        self._decoder = MultipartDecoder(boundary, max_parts=_MOST_PARTS)
        # werkzeug 3.1 takes the carriage return before a boundary for data where what follows the boundary has not all come yet.
        self._unfinished = re.compile(rb"--%s(?:-?|[ \t]+)\r?\Z" % re.escape(boundary))
        self._tail = len(boundary) + _LONGEST_PADDING
        self._pieces = iter(pieces)
        self._judge = judge

    def file(self) -> Iterator[bytes]:
        """Pieces of the file, none of them empty."""
        into: list[bytes] | None = None
        name, in_file = "", False
        for event in self._events():
            if isinstance(event, Field | File):
                name = event.name or ""
                in_file = name == FILE
                into = [] if isinstance(event, Field) and not in_file else None
                if in_file:
                    self._begin_file(event)
            elif isinstance(event, Data):
                if in_file:
                    if event.data:
                        yield event.data
                elif into is not None:
                    into.append(event.data)
                    self._bound(name, into)
                    if not event.more_data:
                        self._end_field(name, into)

    def _events(self) -> Iterator[Event]:
        decoder = self._decoder
        held = b""
        for piece in self._pieces:
            if decoder.state is State.EPILOGUE:
                # Nobody wants it, and the decoder would keep all of it.
                continue
            decoder.receive_data(held + piece)
            held = self._take_back()
            while (event := self._next()) is not NEED_DATA:
                yield event
            if len(decoder.buffer) > _LONGEST_HEADERS and decoder.state in _BETWEEN_PARTS:
                raise malformed("what should be the headers of a part has no end")
        decoder.receive_data(held)
        decoder.receive_data(None)
        while not isinstance(event := self._next(), Epilogue):
            yield event

    def _take_back(self) -> bytes:
        """What may be a boundary that has not all come yet. The rest is for the decoder to read at once: it keeps what it is not asked for."""
        buffer = self._decoder.buffer
        found = self._unfinished.search(buffer, max(0, len(buffer) - self._tail))
        if found is None:
            return b""
        held = bytes(buffer[found.start() :])
        del buffer[found.start() :]
        return held

    def _next(self) -> Event:
        try:
            return self._decoder.next_event()
        except RequestEntityTooLarge:
            raise malformed(f"it has more than {_MOST_PARTS} parts") from None
        except (ValueError, AttributeError):
            # The decoder's own words are about its states.
            why = "it ends before its last boundary, or a part has headers that cannot be read"
            raise malformed(why) from None

    def _begin_file(self, event: Field | File) -> None:
        if self.has_file:
            raise malformed("it has more than one part of the name `file`")
        coding = event.headers.get("content-transfer-encoding", "").strip().lower()
        if coding not in _PLAIN_CODINGS:
            raise malformed(f"the transfer encoding {coding[:40]!r} is not supported")
        self.has_file = True
        self.filename = event.filename if isinstance(event, File) else None

    def _bound(self, name: str, parts: list[bytes]) -> None:
        if sum(map(len, parts)) > _LONGEST_FIELD:
            raise malformed(f"the field {name[:40]!r} has more than {_LONGEST_FIELD} bytes")

    def _end_field(self, name: str, parts: list[bytes]) -> None:
        value = b"".join(parts).decode("utf-8", "replace")
        self._judge(name, value)
        self.fields[name] = value


def malformed(why: str) -> Invalid:
    """The refusal of a form that cannot be read."""
    return Invalid(f"Invalid multipart request: {why}", code="invalid_form")


def _boundary(content_type: str) -> bytes:
    kind, parameters = parse_options_header(content_type)
    boundary = parameters.get("boundary", "")
    if kind.lower() != "multipart/form-data" or not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise malformed("Invalid `boundary` for `multipart/form-data` request")
    return boundary.encode("latin-1", "replace")
