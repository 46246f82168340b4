"""Chores of the request log: partitions ahead of time, old ones dropped, and records of what the queue itself has ended."""

from __future__ import annotations

import logging
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from dwctl.analytics import writing
from dwctl.analytics.faults import Fault, judge
from dwctl.analytics.records import Record
from dwctl.config import Settings
from dwctl.queue.duties import Duty
from dwctl.sql import load

log = logging.getLogger(__name__)

_QUEUE = load("dwctl.queue")
_AHEAD_DAYS = 30
_HOUR_S = 3600.0
_PURGE_AT_ONCE = 1000
_RECORD_AT_ONCE = 20
_STATUS = {"interrupted": 502, "worker_lost": 502, "deadline_passed": 504}
# Both need the log for themselves for a moment. Whoever waits for that holds up every call behind it, so nobody waits for longer than a
# call would (recorder.database_wait): a backup that reads the log for an hour only puts the chore off.
_PATIENCE = "SET LOCAL lock_timeout = '250ms'"
_PARTITION = re.compile(r"^http_analytics_p(\d{8})$")


def make_partitions(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Partitions of the log for the next 30 days: a day without one would refuse its rows."""
    connection.execute(_PATIENCE)
    connection.execute(
        "SELECT make_log_partitions((now() AT TIME ZONE 'UTC')::date, %s)", (_AHEAD_DAYS + 1,)
    )
    return _HOUR_S


def drop_partitions(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Drop one day of the log past `retention.log_days`; more follow at once."""
    days = settings.retention.log_days
    if not days:
        return _HOUR_S
    oldest = _day_of_database(connection, days)
    old = [name for name, day in _partitions(connection) if day < oldest]
    if not old:
        return _HOUR_S
    name = old[0]
    connection.execute(_PATIENCE)
    connection.execute(
        sql.SQL("ALTER TABLE http_analytics DETACH PARTITION {}").format(sql.Identifier(name))
    )
    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    log.info("log partition dropped", extra={"partition": name})
    return 1.0


def purge_rollups(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Delete sums past `retention.rollups_days`, some at a time."""
    days = settings.retention.rollups_days
    if not days:
        return _HOUR_S
    purged = writing.raw(connection).execute(
        writing.QUERIES["purge_rollups"], (days, _PURGE_AT_ONCE)
    )
    return 0.5 if purged.rowcount == _PURGE_AT_ONCE else _HOUR_S


def record_ended(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Write down what the queue has ended: calls whose process died, with their last words, and requests that no worker could end.

    In the transaction that takes them from `unrecorded`; each at most once, as every record.
    """
    cursor = connection.cursor(row_factory=namedtuple_row)
    rows = cursor.execute(_QUEUE["take_unrecorded"], {"most": _RECORD_AT_ONCE}).fetchall()
    found = [record for row in rows if (record := _record_of_ended(row)) is not None]
    _write(connection, found)
    if rows:
        log.warning("requests recorded for their owners", extra={"requests": len(found)})
    return 0.1 if len(rows) == _RECORD_AT_ONCE else 1.0


def _write(connection: psycopg.Connection[Any], records: list[Record]) -> None:
    """In one statement, which locks balances and roll-ups in the order that recorders keep to. What is refused holds up nothing else."""
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
    )


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _day_of_database(connection: psycopg.Connection[Any], days_ago: int) -> date:
    """By the database's clock: a process whose own is months ahead must not drop the log."""
    row = connection.execute(
        "SELECT (now() AT TIME ZONE 'UTC')::date - %s::int", (days_ago,)
    ).fetchone()
    assert row is not None
    day: date = row[0]
    return day


def _partitions(connection: psycopg.Connection[Any]) -> list[tuple[str, date]]:
    rows = connection.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'http_analytics'::regclass ORDER BY c.relname"
    ).fetchall()
    found = ((name, _PARTITION.match(name)) for (name,) in rows)
    return [
        (name, datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=UTC).date())
        for name, match in found
        if match
    ]


DUTIES = (
    Duty("make_partitions", make_partitions),
    Duty("drop_partitions", drop_partitions),
    Duty("purge_rollups", purge_rollups),
    Duty("record_ended", record_ended),
)
