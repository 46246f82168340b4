"""Server-sent events of calls as they are written down: one lookout a process, which looks while anybody watches, and never else.

A watcher gets each call once, in the order in which calls were written. Its events bear the lookout's horizon as their id: whoever comes back with it
(`Last-Event-ID`) misses nothing, and may get the calls of the last second or two again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import gevent
import orjson
import psycopg
from gevent.lock import BoundedSemaphore
from gevent.queue import Empty, Full, Queue

from dwctl.db import Connections, DatabaseAway
from dwctl.errors import DwctlError
from dwctl.pace import Pace
from dwctl.request_log.filters import Conditions
from dwctl.request_log.lookout import OF_ACCOUNTS, Lookout, Written, concerning, fitting
from dwctl.request_log.pages import Place, Row
from dwctl.request_log.room import Person, has_room

log = logging.getLogger(__name__)

MOST_WATCHERS = 20
MOST_OF_SAMPLES = 200
"""Watchers that take a sample of each second, of `MOST_SAMPLED` calls at most: those cost a bounded time each, whatever is written."""
MOST_OF_ONE = 5
MOST_SAMPLED = 100
_LOOK_EVERY_S = 1.0
_LOOKED_AT = 500
"""Of so many calls of a second at most it is asked whether they fit what a sample is of."""
_KEEP_ALIVE_S = 5.0
_LOOKS_WAITING = 120
_CALLS_WAITING = 50_000
LONGEST_S = 900
"""Then a watcher comes back, and shows again who it is."""
_OLDEST_RESUMED = timedelta(minutes=2)
_REMEMBERED_S = 60.0
_BEGIN = b"retry: 2000\n: watching\n\n"
_KEEP_ALIVE = b":\n\n"
_EVENT = b"id: %d\nevent: request\ndata: %s\n\n"
_SKIPPED = b'event: skipped\ndata: {"calls":%d}\n\n'
_END = b"event: end\ndata: {}\n\n"

T = TypeVar("T")
Render = Callable[[list[Row]], Sequence[Any]]


class TooManyWatchers(DwctlError):
    """As many watch the request log of this process as may, or as many of yours. Try again when one of them has stopped."""

    code = "too_many_watchers"
    status = 429
    retryable = True


class Look(NamedTuple):
    """What one look has brought, and the horizon at which it began: whoever has not seen it resumes there."""

    written: Sequence[Written]
    since: datetime

    def without(self, seen: frozenset[Place]) -> Look:
        """What of it is new."""
        return Look([one for one in self.written if one.place not in seen], self.since) if seen else self  # fmt: skip


_NOTHING = Look((), datetime.fromtimestamp(0, UTC))


@dataclass(eq=False, slots=True)
class Watcher:
    """Somebody who watches. most: so many calls of each look (None: all). lost: it did not take what came, and gets no more."""

    person: Person = None
    most: int | None = None
    looks: Queue[Look] = field(default_factory=lambda: Queue(_LOOKS_WAITING))
    waiting: int = 0
    lost: bool = False

    def give(self, look: Look) -> None:
        """Put it with what waits, unless that is too much."""
        self.waiting += len(look.written)
        try:
            self.looks.put_nowait(look)
        except Full:
            self.lost = True
        self.lost |= self.waiting > _CALLS_WAITING

    def take(self) -> Look | None:
        """What comes next, if it comes soon."""
        try:
            look: Look = self.looks.get(timeout=_LOOK_EVERY_S)
        except Empty:
            return None
        self.waiting -= len(look.written)
        return look


class Watching:
    """The watchers of this process. `ends`: whether the process is about to end."""

    def __init__(self, connections: Connections, ends: Callable[[], bool]) -> None:
        self._connections = connections
        self._ends = ends
        self._watchers: set[Watcher] = set()
        self._looks = False
        self._starting = BoundedSemaphore(1)

    def join(self, person: Person = None, most: int | None = None) -> Watcher:
        """One more watcher, of all that is written from now on, or of `most` calls of each look; `leave` when it is gone.

        Raises TooManyWatchers, DatabaseAway.
        """
        alike = [one.person for one in self._watchers if (one.most is None) == (most is None)]
        places = MOST_WATCHERS if most is None else MOST_OF_SAMPLES
        if not has_room(alike, person, most=places, each=MOST_OF_ONE):
            raise TooManyWatchers(retry_after_s=10)
        watcher = Watcher(person, most)
        self._watchers.add(watcher)
        try:
            # Whoever comes while the first look is taken waits for it: what is written after it is theirs, too.
            with self._starting:
                if not self._looks:
                    lookout = Lookout()
                    lookout.look(self._connections)
                    self._looks = True
                    gevent.spawn(self._look_on, lookout)
        except BaseException:
            self.leave(watcher)
            raise
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """It is gone."""
        self._watchers.discard(watcher)

    def events(
        self,
        watcher: Watcher,
        narrow: Conditions,
        render: Render,
        *,
        seconds: float = LONGEST_S,
        last_event_id: str | None = None,
    ) -> Iterator[bytes]:
        """What the watcher is sent until its time is over, it is lost, or the process ends."""
        yield _BEGIN
        try:
            yield from self._until_over(watcher, narrow, render, seconds, last_event_id)
        except (DatabaseAway, psycopg.Error) as error:
            # Who comes back with the last event's id begins with what could not be read.
            log.warning("request log not read", extra={"reason": type(error).__name__})
        yield _END

    def _until_over(
        self,
        watcher: Watcher,
        narrow: Conditions,
        render: Render,
        seconds: float,
        last_event_id: str | None,
    ) -> Iterator[bytes]:
        began = alive_at = time.monotonic()
        missed = self._missed(last_event_id, narrow.values.get("owner"))
        seen = frozenset(one.place for one in missed.written)
        # What was missed may be of many seconds: a sample of it is as large as any may be.
        yield from self._rendered(missed, narrow, render, watcher.most and MOST_SAMPLED)
        while not (watcher.lost or self._ends() or time.monotonic() - began >= seconds):
            look = watcher.take() or _NOTHING
            if time.monotonic() - began > _REMEMBERED_S:
                seen = frozenset()
            for piece in self._rendered(look.without(seen), narrow, render, watcher.most):
                alive_at = time.monotonic()
                yield piece
            if time.monotonic() - alive_at >= _KEEP_ALIVE_S:
                alive_at = time.monotonic()
                yield _KEEP_ALIVE

    def _missed(self, last_event_id: str | None, owner: UUID | None) -> Look:
        since = _moment(last_event_id)
        if since is None:
            return _NOTHING
        since = max(since, datetime.now(UTC) - _OLDEST_RESUMED)
        return Look(Lookout(since, owner=owner).look(self._connections), since)

    def _rendered(
        self, look: Look, narrow: Conditions, render: Render, most: int | None
    ) -> Iterator[bytes]:
        id, pace = int(look.since.timestamp() * 1_000_000), Pace()
        concerned = concerning(look.written, narrow)
        left = len(concerned) if most is None else most
        all_fit = narrow.values.keys() <= OF_ACCOUNTS
        looked_at = concerned if most is None else _spread(concerned, left if all_fit else _LOOKED_AT)  # fmt: skip
        skipped = len(concerned) - len(looked_at)
        for rows in fitting(self._connections, looked_at, narrow):
            taken = _spread(rows, left)
            left -= len(taken)
            skipped += len(rows) - len(taken)
            if taken:
                yield b"".join(_EVENT % (id, orjson.dumps(row)) for row in render(list(taken)))
            pace()
        if skipped:
            yield _SKIPPED % skipped

    def _look_on(self, lookout: Lookout) -> None:
        try:
            while self._watchers and not self._ends():
                gevent.sleep(_LOOK_EVERY_S)
                since = lookout.since
                try:
                    written = lookout.look(self._connections)
                except (DatabaseAway, psycopg.Error) as error:
                    # The next look brings what this one would have.
                    log.warning("request log not read", extra={"reason": type(error).__name__})
                    continue
                if written and since is not None:
                    for watcher in self._watchers:
                        watcher.give(Look(written, since))
        finally:
            self._looks = False
            # Nobody is left, unless something went wrong: then they come back, and have another look begin.
            for watcher in self._watchers:
                watcher.lost = True


def _spread(some: Sequence[T], most: int) -> Sequence[T]:
    """So many of them at most, from beginning to end, in their order."""
    if len(some) <= most:
        return some
    return [some[place * len(some) // most] for place in range(most)]


def _moment(last_event_id: str | None) -> datetime | None:
    """The horizon that an event's id is, if it may be one."""
    text = last_event_id or ""
    if not (text.isascii() and text.isdigit()):
        return None
    try:
        moment = datetime.fromtimestamp(int(text) / 1_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment if moment <= datetime.now(UTC) else None
