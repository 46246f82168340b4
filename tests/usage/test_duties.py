"""Deltas come into the sums, old sums go, and those of the release before are carried over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from dwctl import config
from dwctl.usage import accounts, aggregates, duties, folding, spans
from dwctl.usage.accounts import Accounts
from dwctl.usage.aggregates import Asked
from dwctl.usage.reading import kept
from tests.usage.deltas import add, today

MINUTE, HOUR, DAY = spans.GRAINS
TABLES = ("account_rollups", "caller_rollups", "model_rollups", "latency_histograms")


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """In a transaction, as the runner gives it to a duty; nothing of it stays."""
    with psycopg.connect(database_url) as made:
        yield made
        made.rollback()


def grains(connection: psycopg.Connection[Any], table: str) -> dict[int, int]:
    rows = connection.execute(f"SELECT grain, count(*) FROM {table} GROUP BY 1")  # type: ignore[arg-type]
    return dict(rows.fetchall())


def total(connection: psycopg.Connection[Any], since: datetime, until: datetime) -> int:
    found: int = aggregates.aggregate(connection, Asked(since, until))["total_requests"]
    return found


def test_a_delta_comes_into_the_sums_of_every_grain(connection: psycopg.Connection[Any]) -> None:
    add(connection, today())
    waiting, age_s = folding.backlog(connection)
    assert (waiting, age_s >= 0) == (1, True)
    assert duties.fold_usage(connection, config.load({})) == 2.0
    assert grains(connection, "account_rollups") == {0: 1, MINUTE: 1, HOUR: 1, DAY: 1}
    # Of the model and of all.
    assert grains(connection, "model_rollups") == {0: 2, MINUTE: 2, HOUR: 2, DAY: 2}
    assert grains(connection, "latency_histograms") == {MINUTE: 2, HOUR: 2, DAY: 2}
    assert duties.fold_usage(connection, config.load({})) == 2.0
    assert connection.execute("SELECT sum(calls) FROM account_rollups WHERE grain = 0").fetchone() == (1,)  # fmt: skip


def test_many_deltas_are_added_one_part_after_the_other(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duties, "_FOLD_AT_ONCE", 3)
    for _ in range(4):
        add(connection, today())
    assert duties.fold_usage(connection, config.load({})) < 1
    assert folding.backlog(connection)[0] == 1
    assert duties.fold_usage(connection, config.load({})) == 2.0


def test_sums_go_by_their_grain_and_no_number_is_wrong_meanwhile(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duties, "_PURGE_AT_ONCE", 6)
    for days in (0, 1, 6, 8, 60, 100, 400, 2000):
        add(connection, today() - timedelta(days=days) + timedelta(hours=1, minutes=7))
    folding.fold(connection, 100)
    days_ago = {days: today() - timedelta(days=days) for days in (1, 8, 100, 2000)}
    rest_s = 0.0
    while rest_s < 3600:
        rest_s = duties.purge_rollups(connection, config.load({}))
        assert kept(connection)[MINUTE] == today() - timedelta(days=7)
        # Where minutes are gone the hour is meant, and where hours are, the day.
        at = timedelta(hours=1, minutes=7)
        for days, found in ((1, 0), (8, 1), (100, 1), (2000, 0)):
            begin = days_ago[days] + at + timedelta(minutes=1)
            assert total(connection, begin, begin + timedelta(minutes=1)) == found, days
        assert total(connection, days_ago[100] - timedelta(days=1), days_ago[8] + timedelta(hours=1, minutes=8)) == 3  # fmt: skip
        assert total(connection, spans.EPOCH, today() + timedelta(days=1)) == 7
    for table in TABLES:
        found = grains(connection, table)
        found.pop(0, None)
        each = {
            "account_rollups": 1,
            "caller_rollups": 1,
            "model_rollups": 2,
            "latency_histograms": 2,
        }[table]
        assert found == {MINUTE: 3 * each, HOUR: 5 * each, DAY: 7 * each}
    # What comes late has no sums where none are kept.
    add(connection, days_ago[100])
    folding.fold(connection, 100)
    assert grains(connection, "account_rollups") == {0: 1, MINUTE: 3, HOUR: 5, DAY: 7}
    assert connection.execute("SELECT sum(calls) FROM account_rollups WHERE grain = 0").fetchone() == (9,)  # fmt: skip


def test_nothing_goes_that_is_to_stay_for_ever(connection: psycopg.Connection[Any]) -> None:
    add(connection, today() - timedelta(days=4000))
    folding.fold(connection, 100)
    for_ever = {f"DWCTL_RETENTION__{name}": "0" for name in ("MINUTES_DAYS", "HOURS_DAYS", "ROLLUPS_DAYS")}  # fmt: skip
    duties.purge_rollups(connection, config.load(for_ever))
    assert grains(connection, "account_rollups") == {0: 1, MINUTE: 1, HOUR: 1, DAY: 1}
    assert set(kept(connection).values()) == {spans.EPOCH}


@pytest.mark.parametrize(
    ("minutes", "hours", "days", "fine"),
    [(7, 90, 400, True), (7, 7, 7, True), (7, 90, 0, True), (0, 0, 0, True), (8, 7, 400, False), (7, 500, 400, False), (0, 90, 0, False)],
)  # fmt: skip
def test_what_is_finer_is_kept_no_longer(minutes: int, hours: int, days: int, fine: bool) -> None:
    environ = {"DWCTL_RETENTION__MINUTES_DAYS": str(minutes), "DWCTL_RETENTION__HOURS_DAYS": str(hours), "DWCTL_RETENTION__ROLLUPS_DAYS": str(days)}  # fmt: skip
    if fine:
        config.load(environ)
    else:
        with pytest.raises(config.ConfigError, match="minutes_days must be at most"):
            config.load(environ)


def test_sums_of_the_release_before_are_carried_over(connection: psycopg.Connection[Any]) -> None:
    """Its processes go on making them until they are replaced."""
    owner, bucket = uuid4(), today() - timedelta(hours=2)
    for at, requests, succeeded, last in (
        (bucket, 5, 3, bucket + timedelta(minutes=4)),
        (bucket + timedelta(minutes=10), 2, 0, bucket + timedelta(minutes=30)),
    ):
        connection.execute(
            "INSERT INTO usage_rollups (bucket, model, user_id, requests, succeeded, prompt_tokens, completion_tokens, duration_ms, cost, last_at)"
            " VALUES (%s, 'm', %s, %s, %s, 30, 20, 700, 0.25, %s)",
            (at, owner, requests, succeeded, last),
        )
    shown = []
    for _ in range(2):
        duties.fold_usage(connection, config.load({}))
        found = aggregates.aggregate(connection, Asked(bucket, bucket + timedelta(minutes=20), minutes=10))  # fmt: skip
        assert [point["requests"] for point in found["time_series"]] == [5, 2]
        assert [(s["status"], s["count"]) for s in found["status_codes"]] == [("unknown", 4), ("200", 3)]  # fmt: skip
        assert (found["input_tokens"], found["cost"], found["avg_latency_ms"]) == (60, Decimal("0.5"), 200)  # fmt: skip
        shown.append(accounts.read(connection, Accounts((owner,)), None, None))
    assert shown[0] == shown[1]
    assert shown[0]["by_model"][0]["request_count"] == 3
    assert grains(connection, "latency_histograms") == {}
    assert connection.execute("SELECT count(*) FROM usage_rollups").fetchone() == (0,)


def test_rows_by_slot_of_the_release_before_are_read_and_carried_over(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duties, "_CARRY_AT_ONCE", 3)
    bucket = today() - timedelta(days=2)
    add(connection, bucket, duration_ms=1000)
    folding.fold(connection, 1)
    connection.execute(
        "INSERT INTO latency_rollups (of_all, model, grain, bucket, measure, slot, calls) SELECT of_all, CASE WHEN of_all THEN '' ELSE 'm' END, grain, %s,"
        " 'duration', slot, 2 FROM unnest('{t,f}'::boolean[]) of_all, unnest('{60,3600,86400}'::int[]) grain, unnest('{10,20}'::int[]) slot",
        (bucket,),
    )

    def shown() -> list[Any]:
        found = aggregates.aggregate(connection, Asked(bucket, bucket + timedelta(days=1), "m", 1440))  # fmt: skip
        return [found["p50_latency_ms"], found["p95_latency_ms"], found["p99_ttfb_ms"]]

    before = shown()
    assert before == [6.4, 1002.2, 10.3]
    rests = []
    for _ in range(5):
        rests.append(duties.carry_latencies(connection, config.load({})))
        assert shown() == before
    assert rests == [0.1, 0.1, 0.1, 0.1, 60.0]
    assert grains(connection, "latency_rollups") == {}
    assert grains(connection, "latency_histograms") == {MINUTE: 2, HOUR: 2, DAY: 2}
