"""Chores of the request log: partitions ahead of time, old ones dropped, and records of what the queue itself has ended."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from dwctl.analytics import writing
from dwctl.analytics.faults import Fault, judge
from dwctl.analytics.records import Record
from dwctl.analytics.showing import Withheld, withheld
from dwctl.config import Settings
from dwctl.queue.duties import Duty
from dwctl.sql import load

log = logging.getLogger(__name__)

_QUEUE = load("dwctl.queue")
_AHEAD_DAYS = 30
_HOUR_S = 3600.0
_RECORD_AT_ONCE = 20
_STATUS = {"interrupted": 502, "worker_lost": 502, "deadline_passed": 504}
# Both need the log for themselves for a moment. Whoever waits for that holds up every call behind it: so nobody waits for longer than a call
# would notice, nor often. A backup that reads the log for an hour only puts the chore off.
_PATIENCE = "SET LOCAL lock_timeout = '30ms'"
_AGAIN_S = 30.0
_SOON_S = 0.5
_LEFT = "http_analytics_left_"


class _Day(NamedTuple):
    """A partition of the log; `bytes` with its indexes."""

    table: str
    day: date
    bytes: int


def make_partitions(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Partitions of the log for the next 30 days: a day without one would refuse its rows."""
    made = "SELECT make_log_partitions((now() AT TIME ZONE 'UTC')::date, {})"
    ahead = sql.SQL(made).format(_AHEAD_DAYS + 1)
    return _HOUR_S if _does_alone(connection, ahead) else _AGAIN_S


dropped: Counter[str] = Counter()
"""How many days of the log this process has dropped, by why: `age` or `size`."""


def drop_partitions(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Drop one day of the log: past `retention.log_days`, or the oldest while there is more than `retention.log_bytes`; more follow at once.

    In two turns. The first takes the day out of the log, for which nobody may be at the log for a moment; the second, when that is committed,
    deletes in its own time what nobody sees any more.
    """
    leaving = connection.execute(writing.QUERIES["days_that_left"]).fetchone()
    if leaving is not None:
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(leaving[0])))
        return _SOON_S
    days = [_Day(*row) for row in connection.execute(writing.QUERIES["days_of_log"]).fetchall()]
    today = _day_of_database(connection)
    reason = _why_dropped(days, today, settings)
    if reason is None:
        return _HOUR_S
    oldest = days[0]
    table, gone = sql.Identifier(oldest.table), sql.Identifier(f"{_LEFT}{oldest.day:%Y%m%d}")
    # Under a name of its own: what an operator has detached to keep it is left alone.
    leaves = sql.SQL(
        "ALTER TABLE http_analytics DETACH PARTITION {table}; ALTER TABLE {table} RENAME TO {gone}"
    )
    if not _does_alone(connection, leaves.format(table=table, gone=gone)):
        return _AGAIN_S
    dropped[reason] += 1
    log.log(
        logging.WARNING if reason == "size" else logging.INFO,
        "day of the request log dropped",
        extra={"day": str(oldest.day), "reason": reason, "day_bytes": oldest.bytes},
    )
    return _SOON_S


def _does_alone(connection: psycopg.Connection[Any], change: sql.Composed) -> bool:
    """Change the log itself; False where somebody is in the way, and nothing is changed."""
    try:
        with connection.transaction():
            connection.execute(_PATIENCE)
            connection.execute(change)
    except psycopg.errors.LockNotAvailable:
        log.info("request log is being read, changed later")
        return False
    return True


def _why_dropped(days: Sequence[_Day], today: date, settings: Settings) -> str | None:
    """Why the oldest day is to go. For its size it never is today, nor yesterday."""
    retention = settings.retention
    if not days:
        return None
    if retention.log_days and days[0].day < today - timedelta(retention.log_days):
        return "age"
    too_much = retention.log_bytes and sum(day.bytes for day in days) > retention.log_bytes
    return "size" if too_much and days[0].day < today - timedelta(1) else None


def record_ended(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Write down what the queue has ended: calls whose process died, with their last words, and requests that no worker could end.

    In the transaction that takes them from `unrecorded`; each at most once, as every record.
    """
    cursor = connection.cursor(row_factory=namedtuple_row)
    rows = cursor.execute(_QUEUE["take_unrecorded"], {"most": _RECORD_AT_ONCE}).fetchall()
    found = [record for row in rows if (record := _record_of_ended(row)) is not None]
    if found and settings.enable_analytics:
        _write(connection, _with_reasons(connection, found, settings))
    if rows:
        log.warning("requests recorded for their owners", extra={"requests": len(found)})
    return 0.1 if len(rows) == _RECORD_AT_ONCE else 1.0


def _write(connection: psycopg.Connection[Any], records: list[Record]) -> None:
    """In one statement, which locks balances in the order that recorders keep to. What is refused holds up nothing else."""
    if _takes(connection, records):
        return
    # Each alone, but not to stay: what one of them locks is free again before the next.
    fine = [record for record in records if _takes(connection, [record], keep=False)]
    refused = len(records) - len(fine) if _takes(connection, fine) else len(records)
    log.error("requests not recorded", extra={"requests": refused})


def _takes(
    connection: psycopg.Connection[Any], records: list[Record], *, keep: bool = True
) -> bool:
    try:
        with connection.transaction(force_rollback=not keep):
            writing.record(connection, records)
    except psycopg.Error as error:
        if connection.closed or judge(error.sqlstate, connected=True) is not Fault.RECORDS:
            raise
        if len(records) == 1:
            log.error("request refused by the database", extra={"request_id": str(records[0].id), "reason": type(error).__name__})  # fmt: skip
        return False
    return True


def _record_of_ended(row: Any) -> Record | None:
    """The record of a request that its owner did not end; its row is final already. None: nothing is known of it."""
    # Its place in the log is that of the run which follows: moved aside, as it would have been if it had stood there when that began.
    aside = timedelta(microseconds=row.runs_since or 0)
    if row.last_words is not None:
        try:
            words = msgspec.json.decode(row.last_words, type=Record)
        except msgspec.DecodeError:
            log.warning("last words unreadable", extra={"request_id": str(row.id)})
        else:
            return msgspec.structs.replace(
                words,
                at=words.at + aside,
                track=False,
                opened=False,
                error_code=words.error_code or row.error_code,
            )
    if row.arrived_at is None:
        return None
    owner = _uuid(row.created_by)
    single = row.batch_id == row.id
    return Record(
        id=row.id,
        at=row.arrived_at + aside,
        ended_at=row.ended_at,
        track=False,
        opened=False,
        queued=row.service_tier != "priority",
        notify=False,
        method="POST",
        uri=(row.path or "").removeprefix("/v1"),
        status_code=_STATUS.get(row.error_code, 500),
        duration_ms=max(0, int((row.ended_at - row.arrived_at).total_seconds() * 1000)),
        prompt_tokens=0,
        completion_tokens=0,
        reasoning_tokens=0,
        cached_tokens=0,
        total_tokens=0,
        usage_source="none",
        response_type="other",
        access_source="api_key",
        origin="api",
        sla=row.completion_window or "",
        batch_id=None if single else row.batch_id,
        user_id=owner,
        api_key_id=row.api_key_id,
        model=row.model,
        custom_id=row.custom_id,
        error_code=row.error_code,
        reserved=True,
        bodies=Withheld.NOT_STORED if row.is_unkept else None,
    )


def _with_reasons(
    connection: psycopg.Connection[Any], records: Sequence[Record], settings: Settings
) -> list[Record]:
    """The records with why the log shows no bodies of them, as the process would have said that made the call."""
    logging = settings.request_logging
    of = [id for record in records for id in (record.user_id, record.api_key_id) if id is not None]
    rows = writing.raw(connection).execute(writing.QUERIES["keeping"], (of,)).fetchall()
    zero = {id for id, zero_retention, _share in rows if zero_retention}
    shares = {id: share for id, _zero, share in rows if share is not None}

    def reason(record: Record) -> str | None:
        usual = shares.get(record.user_id, logging.sample)
        return record.bodies or withheld(
            record.id,
            zero_retention=not zero.isdisjoint((record.user_id, record.api_key_id)),
            shows_bodies=settings.enable_request_logging and logging.bodies,
            share=shares.get(record.api_key_id, usual),
        )

    return [msgspec.structs.replace(record, bodies=reason(record)) for record in records]


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _day_of_database(connection: psycopg.Connection[Any]) -> date:
    """By the database's clock: a process whose own is months ahead must not drop the log."""
    row = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()
    assert row is not None
    day: date = row[0]
    return day


DUTIES = (
    Duty("make_partitions", make_partitions),
    Duty("drop_partitions", drop_partitions),
    Duty("record_ended", record_ended),
)
