"""Every number is that of the log, at every moment: while recorders write, sums are folded and calls are taken back."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from dwctl import config
from dwctl.analytics import duties, writing
from dwctl.analytics.records import Record
from dwctl.analytics.writing import Kind, Writer, entry_of
from dwctl.billing import verification
from dwctl.queue import duties as queue_duties
from dwctl.usage import accounts, aggregates, exporting, folding
from dwctl.usage.accounts import Accounts
from dwctl.usage.aggregates import Asked
from dwctl.usage.exporting import Wanted
from dwctl.usage.verification import CHECKS
from tests.analytics.made import ALICE, BOB, Made, final, opening
from tests.usage import counting

CAROL = UUID(int=3, version=4)
KEYS = [uuid4() for _ in range(3)]
MODELS = ("a", "b", "c d")
INTERRUPTED = '{"type":"Interrupted","details":{"error":"ended"}}'

Sql = psycopg.Connection[Any]


def invented(chance: random.Random, now: datetime) -> Record:
    """A call of the last three days, many at the edges of days, hours and minutes."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    edge = midnight - timedelta(days=chance.randrange(3), hours=chance.choice((0, 0, 7, 23)), minutes=chance.choice((0, 1, 59)))  # fmt: skip
    at = edge + timedelta(microseconds=chance.choice((0, 1, -1, chance.randrange(10**10))))
    call = Made(uuid4(), chance.choice((ALICE, ALICE, BOB, CAROL)), track=False, created_at=min(at, now).timestamp(), model=chance.choice(MODELS))  # fmt: skip
    more: dict[str, Any] = {
        "status_code": chance.choice((200, 200, 200, 201, 429, 502)),
        "duration_ms": chance.choice((0, 1, 2, 40, chance.randrange(100_000), 10**9)),
        "ttfb_ms": chance.choice((None, 0, 3, chance.randrange(5000))),
        "completion_tokens": chance.randrange(50),
        "reasoning_tokens": chance.randrange(3),
        "cached_tokens": chance.randrange(3),
        "api_key_id": chance.choice((None, *KEYS)),
    }
    if chance.random() < 0.1:
        more |= {"model": "no such", "error_code": "model_not_found", "status_code": 404, "cost": None}  # fmt: skip
    if chance.random() < 0.1:
        more |= {"model": None, "user_id": None, "cost": None}
    return final(call, tokens=chance.randrange(1, 40), **more)


@pytest.fixture
def writer(environ: dict[str, str]) -> Iterator[Writer]:
    def refuse(_entry: object, reason: str) -> None:
        raise AssertionError(reason)

    made = Writer(config.load(environ), set_aside=refuse, on_empty=lambda _ids: None)
    yield made
    made.close()


def write(writer: Writer, kind: Kind, record: Any) -> None:
    writer.write([entry_of(kind, record)], lambda _entries, _kept: None)


def interrupt_and_go_on(sql: Sql, writer: Writer, settings: config.Settings) -> None:
    """Calls whose process seems to be dead are recorded as interrupted, and then end all the same."""
    sql.execute("INSERT INTO fusillade.duties (name) VALUES ('bury_the_dead') ON CONFLICT DO NOTHING")  # fmt: skip
    calls = [Made(uuid4(), BOB, model="a") for _ in range(4)]
    for call in calls:
        left = final(call, tokens=3, ttfb_ms=5, cost=None, state="failed", error=INTERRUPTED, status_code=502, error_code="interrupted")  # fmt: skip
        write(writer, Kind.OPEN, opening(call, last_words=left))
    for duty in (queue_duties.bury_the_dead, queue_duties.wake_delayed, duties.record_ended):
        with sql.transaction():
            duty(sql, settings)
    rows = sql.execute("SELECT status_code, count(*) FROM http_analytics WHERE error_code = 'interrupted' GROUP BY 1").fetchall()  # fmt: skip
    assert rows == [(502, 4)]
    for call in calls[:3]:
        write(writer, Kind.FINAL, final(call, tokens=7, request_body=None, ttfb_ms=9))
    rows = sql.execute("SELECT count(*) FROM http_analytics WHERE error_code = 'interrupted'").fetchall()  # fmt: skip
    assert rows == [(1,)]


def test_every_number_is_that_of_the_log_at_every_moment(
    sql: Sql, database_url: str, environ: dict[str, str], writer: Writer
) -> None:
    chance = random.Random(12)
    now = datetime.now(UTC)
    records = [invented(chance, now) for _ in range(900)]
    sql.execute("SELECT make_log_partitions((now() AT TIME ZONE 'UTC')::date - 4, 4)")
    over = threading.Event()

    def record(mine: list[Record]) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while mine:
                group, mine = mine[:11], mine[11:]
                writing.record(connection, group)
                # Nobody heard of the commit.
                writing.record(connection, group[:3])

    def fold() -> int:
        folded = 0
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not over.is_set():
                with connection.transaction():
                    folded += folding.fold(connection, 17)
                time.sleep(0.001)
        return folded

    def look() -> int:
        looks = 0
        with psycopg.connect(database_url) as connection:
            while not over.is_set():
                compare(connection, random.Random(looks), now)
                looks += 1
        return looks

    with ThreadPoolExecutor(6) as threads:
        recorders = [threads.submit(record, records[:450]), threads.submit(record, records[450:])]
        folders = [threads.submit(fold) for _ in range(2)]
        looking = threads.submit(look)
        try:
            interrupt_and_go_on(sql, writer, config.load(environ))
            for one in recorders:
                one.result(60)
        finally:
            over.set()
        assert looking.result(60) > 1
        assert sum(one.result(60) for one in folders) > 0
    with psycopg.connect(database_url) as connection:
        for _ in range(3):
            for look_again in range(4):
                compare(connection, random.Random(look_again), now)
            folding.fold(connection, 10_000)
            connection.commit()
        assert folding.backlog(connection) == (0, 0.0)
        connection.rollback()
        assert list(verification.findings(connection, CHECKS)) == []
        # What is taken back leaves nothing in any slot either.
        assert connection.execute("SELECT histogram_calls(sum(durations)) FROM latency_histograms WHERE grain = 86400 AND of_all").fetchone() == (904,)  # fmt: skip


def compare(connection: Sql, chance: random.Random, now: datetime) -> None:
    """Everything that is read, with what is counted from the log of the same moment."""
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    calls = counting.log(connection)
    until = now - timedelta(seconds=chance.randrange(0, 7200)) if chance.random() < 0.5 else now + timedelta(minutes=1)  # fmt: skip
    since = now - chance.choice((timedelta(minutes=9), timedelta(hours=30), timedelta(days=2, hours=3, minutes=7), timedelta(days=9)))  # fmt: skip
    model = chance.choice((None, *MODELS, "none"))
    minutes = chance.choice((None, 1, 10, 60, 1440, 10_080))
    since, until = min(since, until), max(since, until)
    mine = counting.within(calls, since, until)
    check_aggregate(aggregates.aggregate(connection, Asked(since, until, model, minutes)), mine, model)  # fmt: skip
    found = aggregates.by_user(connection, Asked(since, until, "a"))
    shown = [(u["user_id"], u["request_count"], u["total_tokens"], Decimal(str(u["total_cost"] or 0)), u["last_active_at"]) for u in found["users"]]  # fmt: skip
    assert shown == counting.users([call for call in mine if call.model == "a"])
    for ids in ((ALICE,), (BOB, CAROL)):
        for of, ends in ((mine, (since, until)), (calls, (None, None))):
            read = accounts.read(connection, Accounts(ids), *ends)
            rows = [(m["model"], m["request_count"], m["input_tokens"], m["output_tokens"], Decimal(m["cost"])) for m in read["by_model"]]  # fmt: skip
            assert rows == counting.usage(of, set(ids))
            assert Decimal(read["total_cost"]) == sum((row[4] for row in rows), Decimal(0))
    connection.rollback()


def check_aggregate(shown: dict[str, Any], calls: list[Any], model: str | None) -> None:
    of = calls if model is None else [call for call in calls if call.model == model]
    minutes = shown["time_series"][0]["duration_minutes"]
    assert shown["total_requests"] == len(of)
    assert [(s["status"], s["count"]) for s in shown["status_codes"]] == counting.statuses(of)
    if model is None:
        assert [(m["model"], m["count"]) for m in shown.get("models", [])] == counting.models(of)
    else:
        assert "models" not in shown
    assert_same(shown, counting.measures(of))
    points = counting.series(of, minutes)
    assert points.keys() <= {point["timestamp"] for point in shown["time_series"]}
    for point in shown["time_series"]:
        there = points.get(point["timestamp"], [])
        assert point["requests"] == len(there)
        assert_same(point, counting.measures(there))


def assert_same(shown: dict[str, Any], counted: dict[str, Any]) -> None:
    """Percentiles within their promise, everything else to the last digit."""
    for name, value in counted.items():
        if name.startswith("p") and value is not None:
            assert abs(shown[name] - value) <= max(0.05 * value, 1), (name, shown[name], value)
        else:
            assert shown[name] == value, name


def test_downloads_have_every_call_once(
    sql: Sql, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many pages, by everything that rows can be told apart by."""
    monkeypatch.setattr(exporting, "PAGE", 7)
    connections = app.extensions["dwctl.parts"].connections
    calls = counting.log(sql)
    now = datetime.now(UTC)
    whole = (now - timedelta(days=5), now + timedelta(minutes=1))
    everything = Wanted(*whole, by=("model", "user", "key", "status"), minutes=1440)
    rows = [row for page in exporting.pages(connections, everything) for row in page]
    assert sum(row["requests"] for row in rows) == len(calls) > 900
    assert sum(row["cost"] for row in rows) == sum(call.cost for call in calls)
    keys = [(row["timestamp"], row["model"], row["user_id"], row["api_key_id"], row["status_code"]) for row in rows]  # fmt: skip
    assert keys == sorted(set(keys))
    for one in (Wanted(*whole, by=("status",)), Wanted(*whole, by=("model",), one_point=True)):
        pages = list(exporting.pages(connections, one))
        assert sum(row["requests"] for page in pages for row in page) == len(calls)
    mine = Wanted(*whole, by=("key",), accounts=Accounts((ALICE,), (KEYS[0],)), succeeded=True)
    rows = [row for page in exporting.pages(connections, mine) for row in page]
    assert sum(row["requests"] for row in rows) == sum(
        call.user_id == ALICE and call.api_key_id == KEYS[0] and call.model != "" and call.status_code < 300
        for call in calls
    )  # fmt: skip
