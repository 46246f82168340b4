"""Reading sums of ten million calls: every endpoint of analytics, what folding does, and what a call pays for it.

`python -m benchmarks.analytics [calls]`. The log is that of `logged`; its sums are made by SQL, as folding would have left them (minutes of the last
week, hours and days). The log is never read.
"""

from __future__ import annotations

import hashlib
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import quantiles
from typing import Any
from uuid import UUID, uuid4

import psycopg
import requests

from benchmarks import logged, measure, report
from benchmarks.stage import Stage
from benchmarks.upstream import Upstream
from dwctl.analytics import writing
from dwctl.analytics.records import Record, line
from dwctl.analytics.writing import QUERIES
from dwctl.clock import uuid7
from dwctl.usage import folding

CALLS = 10_000_000
ROUNDS = 40
MOST_MS = 200
WAITING = 500
"""Deltas that have not been added when the endpoints are read: some seconds of a busy site."""

_COUNTED = "prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, total_tokens, cost, duration_ms"
_SUMS = ", ".join(f"sum({column})" for column in _COUNTED.split(", "))
# In the order of time, as folding adds them: who reads a day then finds it together. Hours and minutes are counted from the log, days and all time from what is finer.
_LOGGED = """
(SELECT 1 AS calls, %(grain)s AS grain, date_bin(make_interval(secs => %(grain)s), timestamp, 'epoch') AS bucket, timestamp AS last_at, user_id, api_key_id, model, status_code,
        prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, total_tokens, coalesce(total_cost, 0) AS cost, duration_ms, duration_to_first_byte_ms AS ttfb
   FROM http_analytics WHERE timestamp >= %(since)s) r
"""
_FINER = """
(SELECT *, CASE WHEN %(grain)s = 0 THEN 'epoch' ELSE date_bin(make_interval(secs => %(grain)s), bucket, 'epoch') END AS wider FROM {table} WHERE grain = %(finer)s) r
"""
_ACCOUNTS = f"""
INSERT INTO account_rollups (user_id, grain, bucket, model, api_key_id, status_code, calls, {_COUNTED}, last_at)
SELECT user_id, %(grain)s, {{bucket}}, model, api_key_id, status_code, sum(calls), {_SUMS}, max(last_at) FROM {{rows}} GROUP BY 1, 3, 4, 5, 6 ORDER BY 3
"""
_MODELS = f"""
INSERT INTO model_rollups (of_all, model, grain, bucket, status_code, calls, {_COUNTED}, ttfb_ms, timed, last_at)
SELECT false, model, %(grain)s, {{bucket}}, status_code, sum(calls), {_SUMS}, {{times}}, max(last_at) FROM {{rows}} GROUP BY 2, 4, 5 ORDER BY 4
"""
_TIMES = """
INSERT INTO latency_histograms (of_all, model, grain, bucket, durations, ttfbs)
SELECT false, model, grain, bucket, sum(latency_histogram(duration_ms, 1)), sum(latency_histogram(ttfb, 1)) FROM {rows} GROUP BY 2, 3, 4 ORDER BY 4
"""
_WIDER_TIMES = """
INSERT INTO latency_histograms (of_all, model, grain, bucket, durations, ttfbs)
SELECT false, model, %(grain)s, wider, sum(durations), sum(ttfbs) FROM {rows} WHERE %(grain)s > 0 GROUP BY 2, 4 ORDER BY 4
"""
_TIMES_OF_ALL = """
INSERT INTO latency_histograms (of_all, model, grain, bucket, durations, ttfbs)
SELECT true, '', grain, bucket, sum(durations), sum(ttfbs) FROM latency_histograms GROUP BY 3, 4 ORDER BY 4
"""
_MODELS_OF_ALL = f"""
INSERT INTO model_rollups (of_all, model, grain, bucket, status_code, calls, {_COUNTED}, ttfb_ms, timed, last_at)
SELECT true, '', grain, bucket, status_code, sum(calls), {_SUMS}, sum(ttfb_ms), sum(timed), max(last_at) FROM model_rollups GROUP BY 3, 4, 5 ORDER BY 4
"""
_CALLERS = f"""
INSERT INTO caller_rollups (user_id, grain, bucket, api_key_id, calls, errors, {_COUNTED})
SELECT user_id, grain, bucket, api_key_id, sum(calls), coalesce(sum(calls) FILTER (WHERE status_code NOT BETWEEN 200 AND 299), 0), {_SUMS}
  FROM account_rollups WHERE grain > 0 GROUP BY 1, 2, 3, 4 ORDER BY 3
"""
_TABLES = ("account_rollups", "caller_rollups", "model_rollups", "latency_histograms")
_FOLDED = ("account_rollups", "model_rollups", "latency_histograms")
# Everybody is in one of twenty groups, and in one of all.
_GROUPS = """
WITH made AS (
    INSERT INTO groups (name, created_by) SELECT 'group ' || n, (SELECT id FROM users WHERE username = 'benchmark') FROM generate_series(0, 20) n RETURNING id, name
)
INSERT INTO user_groups (user_id, group_id)
SELECT md5('account ' || n)::uuid, id FROM generate_series(0, %(users)s - 1) n JOIN made ON name IN ('group ' || n %% 20, 'group 20')
"""
_DELTAS = """
INSERT INTO usage_deltas (at, model, user_id, api_key_id, status_code, calls, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens,
                          total_tokens, cost, duration_ms, ttfb_ms)
SELECT now() - random() * interval '10 seconds', 'model-' || floor(200 * power(random(), 3)), md5('account ' || account)::uuid, md5('key ' || account)::uuid,
       CASE WHEN n %% 50 = 0 THEN 502 ELSE 200 END, 1, 100, 50, 0, 0, 150, 0.0002, (20 + 20000 * power(random(), 5))::int, 30
  FROM (SELECT n, floor(1000 * power(random(), 4))::int AS account FROM generate_series(1, %(deltas)s) n OFFSET 0) n
"""


def main() -> int:
    """Print the figures."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    report.begin(f"Analytics over {calls:,} calls")
    server = {"maintenance_work_mem": "256MB", "work_mem": "64MB", "max_wal_size": "4GB"}
    models = {f"model-{n}": "instant" for n in range(100)}
    with Upstream() as upstream, Stage(upstream.url, models, most_s=3600, postgres=server) as stage:
        with stage.connect() as connection:
            seconds = logged.fill(connection, calls, with_bodies=0)
            logged.report_log(connection, seconds)
            make_sums(connection, calls)
            connection.execute(_GROUPS, {"users": logged.USERS})
            _record(connection)
            _fold(connection)
            connection.execute(_DELTAS, {"deltas": WAITING})
            connection.execute("UPDATE users SET is_admin = true WHERE username = 'benchmark'")
        web = stage.web(DWCTL_AUTH__PROXY_HEADER__ENABLED="true")
        _read(web.url, web.pid, stage.postmaster)
    return report.exit_code()


def make_sums(connection: psycopg.Connection[Any], calls: int) -> None:
    """The roll-ups of the log as it stands, and what they took."""
    began = time.monotonic()
    week = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=7)
    connection.execute("UPDATE rollup_grains SET since = %s WHERE grain = 60", (week,))
    connection.execute("ALTER TABLE account_rollups DISABLE TRIGGER USER")
    indexes = connection.execute("SELECT indexdef FROM pg_indexes WHERE tablename = ANY (%s)", (list(_TABLES),)).fetchall()  # fmt: skip
    for table in _TABLES:
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")  # type: ignore[arg-type]
    for name in ("account_rollups_model_callers", "account_rollups_grain", "caller_rollups_grain", "caller_rollups_key", "model_rollups_grain", "latency_histograms_grain"):  # fmt: skip
        connection.execute(f"DROP INDEX {name}_idx")  # type: ignore[arg-type]
    for grain, since in ((3600, "-infinity"), (60, week)):
        parts = {"bucket": "bucket", "rows": _LOGGED, "times": "coalesce(sum(ttfb), 0), count(ttfb)"}  # fmt: skip
        for statement in (_ACCOUNTS, _MODELS, _TIMES):
            _run(connection, statement, parts, grain=grain, since=since)
    for grain, finer in ((86400, 3600), (0, 86400)):
        for statement, table in zip((_ACCOUNTS, _MODELS, _WIDER_TIMES), _FOLDED, strict=True):
            parts = {"bucket": "wider", "rows": _FINER.format(table=table), "times": "sum(ttfb_ms), sum(timed)"}  # fmt: skip
            _run(connection, statement, parts, grain=grain, finer=finer)
    connection.execute(_CALLERS)
    connection.execute("ALTER TABLE account_rollups ENABLE TRIGGER USER")
    connection.execute(_MODELS_OF_ALL)
    connection.execute(_TIMES_OF_ALL)
    for (index,) in indexes:
        connection.execute(index)
    connection.execute(f"VACUUM ANALYZE {', '.join(_TABLES)}")  # type: ignore[arg-type]
    report.figure("sums made by SQL in", time.monotonic() - began, "s")
    for table in _TABLES:
        rows, size = connection.execute(f"SELECT count(*), pg_total_relation_size('{table}') FROM {table}").fetchone() or (0, 0)  # type: ignore[arg-type]  # fmt: skip
        report.figure(f"{table}: rows", rows, "rows", digits=0)
        report.figure(f"{table}: bytes for each call", size / calls, "B")


def _run(
    connection: psycopg.Connection[Any], statement: str, parts: dict[str, str], **values: Any
) -> None:
    connection.execute(statement.format(**parts), values)  # type: ignore[call-overload]


def _record(connection: psycopg.Connection[Any]) -> None:
    """The recorder's statement for calls that are not tracked: log row, delta, charge, balance."""
    for group in (1, 32):
        times = []
        for _ in range(200):
            lines = [line(_made()) for _ in range(group)]
            began = time.perf_counter()
            writing.raw(connection).execute(QUERIES["record_born_final"], (writing._Array(lines),))
            times.append((time.perf_counter() - began) * 1000)
        report.figure(f"recorder's statement, {group} calls: p50", quantiles(times, n=100)[49], "ms", digits=2)  # fmt: skip


def _made() -> Record:
    now = datetime.now(UTC)
    return Record(
        id=uuid7(),
        at=now,
        ended_at=now,
        track=False,
        opened=False,
        queued=False,
        notify=False,
        method="POST",
        uri="/chat/completions",
        status_code=200,
        duration_ms=100,
        ttfb_ms=30,
        prompt_tokens=100,
        completion_tokens=50,
        reasoning_tokens=0,
        cached_tokens=0,
        total_tokens=150,
        usage_source="reported",
        response_type="chat_completion",
        access_source="api_key",
        origin="api",
        sla="",
        user_id=uuid4(),
        api_key_id=uuid4(),
        model="model-1",
        cost=Decimal("0.0002"),
    )


def _fold(connection: psycopg.Connection[Any]) -> None:
    with connection.transaction():
        folding.fold(connection, 100_000)
    connection.execute(_DELTAS, {"deltas": 20_000})
    began = time.monotonic()
    folded = 0
    while True:
        with connection.transaction():
            some = folding.fold(connection, 2000)
        if not some:
            break
        folded += some
    report.at_least("deltas folded a second", folded / (time.monotonic() - began), "/s", 1000, digits=0)  # fmt: skip


def _read(url: str, web: int, postmaster: int) -> None:
    """All endpoints in turns, so that what else the machine does meets all of them."""
    now = datetime.now(UTC)

    def ago(days: float) -> str:
        return (now - timedelta(days=days)).isoformat().replace("+00:00", "Z")

    busiest, key = _of("account 0"), _of("key 0")
    month, week = f"start_date={ago(30)}", f"start_date={ago(7)}"
    paths = {
        "aggregate, a day": "/requests/aggregate",
        "aggregate, a day, one model": "/requests/aggregate?model=model-0",
        "aggregate, three hours by minute": f"/requests/aggregate?timestamp_after={ago(0.125)}&duration_minutes=1",
        "aggregate, a week by hour": f"/requests/aggregate?timestamp_after={ago(7)}",
        "aggregate, thirty days": f"/requests/aggregate?timestamp_after={ago(30)}",
        "aggregate, thirty days by hour": f"/requests/aggregate?timestamp_after={ago(29)}&duration_minutes=60",
        "by model, thirty days by day": f"/requests/breakdown?{month}&duration_minutes=1440&compare=true",
        "told apart by model, thirty days": f"/requests/breakdown?by=model&{month}&compare=true",
        "told apart by user, thirty days": f"/requests/breakdown?by=user&{month}&compare=true",
        "told apart by key, thirty days": f"/requests/breakdown?by=key&{month}&compare=true",
        "told apart by group, thirty days": f"/requests/breakdown?by=group&{month}&compare=true",
        "told apart by group, thirty days of Los Angeles": f"/requests/breakdown?by=group&{month}&duration_minutes=1440&time_zone=America/Los_Angeles",
        "told apart by group, a week by hour": f"/requests/breakdown?by=group&{week}&duration_minutes=60",
        "told apart by user, thirty days of Kathmandu": f"/requests/breakdown?by=user&{month}&duration_minutes=1440&time_zone=Asia/Kathmandu",
        "told apart by user, a week": f"/requests/breakdown?by=user&{week}&compare=true",
        "told apart by user, a day by five minutes": f"/requests/breakdown?by=user&start_date={ago(1)}&duration_minutes=5",
        "told apart by user, three days by a quarter of an hour": f"/requests/breakdown?by=user&start_date={ago(3.3)}&duration_minutes=15",
        "told apart by user, one model, thirty days": f"/requests/breakdown?by=user&model=model-0&{month}&compare=true",
        "told apart by model, busiest key, thirty days": f"/requests/breakdown?by=model&api_key_id={key}&{month}&compare=true",
        "told apart by status, busiest key, thirty days": f"/requests/breakdown?by=status&api_key_id={key}&{month}&compare=true",
        "told apart by status, busiest key, three days by a quarter of an hour": f"/requests/breakdown?by=status&api_key_id={key}&start_date={ago(3.3)}&duration_minutes=15",
        "by user, a day": "/requests/aggregate-by-user?model=model-0",
        "by user, thirty days": f"/requests/aggregate-by-user?model=model-0&start_date={ago(30)}",
        "usage of all time, busiest account": f"/usage?user_id={busiest}",
        "usage of a month, busiest account": f"/usage?user_id={busiest}&start_date={ago(29)}",
        "usage of a day, busiest account": f"/usage?user_id={busiest}&start_date={ago(1)}",
        "a month by key, busiest account": f"/usage/breakdown?user_id={busiest}&by=key&start_date={ago(29)}",
        "a month by model, busiest account": f"/usage/breakdown?user_id={busiest}&by=model&start_date={ago(29)}&compare=true",
        "a month by status, busiest account": f"/usage/breakdown?user_id={busiest}&by=status&start_date={ago(29)}&compare=true",
        "models with metrics": "/models?include=metrics&limit=100",
    }
    session = requests.Session()
    session.headers.update({"x-doubleword-user": "benchmark", "x-doubleword-email": "benchmark@example.com"})  # fmt: skip
    seen: dict[str, list[float]] = {name: [] for name in paths}
    used = dict.fromkeys(paths, 0.0)
    for _ in range(ROUNDS):
        for name, path in paths.items():
            before = measure.cpu_s(web) + measure.family_cpu_s(postmaster)
            began = time.perf_counter()
            answer = session.get(f"{url}/admin/api/v1{path}")
            seen[name].append((time.perf_counter() - began) * 1000)
            now_used = measure.cpu_s(web) + measure.family_cpu_s(postmaster)
            used[name] += (now_used - before) * 1000 / ROUNDS
            if answer.status_code != 200:
                raise SystemExit(f"{path}: {answer.status_code} {answer.text[:500]}")
    for name, times in seen.items():
        report.figure(f"{name}: CPU of web and database", used[name], "ms")
        report.figure(f"{name}: p50", quantiles(times, n=100)[49], "ms")
        report.below(f"{name}: p95", quantiles(times, n=100)[94], "ms", MOST_MS)
    for name, path in {"by model": "?by=model", "by model, user, key, status": "?by=model,user,key,status"}.items():  # fmt: skip
        began, rows = time.perf_counter(), 0
        with session.get(f"{url}/admin/api/v1/requests/aggregate/export{path}&timestamp_after={ago(2)}&duration_minutes=1440", stream=True) as answer:  # fmt: skip
            rows = sum(1 for _ in answer.iter_lines())
        report.figure(f"download of two days {name}", rows / (time.perf_counter() - began), "rows/s", digits=0)  # fmt: skip


def _of(name: str) -> str:
    """Account 0 of `logged` is the busiest, and so is its key."""
    return str(UUID(hashlib.md5(name.encode()).hexdigest()))


if __name__ == "__main__":
    sys.exit(main())
