"""Group commit of what calls leave behind: one greenlet, one connection, one transaction for all that arrived meanwhile.

It flushes at once when idle; what arrives while a flush runs forms the next group, so callers wait for their group and not for a commit
each. A commit whose outcome is unknown is repeated: every statement is idempotent by the request's id.

While the database is away (a flush failed or took longer than `recorder.database_wait`) groups go to the fsynced spool and their callers
are released; the database is tried again twice a second, and the spool is drained when it is back, also that of dead siblings. What needs
the database to be right (a request for a worker) is refused then: `enqueue` raises DatabaseAway.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import islice
from typing import Any
from uuid import UUID

import gevent
import orjson
import psycopg
from gevent.event import AsyncResult, Event

from dwctl import sql
from dwctl.analytics.records import line
from dwctl.analytics.spool import Line, Spool, SpoolFile
from dwctl.config import Settings
from dwctl.db import DatabaseAway, connect

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.analytics")
_RETRY_S = 0.5
_ADOPT_S = 5.0
_DRAIN_GROUP = 100
_FILES_KNOWN = 20_000

OPEN, FINAL, ENQUEUE = "open", "final", "enqueue"


class Overloaded(DatabaseAway):
    """Too many calls wait to be written down. Try again shortly."""

    code = "recorder_overloaded"


class _Item:
    __slots__ = ("done", "file", "kind", "record")

    def __init__(self, kind: str, record: bytes, file: tuple[UUID, str] | None, done: Any) -> None:
        self.kind = kind
        self.record = record
        self.file = file
        self.done = done


class Recorder:
    """The one of this process."""

    def __init__(
        self, settings: Settings, on_empty: Callable[[Iterable[UUID]], None] = lambda _ids: None
    ) -> None:
        """`on_empty` is told which accounts a charge has just taken to zero or below."""
        self._settings = settings
        self._on_empty = on_empty
        self.spool = Spool(settings)
        self.away_since: float | None = None
        self.counts = {"flushed": 0, "groups": 0, "spooled": 0, "shed": 0, "rejected": 0, "lost": 0}
        self._queue: deque[_Item] = deque()
        self._arrived = Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._files: set[UUID] = set()
        self._greenlets: list[gevent.Greenlet] = []
        self._current: list[_Item] = []
        self._back = Event()
        self._doubtful: list[str] = []

    # --- for calls

    def open(self, record: dict[str, Any]) -> bool:
        """Make the tracking row of a call that lasts. True: committed; False: in the spool."""
        return self._submit(OPEN, record)

    def finish(self, record: dict[str, Any]) -> bool:
        """Write down a call that is over. True: committed; False: in the spool. When this returns the answer may leave."""
        return self._submit(FINAL, record)

    def enqueue(self, record: dict[str, Any]) -> None:
        """Make the row of a request that is run without its caller. Raises DatabaseAway: there is none, or it is withdrawn."""
        if self.away_since is not None:
            raise DatabaseAway
        if not self._submit(ENQUEUE, record):
            raise DatabaseAway

    def note(self, record: dict[str, Any]) -> None:
        """Write down a refusal, some time soon. Nobody waits; under pressure it is shed and counted."""
        if len(self._queue) >= self._settings.recorder.queue_size // 2:
            self.counts["shed"] += 1
            return
        self._queue.append(_Item(FINAL, line(record), None, None))
        self._arrived.set()

    @property
    def is_behind(self) -> bool:
        """Whether calls that were answered may not be in the database yet: the spool of this machine is not empty."""
        return self.away_since is not None or self.spool.pending_bytes > 0

    @property
    def depth(self) -> int:
        """How many records wait."""
        return len(self._queue)

    # --- life cycle

    def start(self) -> None:
        """Begin to flush."""
        self._greenlets = [gevent.spawn(self._run), gevent.spawn(self._adopt_for_ever)]

    def stop(self, deadline: float) -> None:
        """Flush what waits until `deadline` (monotonic), spool the rest, and say what was done."""
        while (self._queue or self._current) and time.monotonic() < deadline:
            gevent.sleep(0.01)
        for greenlet in self._greenlets:
            greenlet.kill()
        # The group of an interrupted flush may have been committed: writing it again changes nothing.
        if left := [*self._current, *self._queue]:
            self._queue.clear()
            self._to_spool([item for item in left if item.kind != ENQUEUE])
        if self._connection is not None:
            self._connection.close()
        log.info("recorder stopped", extra={"spooled_at_stop": len(left), **self.counts})

    # --- the one greenlet

    def _submit(self, kind: str, record: dict[str, Any]) -> bool:
        if len(self._queue) >= self._settings.recorder.queue_size:
            raise Overloaded
        file = (record["file_id"], record["owner"]) if record.get("file_id") else None
        item = _Item(kind, line(record), file, AsyncResult())
        self._queue.append(item)
        self._arrived.set()
        committed: bool = item.done.get()
        return committed

    def _run(self) -> None:
        while True:
            self._arrived.wait(None if self.away_since is None else _RETRY_S)
            self._arrived.clear()
            while self._queue:
                size = min(len(self._queue), self._settings.recorder.group_size)
                self._current = [self._queue.popleft() for _ in range(size)]
                self._settle(self._current)
                self._current = []
            if self.away_since is not None:
                self._try_again()

    def _settle(self, group: list[_Item]) -> None:
        """Commit a group, or spool it; either way every caller in it is released. Never raises: the next group must have its turn."""
        try:
            if self.away_since is None and self._flush_in_time(group):
                _release(group, True)
                return
            self._refuse([item for item in group if item.kind == ENQUEUE])
            kept = [item for item in group if item.kind != ENQUEUE]
            self._to_spool(kept)
            _release(kept, False)
        except Exception:
            log.exception(
                "records lost: neither the database nor the spool took them",
                extra={"records": len(group)},
            )
            self.counts["lost"] += len(group)
            _fail(group)

    def _flush_in_time(self, group: list[_Item]) -> bool:
        """Whether it is committed. False: the database is away."""
        until = time.monotonic() + self._settings.recorder.database_wait
        while True:
            try:
                with gevent.Timeout(max(0.05, until - time.monotonic())):
                    self._flush(group)
                return True
            except (
                psycopg.OperationalError,
                psycopg.InterfaceError,
                OSError,
                gevent.Timeout,
            ) as error:
                self._disconnect()
                if _is_deadlock(error) and time.monotonic() < until:
                    continue
                if time.monotonic() < until - 0.05:
                    gevent.sleep(0.05)
                    continue
                self._went_away(error)
                return False
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                self._disconnect()
                return self._isolate(group, error)
            except psycopg.Error as error:
                # The statement itself is wrong here (a migration is missing, a right was taken away): no record is to blame for it.
                log.exception("recorder cannot write")
                self._disconnect()
                self._went_away(error)
                return False

    def _flush(self, group: list[_Item]) -> None:
        if self._connection is None:
            self._connection = _connect(self._settings)
        new_files = {item.file for item in group if item.file and item.file[0] not in self._files}
        opening = [item.record for item in group if item.kind != FINAL]
        ending = [item.record for item in group if item.kind == FINAL]
        empty = _write(self._connection, new_files, opening, ending)
        self._remember({file[0] for file in new_files})
        self.counts["flushed"] += len(group)
        self.counts["groups"] += 1
        if empty:
            self._on_empty(empty)

    def _isolate(self, group: list[_Item], error: psycopg.Error) -> bool:
        """A record that the database refuses must not take its group with it: try one by one, set the bad one aside."""
        if len(group) > 1:
            for item in group:
                self._settle([item])
            return True
        try:
            if self._make_partition(group[0], error):
                return self._flush_in_time(group)
        except psycopg.OperationalError as away:
            self._went_away(away)
            return False
        if group[0].kind == ENQUEUE:
            self._refuse(group)
            return True
        self._set_aside((group[0].kind, group[0].record), error)
        return True

    def _set_aside(self, entry: Line, error: psycopg.Error) -> None:
        """Keep a record that the database does not take in a file, and end its request without it."""
        self.counts["rejected"] += 1
        self.spool.reject(entry, type(error).__name__)
        record = orjson.loads(entry[1])
        if entry[0] != FINAL or not record.get("daemon_id"):
            return
        try:
            with _connect(self._settings) as connection:
                connection.execute(_QUERIES["give_up"], (record["id"], record["daemon_id"]))
        except (psycopg.Error, OSError):
            log.exception("request not ended", extra={"request_id": record["id"]})

    def _make_partition(self, item: _Item, error: psycopg.Error) -> bool:
        """Make the log's partition that a record misses, if that is what is wrong. Raises OperationalError: later, perhaps."""
        if not isinstance(error, psycopg.errors.CheckViolation) or error.diag.constraint_name:
            return False
        with _connect(self._settings, lock_timeout="250ms") as connection:
            try:
                made = connection.execute(_QUERIES["make_partitions_for"], (_array([item.record]),))
                return any(count for (count,) in made.fetchall())
            except (psycopg.DataError, psycopg.IntegrityError):
                return False

    def _refuse(self, items: list[_Item]) -> None:
        """Whether they were committed may be unknown: their callers are told no, so they must not run (`_withdraw`)."""
        for item in items:
            self._doubtful.append(orjson.loads(item.record)["id"])
            item.done.set_exception(DatabaseAway())

    def _to_spool(self, items: list[_Item]) -> None:
        if items:
            self.spool.append((item.kind, item.record) for item in items)
            self.counts["spooled"] += len(items)

    def _remember(self, files: set[UUID]) -> None:
        if len(self._files) > _FILES_KNOWN:
            self._files.clear()
        self._files |= files

    # --- the database goes and comes back

    def _went_away(self, error: BaseException) -> None:
        self.away_since = time.monotonic()
        self._back.clear()
        log.warning(
            "database away, records go to the spool", extra={"reason": type(error).__name__}
        )

    def _try_again(self) -> None:
        try:
            with gevent.Timeout(self._settings.recorder.database_wait):
                self._connection = _connect(self._settings)
                _write(self._connection, [], [], [])
                self._withdraw()
        except (psycopg.Error, OSError, gevent.Timeout):
            self._disconnect()
            return
        away_s = round(time.monotonic() - (self.away_since or 0), 1)
        log.warning("database back", extra={"away_s": away_s, "spooled": self.counts["spooled"]})
        self.away_since = None
        self._back.set()

    def _withdraw(self) -> None:
        if self._doubtful and self._connection is not None:
            self._connection.execute(_QUERIES["withdraw"], (self._doubtful,))
            self._doubtful = []

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._files.clear()

    def _adopt_for_ever(self) -> None:
        """Drain this process's spool when the database is back, and orphans now and then."""
        while True:
            self._back.wait(_ADOPT_S)
            self._back.clear()
            if self.away_since is not None:
                continue
            try:
                own = self.spool.take_own()
                for file in (*([own] if own else ()), *self.spool.adopt()):
                    self._drain(file)
            except Exception:
                log.exception("spool not drained")

    def _drain(self, file: SpoolFile) -> None:
        drained = 0
        try:
            with _connect(self._settings) as connection:
                lines = file.lines()
                while some := list(islice(lines, _DRAIN_GROUP)):
                    self._drain_group(connection, some)
                    drained += len(some)
            file.remove()
            log.warning("spool drained", extra={"file": file.path.name, "records": drained})
        except (psycopg.Error, OSError) as error:
            # What was drained is drained again at the next try, which changes nothing.
            log.warning("spool not drained yet", extra={"reason": type(error).__name__})
            file.release()

    def _drain_group(self, connection: psycopg.Connection[Any], lines: list[Line]) -> None:
        try:
            self._write_lines(connection, lines)
        except (psycopg.DataError, psycopg.IntegrityError):
            for entry in lines:
                self._drain_one(connection, entry)

    def _drain_one(self, connection: psycopg.Connection[Any], entry: Line) -> None:
        try:
            self._write_lines(connection, [entry])
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            if self._make_partition(_Item(*entry, None, None), error):
                self._write_lines(connection, [entry])
                return
            self._set_aside(entry, error)

    def _write_lines(self, connection: psycopg.Connection[Any], lines: list[Line]) -> None:
        opening = [record for kind, record in lines if kind != FINAL]
        ending = [record for kind, record in lines if kind == FINAL]
        files = {file for _, record in lines if (file := _file_of(record))}
        empty = _write(connection, files, opening, ending)
        if empty:
            self._on_empty(empty)


def _connect(settings: Settings, **options: str) -> psycopg.Connection[Any]:
    """A connection whose statements are planned once: the shape of these plans never depends on their parameter."""
    connection = connect(settings, options={"plan_cache_mode": "force_generic_plan", **options})
    connection.cursor_factory = psycopg.RawCursor
    return connection


def _write(
    connection: psycopg.Connection[Any],
    files: Iterable[tuple[Any, str]],
    opening: list[bytes],
    ending: list[bytes],
) -> list[UUID]:
    """All of it in one transaction (one statement needs none of its own). Returns accounts that are now empty."""
    files = list(files)
    if not files and not opening:
        # Also of nothing: that tells whether the database would take it.
        return _end(connection, ending)
    alone = bool(files) + bool(opening) + bool(ending) == 1
    with nullcontext() if alone else connection.transaction():
        if files:
            rows = [{"id": id, "owner": owner} for id, owner in files]
            connection.execute(_QUERIES["ensure_files"], (_array([line(row) for row in rows]),))
        if opening:
            connection.execute(_QUERIES["open_calls"], (_array(opening),), prepare=True)
        return _end(connection, ending) if ending else []


def _end(connection: psycopg.Connection[Any], ending: list[bytes]) -> list[UUID]:
    rows = connection.execute(_QUERIES["record_calls"], (_array(ending),), prepare=True).fetchall()
    return [user_id for (user_id,) in rows if user_id is not None]


def _array(records: list[bytes]) -> str:
    return (b"[" + b",".join(records) + b"]").decode()


def _file_of(record: bytes) -> tuple[str, str] | None:
    content = orjson.loads(record)
    return (content["file_id"], content["owner"]) if content.get("file_id") else None


def _release(group: list[_Item], committed: bool) -> None:
    for item in group:
        if item.done is not None and not item.done.ready():
            item.done.set(committed)


def _fail(group: list[_Item]) -> None:
    for item in group:
        if item.done is not None and not item.done.ready():
            item.done.set_exception(DatabaseAway())


def _is_deadlock(error: BaseException) -> bool:
    return isinstance(error, psycopg.errors.DeadlockDetected)
