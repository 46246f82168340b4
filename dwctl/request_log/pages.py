"""Pages of the log: along an index, some rows at a time, for a bounded while.

A filter that few calls fit would read millions of rows for one page. So a page also ends when its time is over, and says how far it came: the next
one goes on there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import dict_row

from dwctl.clock import id_text
from dwctl.config import Settings
from dwctl.db import Connections
from dwctl.errors import Unavailable
from dwctl.request_log.filters import Conditions, Filters, Scope, conditions, minted, narrowed
from dwctl.web.cursors import Position
from dwctl.web.pagination import anywhere

Row = dict[str, Any]

_BUDGET_S = 0.1
_SEARCH_BUDGET_S = 0.4
_FEW_ROWS, _SOME_ROWS, _MANY_ROWS = 1_000, 16_000, 256_000
_SEARCHED_ROWS = 2_000
_SEARCHED_BYTES = 4 * 1024 * 1024
_STATEMENT_MS = 3_000


_ALL = 2**31 - 1


def most_shown(settings: Settings) -> int:
    """How many characters the log shows of a body that stands on a call's own row. (Those in the log itself are cut already.)"""
    return settings.request_logging.max_body_size or _ALL


class TooSlow(Unavailable):
    """The request log could not be read in time. Try again, or ask for a shorter time (timestamp_after, timestamp_before)."""

    code = "request_log_slow"


class Place(NamedTuple):
    """Where a call stands in the log."""

    timestamp: datetime
    request_id: UUID

    def as_position(self) -> list[str]:
        """For a cursor."""
        return [self.timestamp.isoformat(), str(self.request_id)]

    @classmethod
    def of(cls, position: Position) -> Place:
        """As a cursor of ours has it."""
        at, id = (text or "" for text in position)
        return cls(datetime.fromisoformat(at), UUID(id))


@dataclass(frozen=True, slots=True)
class Words:
    """What is to be found in bodies, whatever the case. `shown`: so many characters of each are looked at."""

    patterns: tuple[str, ...]
    shown: int

    @classmethod
    def of(cls, text: str, shown: int) -> Words:
        """The text as it stands, and as it stands within a JSON text, with and without letters beyond ASCII spelt out."""
        escaped = orjson.dumps(text).decode()[1:-1]
        ascii = "".join(c if c.isascii() else _spelt(c) for c in escaped)
        return cls(tuple(anywhere(form) for form in dict.fromkeys((text, escaped, ascii))), shown)


@dataclass(frozen=True, slots=True)
class Page:
    """The places of some calls. next: behind which the next page begins; None: there is none. ended_early: the time for it was over."""

    places: Sequence[Place]
    next: Place | None
    ended_early: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one list: whose calls, which of them, in which order, with which words in their bodies."""

    connections: Connections
    scope: Scope
    filters: Filters
    newest_first: bool = True
    words: Words | None = None

    def page(self, *, limit: int, skip: int = 0, after: Place | None = None) -> Page:
        """A page behind a place; `skip` counts from there. Raises TooSlow, DatabaseAway."""
        with self._found(limit, skip, after) as (_connection, page):
            return page

    def page_with_rows(
        self, *, limit: int, skip: int = 0, after: Place | None = None
    ) -> tuple[Page, list[Row]]:
        """The same with the entries, read in the transaction that found the last of them, and within its time-outs."""
        with self._found(limit, skip, after) as (connection, page):
            return page, entries(connection, page.places)

    @property
    def end(self) -> datetime | None:
        """Where the list ends by its filters, if they say so."""
        filters = self.filters
        return filters.timestamp_after if self.newest_first else filters.timestamp_before

    def pages(self, limit: int) -> Iterator[list[Row]]:
        """All of them, page by page; nothing is held in between. Pages may be short, or empty."""
        after: Place | None = None
        while True:
            page = self.page(limit=limit, after=after)
            rows = list[Row]()
            if page.places:
                # In a transaction of their own: many entries may lie on a cold disk, and may take longer than finding them.
                with self.connections.transaction() as connection:
                    rows = entries(connection, page.places)
            yield rows
            if page.next is None:
                return
            after = page.next

    @contextmanager
    def _found(
        self, limit: int, skip: int, after: Place | None
    ) -> Iterator[tuple[psycopg.Connection[Any], Page]]:
        until = time.monotonic() + (_SEARCH_BUDGET_S if self.words else _BUDGET_S)
        wanted, found = skip + limit, list[Place]()
        place: Place | None = after
        rows = self._first_rows(wanted + 1)
        while True:
            began = time.monotonic()
            with _in_time(self.connections) as connection:
                fitting, place = self._scan(connection, place, rows, wanted + 1 - len(found))
                found += fitting
                now = time.monotonic()
                if len(found) > wanted:
                    yield connection, Page(found[skip:wanted], found[wanted - 1], ended_early=False)
                    return
                if place is None or now >= until:
                    yield connection, Page(found[skip:], place, ended_early=place is not None)
                    return
            rows = self._next_rows(rows, now - began, until - now)

    def _first_rows(self, wanted: int) -> int:
        """How many rows to look at: as many as are wanted where all fit, else some more."""
        if self.words:
            return _SEARCHED_ROWS
        few = conditions(self.scope, self.filters).fits
        return max(_FEW_ROWS, 2 * wanted) if few else wanted

    def _next_rows(self, rows: int, took_s: float, left_s: float) -> int:
        """And then: more and more, as far as there is time for them. (What the first few took was mostly planning.)"""
        if self.words:
            return _SEARCHED_ROWS
        if rows < _SOME_ROWS:
            return _SOME_ROWS
        in_time = int(rows * left_s / max(took_s, 0.001))
        return max(_SOME_ROWS, min(in_time, _MANY_ROWS))

    def _scan(
        self, connection: psycopg.Connection[Any], after: Place | None, rows: int, most: int
    ) -> tuple[list[Place], Place | None]:
        """Those of the next rows that fit, and the place up to which was looked if there may be more behind it."""
        narrow = narrowed(connection, self.scope, self.filters)
        if after is not None:
            behind = "<" if self.newest_first else ">"
            narrow = narrow.also(
                f"(a.timestamp, a.request_id) {behind} (%(after_at)s, %(after_id)s)",
                after_at=after.timestamp,
                after_id=after.request_id,
            )
        if self.words:
            return self._search(connection, narrow, self.words, rows, most)
        last = None
        if narrow.fits:
            last = next(iter(self._places(connection, "boundary", narrow, scan=rows)), None)
        if last is not None:
            within = ">=" if self.newest_first else "<="
            narrow = narrow.also(
                # (The time alone as well: it says which partitions there are to read.)
                f"(a.timestamp, a.request_id) {within} (%(last_at)s, %(last_id)s) AND a.timestamp {within} %(last_at)s",
                last_at=last.timestamp,
                last_id=last.request_id,
            )
        found = self._places(connection, "fitting", narrow, most=most)
        return found, last

    def _search(
        self,
        connection: psycopg.Connection[Any],
        narrow: Conditions,
        words: Words,
        rows: int,
        most: int,
    ) -> tuple[list[Place], Place | None]:
        values = {"words": list(words.patterns), "shown": words.shown, "bytes": _SEARCHED_BYTES}
        statement = narrow.in_statement("search", newest_first=self.newest_first)
        found = _rows(connection, statement, {**narrow.values, **values, "scan": rows, "most": most})  # fmt: skip
        places = [Place(at, id) for at, id, fits in found if fits]
        return places, next((Place(at, id) for at, id, fits in found if not fits), None)

    def _places(
        self, connection: psycopg.Connection[Any], query: str, narrow: Conditions, **values: Any
    ) -> list[Place]:
        statement = narrow.in_statement(query, newest_first=self.newest_first)
        return [Place(*row) for row in _rows(connection, statement, {**narrow.values, **values})]


def place_of(connections: Connections, scope: Scope, id: UUID) -> Place | None:
    """Where a call stands in the log: looked for around the time that its id bears, then anywhere. None for one outside the scope, too."""
    times = minted(id)
    near = (
        Filters(request_id=id, timestamp_after=times[0], timestamp_before=times[1])
        if times
        else None
    )
    for filters in (near, Filters(request_id=id)):
        places = (
            Reader(connections, scope, filters, newest_first=False).page(limit=1).places
            if filters
            else ()
        )
        if places:
            return places[0]
    return None


def entries(
    connection: psycopg.Connection[Any],
    places: Sequence[Place],
    narrow: Conditions | None = None,
) -> list[Row]:
    """The entries of calls, in this order; with conditions, of those that fit."""
    if not places:
        return []
    times = [place.timestamp for place in places]
    narrow = narrow or Conditions((), (), {})
    values = {
        **narrow.values,
        # (Each as one text: psycopg would write every id and time by itself.)
        "ids": f"{{{','.join(id_text(place.request_id) for place in places)}}}",
        "times": f"{{{','.join(map(datetime.isoformat, times))}}}",
        "first": min(times),
        "last": max(times),
    }
    cursor = connection.cursor(row_factory=dict_row)
    return cursor.execute(narrow.row_by_row().in_statement("entries"), values, prepare=False).fetchall()  # fmt: skip


@contextmanager
def _in_time(connections: Connections) -> Iterator[psycopg.Connection[Any]]:
    """A transaction of statements that may take their time each, but not for ever. Raises TooSlow, DatabaseAway."""
    with connections.transaction() as connection:
        try:
            connection.execute(f"SET LOCAL statement_timeout = {_STATEMENT_MS}")
            yield connection
        except psycopg.errors.QueryCanceled:
            raise TooSlow from None


def _rows(connection: psycopg.Connection[Any], statement: str, values: Any) -> list[Any]:
    # Planned with its values: they say which partitions there are to read.
    return connection.execute(statement, values, prepare=False).fetchall()


def _spelt(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
