"""Group commit of what calls leave behind: a bounded queue, and one greenlet that writes all that arrived meanwhile.

It flushes at once when idle; what arrives while a flush runs forms the next group, so callers wait for their group and not for a commit
each. A commit whose outcome is unknown is repeated: every statement is idempotent by the request's id.

While the database is away groups go to the fsynced spool at once and their callers are released; a greenlet of its own probes it twice a
second, and the spool is drained when it is back, also that of dead siblings. What needs the database to be right (a request for a worker)
is refused then: `enqueue` raises DatabaseAway.

How a group is written, and what is wrong when it is not, is in `writing`; how the spool is emptied, in `draining`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import gevent
import msgspec
from gevent import get_hub
from gevent.event import Event
from gevent.hub import Waiter

from dwctl.analytics import records
from dwctl.analytics.draining import Drainer
from dwctl.analytics.figures import Figures
from dwctl.analytics.records import Kept, Opening, Record, line
from dwctl.analytics.spool import Spool
from dwctl.analytics.withdrawals import Withdrawals
from dwctl.analytics.writing import Away, Entry, Kind, Later, Writer, entry_of, groups
from dwctl.config import Settings
from dwctl.db import DatabaseAway
from dwctl.errors import Invalid

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from dwctl.tracing.tracer import Tracer

log = logging.getLogger(__name__)

_PROBE_EVERY_S = 0.5
_ADOPT_EVERY_S = 5.0
_PROGRESS_EVERY_S = 1.0
_MOST_PROGRESS_BYTES = 8 * 1024 * 1024
# What a record takes beside its bodies, about.
_RECORD_BYTES = 1024
_SLOWEST_BYTES_PER_S = 4 * 1024 * 1024


class Overloaded(DatabaseAway):
    """Too many calls wait to be written down. Try again shortly."""

    code = "recorder_overloaded"


class InDoubt(DatabaseAway):
    """The database cannot be reached right now. Try again shortly."""


class _Item(msgspec.Struct, eq=False):
    """An entry in the queue; whoever waits for it does so at `done`."""

    entry: Entry
    size: int
    done: Waiter | None
    is_settled: bool = False
    since: float = msgspec.field(default_factory=time.monotonic)
    span: Span | None = None


class Recorder:
    """The one of this process."""

    def __init__(
        self,
        settings: Settings,
        on_empty: Callable[[Iterable[UUID]], None] = lambda _ids: None,
        tracer: Tracer | None = None,
    ) -> None:
        """`on_empty` is told which accounts a charge has just taken to zero or below. `tracer`: None where traces are not exported."""
        self._tracer = tracer
        self._settings = settings
        self.spool = Spool(settings)
        self.away_since: float | None = None
        self.counts = {
            "flushed": 0,
            "groups": 0,
            "spooled": 0,
            "shed": 0,
            "details_shed": 0,
            "rejected": 0,
            "lost": 0,
        }
        self.figures = Figures()
        self._writer = Writer(
            settings, set_aside=self._set_aside, on_empty=on_empty, figures=self.figures
        )
        self._drainer = Drainer(settings, self.spool, on_empty, self.figures)
        self._queue: deque[_Item] = deque()
        self._bytes = 0
        self._current: dict[int, _Item] = {}
        self._progress: dict[UUID, bytes] = {}
        self._progress_bytes = 0
        self._progress_at = 0.0
        self._withdrawals = Withdrawals(self._writer, self.spool)
        self._arrived, self._room, self._gone, self._back = Event(), Event(), Event(), Event()
        self._greenlets: list[gevent.Greenlet] = []

    # --- for calls

    def open(self, opening: Opening) -> Kept:
        """Make the tracking row of a call that lasts. Raises Overloaded, or DatabaseAway when nobody can keep it."""
        return self._submit(Kind.OPEN, opening)

    def finish(self, record: Record) -> Kept:
        """Write down a call that is over; when this returns the answer may leave. Raises DatabaseAway when nobody can keep it.

        Where too many wait already, the record goes to the spool: the call has been made, and must be charged. What only the log shows of it is
        shed long before that.
        """
        self._forget_progress(record.id)
        if records.has_details(record) and self._is_pressed:
            self.counts["details_shed"] += 1
            record = records.without_details(record)
        try:
            return self._submit(Kind.FINAL, record)
        except Overloaded:
            item = self._item(Kind.FINAL, record, _size_of(record))
            self._bytes += item.size
            self._spool([item])
            return _heard(item)

    def enqueue(self, opening: Opening) -> None:
        """Make the row of a request that is run without its caller.

        Raises DatabaseAway: there is none; InDoubt: there may be one, which is withdrawn, but a worker may have begun it by then; Invalid: the
        database does not take it, now or later.
        """
        if self.away_since is not None:
            raise DatabaseAway
        item = self._submitted(Kind.ENQUEUE, opening)
        try:
            kept = _heard(item)
        except DatabaseAway as error:
            raise InDoubt from error
        except BaseException:
            self._take_back(item)
            raise
        if kept is not Kept.COMMITTED:
            raise Invalid("The request cannot be stored.", code="request_not_storable")

    def withdraw(self, id: UUID) -> None:
        """Cancel a request, some time soon, of which it is not known whether it was committed, and whose caller was told that it was not."""
        self._withdrawals.add([id])
        if self.away_since is not None:
            self._withdrawals.keep()
        self._arrived.set()

    def note(self, record: Record) -> None:
        """Write down a refusal, some time soon. Nobody waits; under pressure it is shed and counted."""
        if record.unlogged:
            return
        if self._is_pressed:
            self.counts["shed"] += 1
            return
        self._put(_Item(entry_of(Kind.FINAL, record), _size_of(record), None))

    def keep_progress(self, record: Record) -> None:
        """Have `record` written if this process dies while the call is open: an interrupted Record with what was delivered so far.

        Nobody waits; the latest of a call counts, stored about once a second; under pressure it is shed and counted.
        """
        text = line(record)
        kept = self._progress_bytes - len(self._progress.get(record.id, b"")) + len(text)
        if self.away_since is not None or kept > _MOST_PROGRESS_BYTES:
            self.counts["shed"] += 1
            return
        self._progress[record.id] = text
        self._progress_bytes = kept
        self._arrived.set()

    @property
    def _is_pressed(self) -> bool:
        """Whether so much waits that what nobody needs must give way."""
        recorder = self._settings.recorder
        return (
            len(self._queue) >= recorder.queue_size // 2 or self._bytes >= recorder.queue_bytes // 2
        )

    @property
    def is_behind(self) -> bool:
        """Whether calls that were answered may not be in the database yet: the spool of this machine is not empty."""
        return self.away_since is not None or self.spool.pending_bytes > 0

    @property
    def depth(self) -> int:
        """How many records wait."""
        return len(self._queue)

    @property
    def oldest_s(self) -> float:
        """For how long the one that came first has waited; one that is being written waits, too."""
        first = next(iter(self._current.values()), None) or (
            self._queue[0] if self._queue else None
        )
        return 0.0 if first is None else time.monotonic() - first.since

    # --- life cycle

    def start(self) -> None:
        """Begin to flush."""
        loops = (self._run, self._probe_for_ever, self._adopt_for_ever)
        self._greenlets = [gevent.spawn(loop) for loop in loops]

    def stop(self, deadline: float) -> None:
        """Flush what waits until `deadline` (monotonic), spool the rest, and say what was done."""
        while self._has_work and time.monotonic() < deadline:
            gevent.sleep(0.01)
        for greenlet in self._greenlets:
            greenlet.kill()
        # The group of an interrupted flush may have been committed: writing it again changes nothing.
        left = [*self._current.values(), *self._queue]
        self._queue.clear()
        if left:
            self._spool(left)
        self._withdrawals.keep()
        self._writer.close()
        log.info("recorder stopped", extra={"spooled_at_stop": len(left), **self.counts})

    @property
    def _has_work(self) -> bool:
        """While the database is away nothing can be withdrawn, and that is not waited for."""
        waits = self._queue or self._current
        return bool(waits or (self._withdrawals and self.away_since is None))

    # --- the queue

    def _submit(self, kind: Kind, record: Record | Opening) -> Kept:
        return _heard(self._submitted(kind, record))

    def _submitted(self, kind: Kind, record: Record | Opening) -> _Item:
        if len(self._queue) >= self._settings.recorder.queue_size:
            raise Overloaded
        size = _size_of(record)
        # Before the record is encoded: until then it takes no memory that its call does not have anyway.
        self._wait_for_room(size)
        item = self._item(kind, record, size)
        self._put(item)
        return item

    def _take_back(self, item: _Item) -> None:
        """Who wanted it was killed while it waited, and its caller is told no."""
        if item in self._queue:
            self._queue.remove(item)
            self._settle(item, Kept.REFUSED)
        else:
            self.withdraw(item.entry.id)

    def _item(self, kind: Kind, record: Record | Opening, size: int) -> _Item:
        return _Item(entry_of(kind, record), size, Waiter())

    def _put(self, item: _Item) -> None:
        if self._tracer is not None:
            item.span = self._tracer.at_hand()
        self._bytes += item.size
        self._queue.append(item)
        self._arrived.set()

    def _wait_for_room(self, size: int) -> None:
        recorder = self._settings.recorder
        if self._bytes + size <= recorder.queue_bytes:
            return
        until = time.monotonic() + recorder.database_wait + self._bytes / _SLOWEST_BYTES_PER_S
        while self._bytes and self._bytes + size > recorder.queue_bytes:
            if not self._room.wait(max(0.0, until - time.monotonic())):
                raise Overloaded
            self._room.clear()

    def _settle(self, item: _Item, kept: Kept) -> None:
        """Release whoever waits."""
        self._current.pop(id(item.entry), None)
        self._bytes -= item.size
        self._room.set()
        if item.done is not None and not item.is_settled:
            get_hub().loop.run_callback(item.done.switch, kept)
        item.is_settled = True

    # --- the one greenlet that writes

    def _run(self) -> None:
        while True:
            waits_s = _PROGRESS_EVERY_S if self._progress else None
            self._arrived.wait(_PROBE_EVERY_S if self._withdrawals else waits_s)
            self._arrived.clear()
            while self._queue:
                self._write(self._next_group())
                self._write_progress()
            self._write_progress()
            self._withdraw_soon()

    def _next_group(self) -> list[Entry]:
        """The longest group that the front of the queue gives."""
        queue = self._queue
        if len(queue) == 1:
            group = [queue[0].entry]
        else:
            waiting = (item.entry for item in queue)
            group = next(groups(waiting, self._settings.recorder.group_size))
        for entry in group:
            self._current[id(entry)] = queue.popleft()
        return group

    def _write(self, group: list[Entry]) -> None:
        """Commit a group, or spool it; either way every caller in it is released. Never raises: the next group must have its turn."""
        try:
            if self.away_since is None:
                self._withdrawals.carry_out()
                self._write_timed(group)
        except Away as away:
            self._went_away(away)
        except Later as busy:
            log.warning("records put off", extra={"reason": type(busy.__cause__).__name__})
        except Exception:
            log.exception("recorder cannot write", extra={"records": len(self._current)})
        if self._current:
            self._spool(list(self._current.values()))

    def _write_timed(self, group: list[Entry]) -> None:
        began, failed = time.monotonic(), False
        try:
            if self._tracer is None:
                self._writer.write(group, self._written)
            else:
                with self._traced(self._tracer):
                    self._writer.write(group, self._written)
        except Exception:
            failed = True
            raise
        finally:
            self.figures.wrote_group(time.monotonic() - began, failed=failed)

    @contextmanager
    def _traced(self, tracer: Tracer) -> Iterator[None]:
        """A span of the group at hand, linked to those of its calls."""
        items = list(self._current.values())
        spans = [item.span for item in items if item.span is not None]
        span = tracer.for_many("recorder flush", spans, {"dwctl.records": len(items)})
        try:
            yield
        except Exception as error:
            span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            span.end()

    def _written(self, entries: Sequence[Entry], kept: Kept) -> None:
        if kept is Kept.COMMITTED:
            self.counts["flushed"] += len(entries)
            self.counts["groups"] += 1
            now = time.monotonic()
            for entry in entries:
                if entry.kind is Kind.FINAL:
                    self.figures.lag_s.add((), now - self._current[id(entry)].since)
        for entry in entries:
            self._settle(self._current[id(entry)], kept)

    def _set_aside(self, entry: Entry, reason: str) -> None:
        self.counts["rejected"] += 1
        self.spool.reject(entry.kind, entry.line, reason)

    def _spool(self, items: list[_Item]) -> None:
        """Keep what the database did not take in a file. A request for a worker is refused: whether it was committed may be unknown, and its
        caller is told no, so it must not run (`withdrawals`).
        """
        refused = [item for item in items if item.entry.kind is Kind.ENQUEUE]
        kept = [item for item in items if item.entry.kind is not Kind.ENQUEUE]
        if refused:
            self._withdrawals.add([item.entry.id for item in refused])
            self._withdrawals.keep()
            for item in refused:
                self._settle(item, Kept.REFUSED)
        if not kept:
            return
        try:
            self.spool.append((item.entry.kind, item.entry.line) for item in kept)
        except Exception:
            log.exception("records lost: neither database nor spool took them", extra={"records": len(kept)})  # fmt: skip
            self.counts["lost"] += len(kept)
            for item in kept:
                self._settle(item, Kept.REFUSED)
            return
        self.counts["spooled"] += len(kept)
        for item in kept:
            self._settle(item, Kept.SPOOLED)

    def _withdraw_soon(self) -> None:
        """Between groups; while the database is away that is done when it is back."""
        try:
            if self.away_since is None:
                self._withdrawals.carry_out()
        except Away as away:
            self._went_away(away)
        except Exception:
            log.exception("requests not withdrawn", extra={"requests": len(self._withdrawals)})

    def _write_progress(self) -> None:
        if not self._progress or time.monotonic() < self._progress_at + _PROGRESS_EVERY_S:
            return
        self._progress_at = time.monotonic()
        lines = list(self._progress.values())
        self._progress.clear()
        self._progress_bytes = 0
        try:
            if self.away_since is None:
                self._writer.keep_progress(lines)
        except Later as error:
            self.counts["shed"] += len(lines)
            if isinstance(error, Away):
                self._went_away(error)

    def _forget_progress(self, id: UUID) -> None:
        self._progress_bytes -= len(self._progress.pop(id, b""))

    # --- the database goes and comes back

    def _went_away(self, away: Away) -> None:
        self.away_since = time.monotonic()
        self._withdrawals.keep()
        self._gone.set()
        reason = type(away.__cause__).__name__
        log.warning("database away, records go to the spool", extra={"reason": reason})

    def _probe_for_ever(self) -> None:
        """While the database is away the writer's connection is this greenlet's: no call waits for a look at it."""
        while True:
            self._gone.wait()
            self._gone.clear()
            while self.away_since is not None:
                gevent.sleep(_PROBE_EVERY_S)
                try:
                    self._writer.probe()
                    self._withdrawals.carry_out()
                except Later:
                    continue
                except Exception:
                    log.exception("database not probed")
                    continue
                self._came_back(self.away_since)

    def _came_back(self, away_since: float) -> None:
        away_s = round(time.monotonic() - away_since, 1)
        log.warning("database back", extra={"away_s": away_s, "spooled": self.counts["spooled"]})
        self.away_since = None
        self._back.set()

    def _adopt_for_ever(self) -> None:
        """Drain this process's spool when the database is back, and orphans now and then."""
        while True:
            self._back.wait(_ADOPT_EVERY_S)
            self._back.clear()
            if self.away_since is not None:
                continue
            before = self._drainer.set_aside
            try:
                self._drainer.drain()
            except Exception:
                log.exception("spool not drained")
            self.counts["rejected"] += self._drainer.set_aside - before


def _heard(item: _Item) -> Kept:
    """Wait for what becomes of an item. Raises DatabaseAway: nobody has it."""
    assert item.done is not None
    kept: Kept = item.done.get()
    if kept is Kept.REFUSED:
        raise DatabaseAway
    return kept


def _size_of(record: Record | Opening) -> int:
    size = _RECORD_BYTES + len(record.request_body or "")
    if isinstance(record, Record):
        size += len(record.response_body or "") + records.details_size(record)
    return size
