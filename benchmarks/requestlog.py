"""What the request log costs: calls with and without bodies and headers in it, bytes for each, and how long dropping a day takes and holds up.

Three web processes with different settings are pressed in turns, so each ratio is one of the same minutes.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from benchmarks import measure, report
from benchmarks.client import Connection, request
from benchmarks.load import Load, chat, generator, press, send
from benchmarks.stage import Gunicorn, Stage
from benchmarks.upstream import Upstream
from dwctl import config
from dwctl.analytics import duties

ROUNDS = 5
SECONDS = 3
CONNECTIONS = 16
EXACT = 2000
ROWS = 1_000_000
CALLERS = 8
BODY = chat("plain")

WITHOUT = {"DWCTL_REQUEST_LOGGING__BODIES": "false"}
BODIES = {"DWCTL_REQUEST_LOGGING__BODIES": "true"}
HEADERS = BODIES | {"DWCTL_REQUEST_LOGGING__HEADERS": "all"}

_FILL = """
INSERT INTO http_analytics (request_id, timestamp, method, uri, model, status_code, duration_ms, duration_to_first_byte_ms, prompt_tokens,
    completion_tokens, total_tokens, usage_source, response_type, user_id, api_key_id, access_source, total_cost)
SELECT gen_random_uuid(), %(day)s::date + n * interval '86 milliseconds', 'POST', '/chat/completions', 'model-' || n %% 200, 200, n %% 5000, n %% 900,
       n %% 4000, n %% 900, n %% 4900, 'reported', 'chat_completion', md5((n %% 1000)::text)::uuid, md5((n %% 3000)::text)::uuid, 'api_key', 0.000123
  FROM generate_series(0, %(rows)s - 1) n
"""


def main() -> int:
    """Measure and print."""
    report.begin(
        "request log: what it costs, and dropping a day",
        f"request {len(BODY)} B, load by {generator()}",
    )
    with (
        Upstream() as upstream,
        Stage(upstream.url, {"plain": "plain"}, most_s=400) as stage,
        stage.connect() as database,
    ):
        webs = {
            "without bodies": stage.web(**WITHOUT),
            "with bodies": stage.web(**BODIES),
            "with bodies and all headers": stage.web(**HEADERS),
        }
        for name, web in webs.items():
            send(_url(web), BODY, CONNECTIONS, 500)
            report.figure(f"bytes a call, {name}", _bytes_a_call(database, web), "B", digits=0)
        _print_load(webs)
        _print_dropping(stage, database, webs["with bodies"])
    return report.exit_code()


def _bytes_a_call(database: psycopg.Connection[Any], web: Gunicorn) -> float:
    """In the database, with indexes; of the log row and, where there is one, of the call's own."""
    database.execute("VACUUM")
    before = measure.database_bytes(database)
    answered = send(_url(web), BODY, CONNECTIONS, EXACT)
    return (measure.database_bytes(database) - before) / answered.answers


def _print_load(webs: dict[str, Gunicorn]) -> None:
    rounds = [{name: _pressed(web) for name, web in webs.items()} for _ in range(ROUNDS)]
    for name in webs:
        per_s = statistics.median(one[name][0].per_s for one in rounds)
        report.figure(f"calls {name}", per_s, "/s", digits=0)
        cpu = statistics.median(one[name][1] for one in rounds)
        report.figure(f"CPU a call, web process, {name}", cpu, "ms", digits=3)
    without, *others = webs
    for name in others:
        cost = statistics.median(100 - 100 * one[name][0].per_s / one[without][0].per_s for one in rounds)  # fmt: skip
        report.at_most(f"throughput that it costs {name}", cost, "%", 25)


def _pressed(web: Gunicorn) -> tuple[Load, float]:
    """What was answered, and the CPU milliseconds that each took."""
    used = measure.cpu_s(web.pid)
    answered = press(_url(web), BODY, CONNECTIONS, SECONDS)
    return answered, (measure.cpu_s(web.pid) - used) * 1000 / answered.answers


# --- dropping a day


def _print_dropping(stage: Stage, database: psycopg.Connection[Any], web: Gunicorn) -> None:
    old = datetime.now(UTC).date() - timedelta(200)
    days = [old, old + timedelta(1)]
    for day in days:
        database.execute("SELECT make_log_partitions(%s, 1)", (day,))
        database.execute(_FILL, {"day": day, "rows": ROWS})
    database.execute("CHECKPOINT")
    (size,) = database.execute("SELECT pg_total_relation_size(%s::regclass)", (f"http_analytics_p{old:%Y%m%d}",)).fetchone() or (0,)  # fmt: skip
    report.figure(
        f"bytes a row of a day of {ROWS:,} rows, with indexes", size / ROWS, "B", digits=0
    )
    with _calling(web) as calls:
        time.sleep(2)
    report.figure("longest call meanwhile, nothing is dropped", 1000 * max(calls), "ms")
    with _calling(web) as calls:
        time.sleep(0.5)
        seconds = _drop(stage)
        time.sleep(0.5)
    report.below("dropping that day", seconds, "s", 1, digits=3)
    report.below("longest call meanwhile", 1000 * max(calls), "ms", 100)
    with _calling(web) as calls, stage.connect() as reader, reader.transaction():
        reader.execute("SELECT count(*) FROM http_analytics WHERE timestamp > now()")
        for _ in range(5):
            time.sleep(0.2)
            _drop(stage, turns=1)
    report.below(
        "longest call while a reader is in the way of dropping", 1000 * max(calls), "ms", 100
    )


def _drop(stage: Stage, turns: int = 2) -> float:
    """Both turns of the duty, each in its transaction; seconds."""
    began = time.monotonic()
    for _ in range(turns):
        with psycopg.connect(stage.url) as connection:
            duties.drop_partitions(connection, config.Settings())
    return time.monotonic() - began


@contextmanager
def _calling(web: Gunicorn) -> Iterator[list[float]]:
    """Calls from a few callers, one after the other, until the block ends; gives the seconds that each took."""
    seconds: list[float] = []
    over = threading.Event()

    async def caller() -> None:
        connection, message = await Connection.open(_url(web)), request(_url(web), BODY)
        while not over.is_set():
            seconds.append((await connection.call(message)).seconds)
        connection.close()

    async def callers() -> None:
        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    thread = threading.Thread(target=lambda: asyncio.run(callers()))
    thread.start()
    try:
        yield seconds
    finally:
        over.set()
        thread.join()


def _url(web: Gunicorn) -> str:
    return f"{web.url}/ai/v1/chat/completions"


if __name__ == "__main__":
    sys.exit(main())
