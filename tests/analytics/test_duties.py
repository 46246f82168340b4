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
    """In a transaction, as the runner gives it to a duty. The coming days are there, as if the tests had begun today."""
    with psycopg.connect(database_url) as made:
        make(made, today(), 31)
        yield made


def settings(days: int = 90, bytes: int = 0) -> config.Settings:
    return config.load(
        {"DWCTL_RETENTION__LOG_DAYS": str(days), "DWCTL_RETENTION__LOG_BYTES": str(bytes)}
    )


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


def size_of(connection: psycopg.Connection[Any], *days: date) -> int:
    found = connection.execute(
        "SELECT sum(pg_total_relation_size(relname::regclass)) FROM pg_class WHERE relispartition AND relname ~ '^http_analytics_p[0-9]+$'"
        " AND (%(none)s OR relname = ANY (%(names)s)) AND relkind = 'r'",
        {"none": not days, "names": [f"http_analytics_p{day:%Y%m%d}" for day in days]},
    ).fetchone()
    assert found
    return int(found[0])


def test_a_log_that_is_too_large_loses_its_oldest_days(
    connection: psycopg.Connection[Any],
) -> None:
    drop_all(connection, settings(5))
    old = [today() - timedelta(5 - n) for n in range(5)]
    make(connection, old[0], 5)
    connection.execute(
        "INSERT INTO http_analytics (request_id, timestamp, method, uri, status_code, duration_ms, response_body)"
        " SELECT gen_random_uuid(), day, 'POST', '/x', 200, 1, repeat(gen_random_uuid()::text, 40)"
        " FROM unnest(%s::timestamptz[]) day, generate_series(1, 300)",
        ([datetime(day.year, day.month, day.day, 12, tzinfo=UTC) for day in old],),
    )
    connection.commit()
    most = size_of(connection) - size_of(connection, old[0]) - 1
    before = duties.dropped["size"]
    drop_all(connection, settings(bytes=most))
    assert [day for day in old if day in partitions(connection)] == old[2:]
    assert duties.dropped["size"] == before + 2
    assert size_of(connection) <= most
    # Today and yesterday stay, whatever is asked for.
    drop_all(connection, settings(bytes=1))
    assert partitions(connection)[0] == today() - timedelta(1)


def drop_all(connection: psycopg.Connection[Any], wanted: config.Settings) -> None:
    while duties.drop_partitions(connection, wanted) <= 1:
        connection.commit()


def test_what_is_on_its_way_out_is_deleted_and_what_an_operator_keeps_is_not(
    connection: psycopg.Connection[Any],
) -> None:
    drop_all(connection, settings(90))
    kept, gone = today() - timedelta(400), today() - timedelta(500)
    make(connection, kept)
    connection.execute(f"ALTER TABLE http_analytics DETACH PARTITION http_analytics_p{kept:%Y%m%d}")  # type: ignore[arg-type]
    make(connection, gone)
    assert duties.drop_partitions(connection, settings(90)) <= 1
    connection.commit()

    def tables() -> list[str]:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ 'http_analytics_' AND NOT relispartition"
        )
        return sorted(name for (name,) in rows)

    # The first turn takes it out; whoever dies then leaves it to the next one.
    assert tables() == [f"http_analytics_left_{gone:%Y%m%d}", f"http_analytics_p{kept:%Y%m%d}"]
    drop_all(connection, settings(90))
    assert tables() == [f"http_analytics_p{kept:%Y%m%d}"]
    connection.execute(f"DROP TABLE http_analytics_p{kept:%Y%m%d}")  # type: ignore[arg-type]
    connection.commit()


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
        assert chore(connection, settings(90)) >= 10
        assert time.monotonic() - began < settings().recorder.database_wait
    connection.rollback()
    chore(connection, settings(90))


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
