"""Pages of lines: one of them, up to a limit, or all one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any
from uuid import UUID

import gevent
import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.string import ByteaBinaryLoader

from dwctl import sql
from dwctl.db import Connections, DatabaseAway

_QUERIES = sql.load("dwctl.downloads")
_IN_LINE = re.compile(r"{json ([a-z_.]+)}")


class Manner(IntEnum):
    """How bodies are put into their lines: the quickest first. Where one does not do, the rest is read in another one."""

    PLAIN = 0
    """As they are: a page of which one has a line end in it is found out here."""
    TIDY = 1
    """Line ends become spaces. Fails, as the first one does, with what is no JSON, or nested too deep for PostgreSQL to say."""
    CAREFUL = 2
    """By fusillade.one_line, which takes anything."""


_BODIES = {
    Manner.PLAIN: r"coalesce(\1, 'null')",
    Manner.TIDY: (
        r"coalesce(CASE WHEN strpos(\1, E'\\n') = 0 AND strpos(\1, E'\\r') = 0 THEN \1 "
        r"ELSE translate(\1, E'\\n\\r', '  ') END, 'null')"
    ),
    Manner.CAREFUL: r"fusillade.one_line(\1)",
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """Of line. order: of its rows, in no more words than they need: more would have them sorted."""

    rows: str
    text: str
    order: str


_RESULTS, _RESULT = _QUERIES["result_rows"], _QUERIES["result_text"]
_KINDS = {
    "input": _Kind(_QUERIES["input_rows"], _QUERIES["input_text"], "s.line, s.id"),
    "output": _Kind(_QUERIES["output_rows"], _QUERIES["output_text"], "s.line"),
    "error": _Kind(_QUERIES["error_rows"], _QUERIES["error_text"], "s.line"),
    "result": _Kind(_RESULTS.replace("{lines}", _QUERIES["result_lines"]), _RESULT, "s.id"),
    "result_by_hand": _Kind(
        _RESULTS.replace("{lines}", _QUERIES["result_by_hand_lines"]), _RESULT, "s.line, s.id"
    ),
}


def _page(kind: _Kind, manner: Manner) -> str:
    bodies = () if manner is Manner.CAREFUL else _IN_LINE.findall(kind.text)
    checks = "".join(
        f", count({body}::json) FILTER (WHERE t.is_taken) AS check_{number}"
        for number, body in enumerate(bodies)
    )
    return (
        _QUERIES["page"]
        .replace("{rows}", kind.rows)
        .replace("{text}", _IN_LINE.sub(_BODIES[manner], kind.text))
        .replace("{checks}", checks)
        .replace("{order}", kind.order)
    )


_PAGES = {(name, manner): _page(kind, manner) for name, kind in _KINDS.items() for manner in Manner}

NIL = UUID(int=0)
LAST = UUID(int=2**128 - 1)
PAGE_BYTES = 1024 * 1024
ANSWER_BYTES = 16 * 1024 * 1024
"""What an answer with a limit holds at most, but for its first line."""
_LOOKS = 1000
_LINE_ENDS = tuple((end.encode(), f"\\u{ord(end):04x}".encode()) for end in "\u0085\u2028\u2029")
_LOOKS_FOR_FEW = 4000
_ASKING_S = 0.0005

Place = tuple[int, UUID]
"""A line's number, and the id that decides between lines of one number: lines behind it have not been read."""


@dataclass(frozen=True, slots=True)
class Source:
    """Lines that can be read in pages.

    kind: of line, as in _KINDS, found by `values`. place: behind which they begin. skip: how many wanted lines after that are left out, because no
    place could be given for them. line: the offset that was asked for. are_places: offsets are places, so that what is not there counts.
    total: how many lines behind the beginning of everything were wanted when it was counted; None where nobody counted.
    is_growing: more may come later.
    """

    kind: str
    values: Mapping[str, Any]
    place: Place
    skip: int = 0
    line: int = 0
    are_places: bool = False
    total: int | None = None
    is_growing: bool = False
    is_filtered: bool = False

    @property
    def most(self) -> int:
        """How many lines there are to be read."""
        return 2**62 if self.total is None else max(self.total - self.line, 0)

    def line_behind(self, taken: int, place: Place) -> int:
        """The offset at which whoever has read so many, up to this place, goes on."""
        return max(place[0] + 1, self.line) if self.are_places else self.line + taken


@dataclass(frozen=True, slots=True)
class Page:
    """left_over: wanted lines that it has seen and not taken. goes_on: it has not seen the end."""

    lines: bytes
    taken: int
    skipped: int
    left_over: int
    goes_on: bool
    place: Place

    @property
    def is_last(self) -> bool:
        """Whether nothing is behind it."""
        return not self.left_over and not self.goes_on


@dataclass(frozen=True, slots=True)
class Some:
    """Lines up to a limit. has_more: there are others already."""

    lines: bytes
    taken: int
    has_more: bool
    place: Place


@dataclass(slots=True)
class _Reader:
    """Where a reading is."""

    connections: Connections
    source: Source
    looks: int
    place: Place = field(init=False)
    skip: int = field(init=False)
    manner: Manner = Manner.PLAIN

    def __post_init__(self) -> None:
        self.place, self.skip = self.source.place, self.source.skip

    def next(self, most: int, bytes: int) -> Page:
        page = self._page(most, bytes)
        if self.manner is Manner.PLAIN and not _is_of_lines(page):
            self.manner = Manner.TIDY
            page = self._page(most, bytes)
        self.place = page.place
        self.skip -= page.skipped
        return page

    def _page(self, most: int, bytes: int) -> Page:
        try:
            return self._read(most, bytes)
        except (psycopg.DataError, DatabaseAway) as error:
            if self.manner is Manner.CAREFUL or not _is_of_a_body(error):
                raise
            self.manner = Manner.CAREFUL
            return self._read(most, bytes)

    def _read(self, most: int, bytes: int) -> Page:
        with self.connections.transaction() as connection:
            return _read(connection, self, most, bytes)


def some(connections: Connections, source: Source, limit: int) -> Some:
    """The first `limit` lines, or fewer where they are large."""
    reader = _Reader(connections, source, _LOOKS_FOR_FEW if source.is_filtered else limit + 1)
    lines, taken = bytearray(), 0
    while True:
        page = reader.next(limit - taken, max(ANSWER_BYTES - len(lines), 0))
        lines += page.lines
        taken += page.taken
        is_full = taken == limit or len(lines) >= ANSWER_BYTES
        if page.is_last or (is_full and page.left_over):
            return Some(bytes(lines), taken, not page.is_last, page.place)


def stream(connections: Connections, source: Source) -> Iterator[bytes]:
    """All lines, a page at a time; no connection is held between two of them. Raises DatabaseAway, psycopg.Error, in the middle too.

    While one page is sent the next is read, unless pages are large: that is a page more in memory, and nearly twice the speed.
    """
    reader = _Reader(connections, source, _LOOKS_FOR_FEW if source.is_filtered else _LOOKS)
    left = source.most
    ahead: gevent.Greenlet | None = None
    try:
        while left > 0:
            page = reader.next(left, PAGE_BYTES) if ahead is None else _outcome(ahead)
            left -= page.taken
            goes_on = left > 0 and not page.is_last
            is_small = len(page.lines) <= 2 * PAGE_BYTES
            if goes_on and is_small:
                ahead = gevent.spawn(_attempt, reader, left)
                # Whoever takes a page at once never waits for it: then nothing would be asked for meanwhile.
                gevent.sleep(_ASKING_S)
            else:
                ahead = None
            if page.lines:
                yield page.lines
            if not goes_on:
                return
    finally:
        if ahead is not None:
            # Not waited for: a generator may be closed where nothing can wait.
            ahead.kill(block=False)


def _is_of_a_body(error: Exception) -> bool:
    """Whether it says that something is no JSON, or too deep (which psycopg has among the errors of connections)."""
    too_deep = psycopg.errors.StatementTooComplex
    return isinstance(error, psycopg.DataError) or isinstance(error.__cause__, too_deep)


def _attempt(reader: _Reader, most: int) -> Page | Exception:
    """A page, or why there is none: a greenlet that fails would say so on its own."""
    try:
        return reader.next(most, PAGE_BYTES)
    except Exception as error:
        return error


def _outcome(ahead: gevent.Greenlet) -> Page:
    found: Page | Exception = ahead.get()
    if isinstance(found, Exception):
        raise found
    return found


def _read(connection: psycopg.Connection[Any], reader: _Reader, most: int, bytes: int) -> Page:
    values = {
        **reader.source.values,
        "line": reader.place[0],
        "id": reader.place[1],
        "looks": reader.looks,
        "skip": reader.skip,
        "most": most,
        "bytes": bytes,
    }
    with connection.cursor(binary=True, row_factory=namedtuple_row) as cursor:
        cursor.adapters.register_loader("text", ByteaBinaryLoader)
        row: Any = cursor.execute(_PAGES[reader.source.kind, reader.manner], values).fetchone()
    place = reader.place if row.line is None else (row.line, row.id or NIL)
    return Page(
        _escaped(row.lines or b""), row.taken, row.skipped, row.left_over, row.goes_on, place
    )


def _is_of_lines(page: Page) -> bool:
    """Whether each of its lines is one."""
    return page.lines.count(b"\n") == page.taken and b"\r" not in page.lines


def _escaped(lines: bytes) -> bytes:
    """Lines without what Unicode takes for line ends inside the strings of JSON: `escape_line_ends` of queue/batches.sql, which counts their bytes."""
    if lines.isascii():
        return lines
    for end, escape in _LINE_ENDS:
        if end in lines:
            lines = lines.replace(end, escape)
    return lines
