"""The event log: what streams say is kept in chunks, so that any process can show it, now or again.

A call adds what it sends, and never waits for that. One greenlet writes what all of them have added meanwhile in one statement, with one
notification for all: the first event at once, then at most every `responses.events_interval`. What is too much (for one response, or waiting
because the database does not take it) is not kept: whoever follows such a stream gets its end, and the object.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import gevent
import psycopg
from gevent.event import Event
from psycopg.rows import tuple_row

from dwctl import sql
from dwctl.config import Responses
from dwctl.db import Connections, DatabaseAway
from dwctl.protocols.numbered import numbered

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.queue")
_CHUNK_BYTES = 64 * 1024
_GROUP_CHUNKS = 64
_AFTER_FAULT_S = 0.5


class Chunk(NamedTuple):
    """Some events that follow each other, with the numbers of the first and the last."""

    first: int
    last: int
    events: bytes


class EventLog:
    """The writer of this process."""

    def __init__(self, connections: Connections, me: UUID, settings: Responses) -> None:
        self.settings = settings
        self.waiting_bytes = 0
        self.dropped = 0
        self._connections = connections
        self._me = me
        self._behind: dict[UUID, Kept] = {}
        self._arrived, self._urgent = Event(), Event()
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """Begin to write."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self, deadline: float) -> None:
        """Write what waits until `deadline` (monotonic)."""
        self._urgent.set()
        while self._behind and time.monotonic() < deadline:
            gevent.sleep(0.01)
        if self._greenlet is not None:
            self._greenlet.kill()

    def begin(self, id: UUID) -> Kept:
        """The log of a stream that begins, which this process runs."""
        return Kept(self, id)

    def note(self, kept: Kept, *, urgent: bool) -> None:
        """A stream has something to be written."""
        self._behind[kept.id] = kept
        self._arrived.set()
        if urgent:
            self._urgent.set()

    # --- the one greenlet that writes

    def _run(self) -> None:
        while True:
            self._arrived.wait()
            self._arrived.clear()
            self._urgent.clear()
            try:
                self._write()
            except (DatabaseAway, psycopg.OperationalError) as error:
                log.warning("events not kept yet", extra={"reason": type(error).__name__})
                self._arrived.set()
                gevent.sleep(_AFTER_FAULT_S)
            except Exception:
                log.exception("events not kept", extra={"responses": len(self._behind)})
                for kept in list(self._behind.values()):
                    self._settle(kept, taken=False)
            self._urgent.wait(self.settings.events_interval)

    def _write(self) -> None:
        while self._behind:
            some = list(self._behind.values())[:_GROUP_CHUNKS]
            offered = [(kept, kept.next_chunk()) for kept in some]
            taken = self._insert([(kept.id, chunk) for kept, chunk in offered if chunk])
            for kept, chunk in offered:
                self._settle(kept, taken=chunk is None or kept.id in taken)

    def _insert(self, chunks: Sequence[tuple[UUID, Chunk]]) -> set[UUID]:
        if not chunks:
            return set()
        values: dict[str, Any] = {
            "me": self._me,
            "ids": [id for id, _ in chunks],
            "firsts": [chunk.first for _, chunk in chunks],
            "lasts": [chunk.last for _, chunk in chunks],
            "texts": [chunk.events for _, chunk in chunks],
        }
        with self._connections.transaction() as connection:
            cursor = connection.cursor(row_factory=tuple_row)
            return {id for (id,) in cursor.execute(_QUERIES["keep_events"], values).fetchall()}

    def _settle(self, kept: Kept, *, taken: bool) -> None:
        if not taken:
            kept.give_up()
        if kept.wrote():
            self._behind.pop(kept.id, None)


class Kept:
    """The log of one stream. `anything`: something of it was added, so it may have been seen."""

    def __init__(self, event_log: EventLog, id: UUID) -> None:
        self.id = id
        self.anything = False
        self._log = event_log
        self._last = -1
        self._first = 0  # the number with which the next chunk begins
        self._waiting: list[tuple[int, bytes]] = []
        self._offered = 0  # how many of these are in the chunk that is being written
        self._bytes = 0  # of all events up to now
        self._given_up = False
        self._written = Event()
        self._written.set()

    def add(self, text: bytes) -> None:
        """Keep these events, soon."""
        if self._given_up or not text:
            return
        urgent = not self.anything
        for number, event in numbered(text, self._last):
            self._last = number
            self._waiting.append((number, event))
            self._bytes += len(event)
            self._log.waiting_bytes += len(event)
            self.anything = True
        settings = self._log.settings
        if (
            self._bytes > settings.events_max_size
            or self._log.waiting_bytes > settings.events_max_waiting
        ):
            self._log.dropped += 1
            self.give_up()
            return
        if self._waiting:
            self._written.clear()
            self._log.note(self, urgent=urgent)

    def flush(self, within_s: float) -> None:
        """Wait until all that was added is kept, or will not be; no longer than that."""
        if not self._written.is_set():
            self._log.note(self, urgent=True)
            self._written.wait(within_s)

    def hurry(self) -> None:
        """What was added is written at once: nothing follows."""
        if not self._written.is_set():
            self._log.note(self, urgent=True)

    # --- for the writer

    def next_chunk(self) -> Chunk | None:
        """What is to be written next; the same again until `wrote`."""
        size = taken = 0
        for _number, event in self._waiting:
            if taken and size + len(event) > _CHUNK_BYTES:
                break
            size += len(event)
            taken += 1
        self._offered = taken
        if not taken:
            return None
        some = self._waiting[:taken]
        return Chunk(self._first, some[-1][0], b"".join(event for _number, event in some))

    def wrote(self) -> bool:
        """The chunk was written. Whether nothing more waits."""
        done, self._waiting = self._waiting[: self._offered], self._waiting[self._offered :]
        self._offered = 0
        if done:
            self._first = done[-1][0] + 1
            self._log.waiting_bytes -= sum(len(event) for _number, event in done)
        if not self._waiting:
            self._written.set()
        return not self._waiting

    def give_up(self) -> None:
        """Nothing more of it is kept."""
        self._given_up = True
        self._log.waiting_bytes -= sum(len(event) for _number, event in self._waiting)
        self._waiting = []
        self._offered = 0
        self._written.set()
