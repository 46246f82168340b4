"""The chores of the request log: a partition for every day to come, none for days past the retention."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dwctl import config
from dwctl.analytics import duties
from dwctl.queue import duties as queue_duties


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """In a transaction, as the runner gives it to a duty."""
    with psycopg.connect(database_url) as made:
        yield made


def settings(days: int = 90) -> config.Settings:
    return config.load({"DWCTL_RETENTION__LOG_DAYS": str(days)})


def partitions(connection: psycopg.Connection[Any]) -> list[date]:
    rows = connection.execute(
        "SELECT to_date(right(c.relname, 8), 'YYYYMMDD') FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'http_analytics'::regclass ORDER BY 1"
    )
    return [row[0] for row in rows]


def make(connection: psycopg.Connection[Any], day: date, count: int = 1) -> None:
    connection.execute("SELECT make_log_partitions(%s, %s)", (day, count))
    connection.commit()


def today() -> date:
    return datetime.now(UTC).date()


def test_the_next_thirty_days_have_a_partition(connection: psycopg.Connection[Any]) -> None:
    for ahead in (3, 30, 17):
        connection.execute(f"DROP TABLE http_analytics_p{today() + timedelta(ahead):%Y%m%d}")  # type: ignore[arg-type]
    assert duties.make_partitions(connection, settings()) > 0
    wanted = {today() + timedelta(ahead) for ahead in range(31)}
    assert wanted <= set(partitions(connection))
    # Again changes nothing.
    before = partitions(connection)
    duties.make_partitions(connection, settings())
    assert partitions(connection) == before


def test_old_days_are_dropped_one_by_one_the_oldest_first(
    connection: psycopg.Connection[Any],
) -> None:
    make(connection, today() - timedelta(100), 5)
    old = [today() - timedelta(100 - n) for n in range(5)]
    rest_s = duties.drop_partitions(connection, settings(90))
    assert rest_s <= 1
    assert [day for day in old if day in partitions(connection)] == old[1:]
    while duties.drop_partitions(connection, settings(90)) <= 1:
        pass
    assert not set(old) & set(partitions(connection))
    assert today() in partitions(connection)


def test_a_day_just_within_the_retention_stays(connection: psycopg.Connection[Any]) -> None:
    make(connection, today() - timedelta(11), 3)
    while duties.drop_partitions(connection, settings(10)) <= 1:
        pass
    kept = [day for day in partitions(connection) if day < today() - timedelta(5)]
    assert kept == [today() - timedelta(10), today() - timedelta(9)]


def test_a_retention_of_zero_keeps_everything(connection: psycopg.Connection[Any]) -> None:
    make(connection, today() - timedelta(4000))
    assert duties.drop_partitions(connection, settings(0)) > 1
    assert today() - timedelta(4000) in partitions(connection)


def test_the_rows_of_a_dropped_day_are_gone_and_no_others(
    connection: psycopg.Connection[Any],
) -> None:
    make(connection, today() - timedelta(200))
    for days in (200, 0):
        connection.execute(
            "INSERT INTO http_analytics (request_id, timestamp, method, uri, status_code, duration_ms) "
            "VALUES (gen_random_uuid(), now() - %s * interval '1 day', 'POST', '/x', 200, 1)",
            (days,),
        )
    connection.commit()
    while duties.drop_partitions(connection, settings(90)) <= 1:
        pass
    rows = connection.execute("SELECT timestamp::date FROM http_analytics WHERE uri = '/x'")
    assert [row[0] for row in rows] == [today()]


Chore = Callable[[psycopg.Connection[Any], config.Settings], float]


@pytest.mark.parametrize("chore", [duties.make_partitions, duties.drop_partitions])
def test_a_reader_in_the_way_does_not_make_calls_wait(
    connection: psycopg.Connection[Any], database_url: str, chore: Chore
) -> None:
    """Whoever waits for a lock holds up all that come after it."""
    make(connection, today() - timedelta(300))
    connection.execute(f"DROP TABLE http_analytics_p{today() + timedelta(30):%Y%m%d}")  # type: ignore[arg-type]
    connection.commit()
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT count(*) FROM http_analytics")
        began = time.monotonic()
        with pytest.raises(psycopg.errors.LockNotAvailable):
            chore(connection, settings(90))
        assert time.monotonic() - began < settings().recorder.database_wait
    connection.rollback()
    chore(connection, settings(90))


def test_roll_ups_past_the_retention_are_deleted(connection: psycopg.Connection[Any]) -> None:
    for days in (401, 399):
        connection.execute(
            "INSERT INTO usage_rollups (bucket, model, user_id, requests, succeeded, prompt_tokens, completion_tokens, duration_ms, cost, last_at) "
            "VALUES (now() - %s * interval '1 day', 'm', gen_random_uuid(), 1, 1, 1, 1, 1, 0, now())",
            (days,),
        )
    duties.purge_rollups(connection, config.load({"DWCTL_RETENTION__ROLLUPS_DAYS": "0"}))
    assert _count(connection, "usage_rollups") == 2
    duties.purge_rollups(connection, config.load({}))
    assert _count(connection, "usage_rollups") == 1
    connection.rollback()


def test_days_files_are_deleted_when_nothing_refers_to_them(
    connection: psycopg.Connection[Any],
) -> None:
    connection.execute(
        "INSERT INTO fusillade.files (id, name, single, created_at) SELECT ('00000000-0000-4000-8000-00000000000' || n)::uuid, "
        "CASE n WHEN 3 THEN 'mine.jsonl' ELSE 'single_request' END, n <> 3, now() - CASE n WHEN 4 THEN 59 ELSE 61 END * interval '1 day' FROM generate_series(1, 4) n"
    )
    connection.execute(
        "INSERT INTO fusillade.batches (file_id, expires_at) VALUES ('00000000-0000-4000-8000-000000000002', now())"
    )
    queue_duties.purge_files(connection, config.load({}))
    rows = connection.execute("SELECT right(id::text, 1) FROM fusillade.files ORDER BY id")
    assert [row[0] for row in rows] == ["2", "3", "4"]
    connection.rollback()


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[arg-type]
    assert row
    return int(row[0])
