"""Who follows a stream that another process runs, or that has been: reads its events from the log, and waits for more.

One watcher in each process reads what is new, once for all who follow a stream. A notification names the streams that have something new;
lost ones are made up for by a sweep. A follower takes what it needs when its caller can take it: while it keeps up, from what the watcher has
just read, else from the database, some chunks at a time. So a slow one costs no memory, and no connection is held while it waits.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import gevent
import psycopg
from gevent.event import Event
from psycopg.rows import tuple_row

from dwctl import sql
from dwctl.ai.event_log import Chunk
from dwctl.db import Connections, DatabaseAway
from dwctl.protocols.numbered import DONE, later
from dwctl.queue.leases import EVENTS_CHANNEL
from dwctl.wakeups import Wakeups

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.queue")
_READ_AT_ONCE = 8
_RECENT_BYTES = 64 * 1024


class Following:
    """The followers of this process."""

    def __init__(self, connections: Connections, *, sweep_s: float) -> None:
        self._connections = connections
        self._sweep_s = sweep_s
        self._feeds: dict[UUID, _Feed] = {}
        self._told: set[UUID] = set()
        self._look = Event()
        self._sweep_at = 0.0
        self._greenlet: gevent.Greenlet | None = None

    def __len__(self) -> int:
        """How many streams are followed."""
        return len(self._feeds)

    def start(self, wakeups: Wakeups) -> None:
        """Begin to listen and to sweep."""
        wakeups.subscribe(EVENTS_CHANNEL, self._note, self._sweep_now)
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop looking."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def follow(self, id: UUID, changed: Event, after: int) -> Follower:
        """One more who wants the events behind that number. `changed` is set when there may be some; `leave` must follow."""
        feed = self._feeds.get(id)
        if feed is None:
            feed = self._feeds[id] = _Feed()
            self._told.add(id)
            self._look.set()
        feed.followers.add(changed)
        return Follower(self, id, feed, changed, after)

    def leave(self, id: UUID, feed: _Feed, changed: Event) -> None:
        feed.followers.discard(changed)
        if not feed.followers and self._feeds.get(id) is feed:
            del self._feeds[id]

    def read(self, id: UUID, after: int) -> list[Chunk]:
        """Some of the chunks behind that number. Raises DatabaseAway."""
        values = {"id": id, "after": after, "most": _READ_AT_ONCE}
        return [Chunk(*row) for row in self._rows("kept_events", values)]

    # --- the watcher

    def _note(self, payload: str) -> None:
        for text in payload.split(","):
            try:
                id = UUID(text)
            except ValueError:
                continue
            if id in self._feeds:
                self._told.add(id)
                self._look.set()

    def _sweep_now(self) -> None:
        self._sweep_at = 0.0
        self._look.set()

    def _run(self) -> None:
        while True:
            self._look.wait(max(0.0, self._sweep_at - time.monotonic()) if self._feeds else None)
            self._look.clear()
            try:
                self._watch()
            except (DatabaseAway, psycopg.Error) as error:
                log.warning("streams not followed", extra={"reason": type(error).__name__})
                gevent.sleep(self._sweep_s)
            except Exception:
                log.exception("streams not followed")
                gevent.sleep(self._sweep_s)

    def _watch(self) -> None:
        told, self._told = self._told, set()
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + self._sweep_s
            told = set(self._feeds)
        while told:
            told = self._read_new([id for id in told if id in self._feeds])

    def _read_new(self, ids: Sequence[UUID]) -> set[UUID]:
        """Read what is new of these streams; gives those of which there may be more."""
        if not ids:
            return set()
        feeds = {id: self._feeds[id] for id in ids}
        self._find_ends([id for id, feed in feeds.items() if feed.read_up_to is None])
        rows = self._rows(
            "new_events",
            {
                "ids": "{" + ",".join(map(str, feeds)) + "}",
                "afters": [feed.read_up_to for feed in feeds.values()],
                "most": _READ_AT_ONCE,
            },
        )
        found: dict[UUID, list[Chunk]] = {}
        for id, *chunk in rows:
            found.setdefault(id, []).append(Chunk(*chunk))
        for id, chunks in found.items():
            feeds[id].add(chunks)
        return {id for id, chunks in found.items() if len(chunks) == _READ_AT_ONCE}

    def _find_ends(self, ids: Sequence[UUID]) -> None:
        """Where the logs of streams end that somebody has begun to follow. What is before is read by its followers."""
        for id, number in self._rows("ends_of_events", {"ids": list(ids)}) if ids else ():
            if feed := self._feeds.get(id):
                feed.begin(number)

    def _rows(self, statement: str, values: dict[str, Any]) -> list[Any]:
        with self._connections.transaction() as connection:
            cursor = connection.cursor(row_factory=tuple_row)
            return cursor.execute(_QUERIES[statement], values).fetchall()


class _Feed:
    """One stream that is followed here: its latest events, for those who keep up.

    read_up_to: the number up to which the watcher has read; None until it has looked.
    """

    def __init__(self) -> None:
        self.followers: set[Event] = set()
        self.read_up_to: int | None = None
        self._recent: deque[Chunk] = deque()
        self._bytes = 0

    def begin(self, number: int) -> None:
        """What comes behind that number is read by the watcher."""
        self.read_up_to = number
        self._wake()

    def add(self, chunks: Sequence[Chunk]) -> None:
        """The watcher has read these."""
        for chunk in chunks:
            self.read_up_to = chunk.last
            self._recent.append(chunk)
            self._bytes += len(chunk.events)
        while self._bytes > _RECENT_BYTES and len(self._recent) > 1:
            self._bytes -= len(self._recent.popleft().events)
        self._wake()

    def _wake(self) -> None:
        for changed in self.followers:
            changed.set()

    def behind(self, number: int) -> list[Chunk] | None:
        """The chunks behind that number; None where some of them may not be here."""
        if self.read_up_to is None or number < self._begins_behind():
            return None
        return [chunk for chunk in self._recent if chunk.last > number]

    def _begins_behind(self) -> int:
        assert self.read_up_to is not None
        return self._recent[0].first - 1 if self._recent else self.read_up_to


class Follower:
    """One who reads a stream's log. `number`: of the last event that was taken; `complete`: that was the stream's last.

    anything: the log has something of this stream (as far as was looked).
    """

    def __init__(
        self, following: Following, id: UUID, feed: _Feed, changed: Event, after: int
    ) -> None:
        self.number = after
        self.complete = self.anything = False
        self._following = following
        self._id = id
        self._feed = feed
        self._changed = changed

    def take(self) -> bytes:
        """The events behind `number` that are kept by now, or some of them; none where there are none yet. Raises DatabaseAway."""
        chunks = self._feed.behind(self.number)
        if chunks is None:
            chunks = self._following.read(self._id, self.number)
        return self._events_of(chunks)

    def has_log(self) -> bool:
        """Whether anything of this stream is kept. Raises DatabaseAway."""
        self.anything = self.anything or bool(self._following.read(self._id, -1))
        return self.anything

    def leave(self) -> None:
        """It is not followed any more; a second time does nothing."""
        self._following.leave(self._id, self._feed, self._changed)

    def _events_of(self, chunks: Sequence[Chunk]) -> bytes:
        parts = []
        for chunk in chunks:
            self.anything = True
            text = chunk.events
            if chunk.first <= self.number:
                text = later(text, before=chunk.first - 1, after=self.number)
            parts.append(text)
            self.number = chunk.last
            self.complete = chunk.events.endswith(DONE)
        return b"".join(parts)
