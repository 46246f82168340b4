"""Writing records to the database: groups, time-outs, and what to do with a record that it refuses.

A group is committed whole. Where it is refused it is halved until the record to blame stands alone, is set aside, and its request ended
without it. What says that the database is away, or that somebody held a lock for too long, is raised (`Away`, `Busy`): everything that
was not settled by then is still to be written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import gevent
import msgspec
import psycopg
from psycopg.adapt import Dumper

from dwctl import sql
from dwctl.analytics.faults import Fault, judge
from dwctl.analytics.figures import Figures
from dwctl.analytics.records import Kept, Opening, Record, line
from dwctl.analytics.spool import Line
from dwctl.config import Settings
from dwctl.db import connect
from dwctl.patience import Patience

log = logging.getLogger(__name__)

MOST_GROUP_BYTES = 8 * 1024 * 1024
# A large group may take longer than a small one before it says anything about the database.
_BYTES_PER_S = 4 * 1024 * 1024
_AGAIN_S = 0.05
_FILES_KNOWN = 20_000
_LARGE_BYTES = 1024 * 1024
QUERIES = sql.load("dwctl.analytics")
_JSON_OID = 114


class Kind(StrEnum):
    """What a record is of."""

    OPEN = "open"
    FINAL = "final"
    ENQUEUE = "enqueue"
    WITHDRAW = "withdraw"
    """No record: a request that must not run (`withdrawals`)."""


class Entry(msgspec.Struct, frozen=True):
    """A record on its way: its line, and what must be known without reading it. `end` is where its line ends in a spool file, `ended_at`
    when the call that it tells of had ended; both are known of spooled ones only.
    """

    kind: Kind
    id: UUID
    line: bytes
    file_id: UUID | None
    owner: str | None
    daemon_id: UUID | None
    born_final: bool
    end: int = 0
    ended_at: datetime | None = None


class _Head(msgspec.Struct):
    id: UUID
    file_id: UUID | None = None
    owner: str | None = None
    daemon_id: UUID | None = None
    opened: bool = False
    queued: bool = False
    notify: bool = False
    ended_at: datetime | None = None


_read_head = msgspec.json.Decoder(_Head).decode


def entry_of(kind: Kind, record: Record | Opening) -> Entry:
    """A record as it is written and spooled."""
    born_final = isinstance(record, Record) and is_born_final(record)
    text = line(record)
    return Entry(kind, record.id, text, record.file_id, record.owner, record.daemon_id, born_final)


def entry_from(spooled: Line) -> Entry:
    """The entry of a line in a spool file. ValueError: it is none."""
    head = _read_head(spooled.record)
    return Entry(
        Kind(spooled.kind),
        head.id,
        spooled.record,
        head.file_id,
        head.owner,
        head.daemon_id,
        is_born_final(head),
        spooled.end,
        head.ended_at,
    )


def is_born_final(record: Record | _Head) -> bool:
    """Whether nothing was there of this call before its record, and nobody waits for it elsewhere."""
    return not (record.opened or record.queued or record.notify)


class Later(Exception):
    """Nothing of what is not settled was written; it may be later."""


class Away(Later):
    """The database is away. The cause is what said so."""


class Busy(Later):
    """Somebody holds a lock for longer than callers can wait."""


class _Refused(Exception):
    """The database is there, and does not want this."""


class _Array:
    """Lines as one JSON parameter. They are joined once, as bytes: groups may be large."""

    __slots__ = ("lines",)

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.lines = lines


class _ArrayDumper(Dumper):
    oid = _JSON_OID

    def dump(self, obj: _Array) -> bytes:
        return b"[" + b",".join(obj.lines) + b"]"


def record(connection: psycopg.Connection[Any], ended: Sequence[Record]) -> list[UUID]:
    """Write records in a transaction of the caller's own; gives the accounts that are now empty. Raises psycopg.Error."""
    lines = [line(one) for one in ended]
    rows = raw(connection).execute(QUERIES["record_calls"], (_Array(lines),)).fetchall()
    return [user_id for (user_id,) in rows]


def raw(connection: psycopg.Connection[Any]) -> psycopg.RawCursor[Any]:
    """A cursor for the statements of this room, whose placeholders are PostgreSQL's own."""
    cursor: psycopg.RawCursor[Any] = psycopg.RawCursor(connection)
    cursor.adapters.register_dumper(_Array, _ArrayDumper)
    return cursor


Settle = Callable[[Sequence[Entry], Kept], None]


class Writer:
    """One connection that writes groups, made when it is needed; for one greenlet at a time."""

    def __init__(
        self,
        settings: Settings,
        *,
        set_aside: Callable[[Entry, str], None],
        on_empty: Callable[[Iterable[UUID]], None],
        figures: Figures | None = None,
    ) -> None:
        """`set_aside` keeps a record that the database refuses, with the reason. `on_empty` hears which accounts a charge has emptied."""
        self._figures = figures or Figures()
        self._settings = settings
        self._set_aside = set_aside
        self._on_empty = on_empty
        self._connection: psycopg.Connection[Any] | None = None
        self._cursor: psycopg.Cursor[Any] | None = None
        """Kept, as a new one costs two thirds of a statement."""
        self._files: set[UUID] = set()

    def write(self, group: Sequence[Entry], settle: Settle) -> None:
        """Commit a group, or all of it but what the database refuses; `settle` is told of each part as soon as it is so.

        Raises Away or Busy; the ends of calls and openings that were not settled are then unwritten, or written twice without harm.
        """
        try:
            self._in_time(self.patience_s(group), lambda: self._flush(group))
        except _Refused as refusal:
            if len(group) == 1:
                settle(group, self._alone(group[0], refusal))
                return
            half = len(group) // 2
            self.write(group[:half], settle)
            self.write(group[half:], settle)
        else:
            settle(group, Kept.COMMITTED)

    def keep_progress(self, lines: Sequence[bytes]) -> None:
        """Store the last words of calls. Raises Later; what the database refuses is dropped."""
        try:
            self._in_time(
                self._settings.recorder.database_wait,
                lambda: self._execute("keep_progress", _Array(lines)),
            )
        except _Refused as refusal:
            log.warning("last words not kept", extra={"reason": _name_of(refusal)})

    def probe(self) -> None:
        """Whether the database would take records. Raises Later."""
        try:
            self._in_time(self._settings.recorder.database_wait, self._flush_nothing)
        except _Refused as refusal:
            raise Away from refusal.__cause__

    def withdraw(self, ids: Sequence[UUID]) -> list[UUID]:
        """Cancel requests of which it is not known whether they were committed; gives those that are locked, and so are not. Raises Later."""
        left: list[UUID] = []

        def withdraw() -> None:
            ((_, left[:]),) = self._execute("withdraw", list(ids)).fetchall()

        try:
            self._in_time(self._settings.recorder.database_wait, withdraw)
        except _Refused as refusal:
            raise Away from refusal.__cause__
        return left

    def close(self) -> None:
        """Hang up; the next use connects again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = self._cursor = None
        self._files.clear()

    def patience_s(self, group: Sequence[Entry]) -> float:
        """How long a group may take before the database counts as away."""
        size = sum(len(entry.line) for entry in group)
        return self._settings.recorder.database_wait + size / _BYTES_PER_S

    # --- one attempt after the other

    def _in_time(self, patience_s: float, write: Callable[[], object]) -> None:
        left_s = patience_s
        tries = 0
        while True:
            patience = Patience(max(_AGAIN_S, left_s))
            try:
                with patience:
                    write()
                if tries:
                    self._figures.retries["success"] += 1
                return
            except gevent.Timeout as error:
                self.close()
                if error is not patience:
                    raise
                raise Away from error
            except (psycopg.Error, OSError) as error:
                left_s = patience.left_s - _AGAIN_S
                self._give_up_or_repeat(error, is_over=left_s <= 0)
                tries += 1
                self._figures.retries["retry"] += 1
            except BaseException:
                # Killed in the middle: what the connection is at cannot be known.
                self.close()
                raise

    def _give_up_or_repeat(self, error: psycopg.Error | OSError, *, is_over: bool) -> None:
        """Return to try again, or raise what became of it."""
        connected = self._connection is not None and not self._connection.closed
        fault = judge(getattr(error, "sqlstate", None), connected=connected)
        if fault is Fault.RECORDS:
            raise _Refused from error
        if fault is Fault.AWAY:
            self.close()
        if is_over:
            raise (Busy if fault is Fault.BUSY else Away) from error
        gevent.sleep(_AGAIN_S)

    def _alone(self, entry: Entry, refusal: _Refused) -> Kept:
        """The end of a record that was refused on its own."""
        if _misses_partition(refusal.__cause__) and self._make_partition(entry):
            try:
                self._in_time(self.patience_s([entry]), lambda: self._flush([entry]))
                return Kept.COMMITTED
            except _Refused as again:
                refusal = again
        # Where not even nothing can be written, the statement is at fault (a migration is missing, a right was taken away), not the record.
        self.probe()
        reason = _name_of(refusal)
        if entry.kind is Kind.ENQUEUE:
            log.error("request refused by the database", extra={"request_id": str(entry.id), "reason": reason})  # fmt: skip
            return Kept.SET_ASIDE
        self._set_aside(entry, reason)
        if entry.kind is Kind.FINAL and entry.daemon_id is not None:
            self._end_without_record(entry)
        return Kept.SET_ASIDE

    def _end_without_record(self, entry: Entry) -> None:
        try:
            self._in_time(
                self._settings.recorder.database_wait,
                lambda: self._execute("give_up", entry.id, entry.daemon_id),
            )
        except _Refused as refusal:
            log.error("request not ended", extra={"request_id": str(entry.id), "reason": _name_of(refusal)})  # fmt: skip

    def _make_partition(self, entry: Entry) -> bool:
        made = False

        def make() -> None:
            nonlocal made
            with _connect(self._settings, lock_timeout_s=0.25) as connection:
                rows = connection.execute(QUERIES["make_partitions_for"], (_Array([entry.line]),))
                made = any(count for (count,) in rows.fetchall())

        try:
            self._in_time(self._settings.recorder.database_wait, make)
        except _Refused:
            return False
        return made

    # --- statements

    def _flush(self, group: Sequence[Entry]) -> None:
        connection = self._connected()
        files = {e.file_id: e.owner for e in group if e.file_id and e.file_id not in self._files}
        opening = [entry.line for entry in group if entry.kind is not Kind.FINAL]
        ending = [entry for entry in group if entry.kind is Kind.FINAL]
        # One statement needs no transaction around it. Requests for workers get one: a server that stands still may take up the statement
        # long after their callers were told no, but it is not told to commit, so only a commit that was not heard of leaves a doubt.
        alone = bool(files) + bool(opening) + bool(ending) == 1
        alone = alone and not any(entry.kind is Kind.ENQUEUE for entry in group)
        with nullcontext() if alone else connection.transaction():
            if files:
                rows = [{"id": id, "owner": owner} for id, owner in files.items()]
                self._execute("ensure_files", _Array([msgspec.json.encode(row) for row in rows]))
            if opening:
                self._execute("open_calls", _Array(opening))
            empty = self._end(ending) if ending else []
        if sum(len(entry.line) for entry in group) > _LARGE_BYTES:
            self._cursor = None  # it would hold on to what it has sent
        self._remember(files)
        if empty:
            self._on_empty(empty)

    def _flush_nothing(self) -> None:
        self._execute("open_calls", _Array([]))
        self._end([])

    def _end(self, ending: Sequence[Entry]) -> list[UUID]:
        born_final = all(entry.born_final for entry in ending)
        statement = "record_born_final" if born_final else "record_calls"
        rows = self._execute(statement, _Array([entry.line for entry in ending])).fetchall()
        return [user_id for (user_id,) in rows]

    def _execute(self, name: str, *values: Any) -> psycopg.Cursor[Any]:
        if self._cursor is None:
            self._cursor = self._connected().cursor()
        return self._cursor.execute(QUERIES[name], values, prepare=True)

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            # Whoever waits for a lock must know it before the callers' patience is over, and before the server looks for deadlocks.
            lock_timeout_s = self._settings.recorder.database_wait * 0.4
            self._connection = _connect(self._settings, lock_timeout_s=lock_timeout_s)
        return self._connection

    def _remember(self, files: Iterable[UUID]) -> None:
        if len(self._files) > _FILES_KNOWN:
            self._files.clear()
        self._files.update(files)


def groups(entries: Iterable[Entry], most: int) -> Iterator[list[Entry]]:
    """Entries in their order, cut into groups by number and bytes; no group has two entries of a kind for one call.

    (The second would be a change of a row that the same statement has changed already. In the next group it is harmless.)
    """
    group: list[Entry] = []
    seen: set[tuple[bool, UUID]] = set()
    size = 0
    for entry in entries:
        key = (entry.kind is Kind.FINAL, entry.id)
        if (group and not fits(len(group), size, entry, most)) or key in seen:
            yield group
            group, seen, size = [], set(), 0
        group.append(entry)
        seen.add(key)
        size += len(entry.line)
    if group:
        yield group


def fits(count: int, size: int, entry: Entry, most: int) -> bool:
    """Whether a group of so many entries and bytes takes one more."""
    return count < most and size + len(entry.line) <= MOST_GROUP_BYTES


def _connect(settings: Settings, *, lock_timeout_s: float) -> psycopg.Connection[Any]:
    """A connection whose statements are planned once: the shape of these plans never depends on their parameter."""
    options = {
        "plan_cache_mode": "force_generic_plan",
        "lock_timeout": f"{max(1, round(lock_timeout_s * 1000))}ms",
    }
    connection = connect(settings, options=options, is_timed=True)
    connection.cursor_factory = psycopg.RawCursor
    connection.adapters.register_dumper(_Array, _ArrayDumper)
    return connection


def _misses_partition(error: BaseException | None) -> bool:
    return (
        isinstance(error, psycopg.Error)
        and error.sqlstate == "23514"
        and not error.diag.constraint_name
    )


def _name_of(refusal: _Refused) -> str:
    return type(refusal.__cause__).__name__
