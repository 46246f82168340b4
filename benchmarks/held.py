"""Flex calls held by one web process while no worker is there: memory each, and how fast each wakes when its row is completed in SQL.

First with notifications, as workers send them; then without any, as after a change by hand: the sweep finds those.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg

from benchmarks import measure, report
from benchmarks.client import Answer, Connection, Lost, request
from benchmarks.load import press
from benchmarks.stage import Gunicorn, Stage
from benchmarks.upstream import COMPLETION, Upstream

MANY = 5000
AT_ONCE = 250
WARM_UP = 200
SINGLE = 300
A_NOTIFICATION_HOLDS = 150
PATIENCE_S = 20
SETTINGS = {
    "DWCTL_RESPONSES__HELD_MAX_PER_OWNER": str(2 * MANY),
    # Rows that this program completes by hand stay in the line of those that wait.
    "DWCTL_LIMITS__ACCOUNT__QUEUED": "0",
    # Later than this program ends: each answer's status then tells how its request ended.
    "DWCTL_RESPONSES__KEEPALIVE": "120s",
}
BODY = json.dumps(
    {
        "model": "plain",
        "messages": [{"role": "user", "content": "Take your time. " * 40}],
        "service_tier": "flex",
    }
).encode()

_COMPLETE = """
WITH done AS (
    UPDATE fusillade.requests
       SET state = 'completed', response_status = 200, response_body = %(answer)s, completed_at = now(), updated_at = now()
     WHERE id = ANY (%(ids)s)
    RETURNING id
), pages AS (
    SELECT string_agg(id::text, ',') AS ids
      FROM (SELECT id, row_number() OVER () / %(page)s AS page FROM done) numbered GROUP BY page
), told AS (
    SELECT pg_notify('fusillade_done', ids) FROM pages WHERE %(tell)s
)
SELECT (SELECT count(*) FROM done), (SELECT count(*) FROM told)
"""


def main() -> int:
    """Measure and print."""
    report.begin("held: flex calls that wait in one web process", f"{MANY:,} at once, no worker")
    with Upstream() as upstream, Stage(upstream.url, {"plain": "plain"}) as stage:
        web, hello = stage.web(**SETTINGS), stage.hello()
        with stage.connect() as database:
            asyncio.run(_measure(web, database))
        report.figure(
            f"{MANY:,} answers of a bare hello, for comparison",
            MANY / press(hello.url + "/", BODY, 64, 2).per_s,
            "s",
            digits=2,
        )
    return report.exit_code()


async def _measure(web: Gunicorn, database: psycopg.Connection[Any]) -> None:
    await _wave(web, database, WARM_UP)
    before = measure.rss_bytes(web.pid)
    held = await Held.begin(web, database, MANY)
    each = (measure.rss_bytes(web.pid) - before) / MANY
    report.below("memory a held call", each / 1024, "KiB", 25)
    await _idle(web)
    await _wake_singly(held, database)
    update_s, last_s = await _wake_all(held, database, tell=True)
    report.figure(
        f"one UPDATE of all others, {len(held.tasks) - SINGLE:,} rows", update_s, "s", digits=2
    )
    report.at_most("from its commit to the last answer, notified", last_s, "s", 1, digits=2)
    _prove(held)
    after = measure.rss_bytes(web.pid)
    swept = await Held.begin(web, database, MANY)
    _, last_s = await _wake_all(swept, database, tell=False)
    report.at_most("the same without notifications (a sweep each second)", last_s, "s", 2, digits=2)
    _prove(swept)
    again = measure.rss_bytes(web.pid)
    report.at_most(
        f"memory after these, above that after the first {MANY:,}",
        100 * (again / after - 1),
        "%",
        5,
    )


class Held:
    """Calls that wait. `ended`: when each answer came, in that order."""

    def __init__(self) -> None:
        self.answers: list[Answer | None] = []
        self.ended: list[float] = []
        self.tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def begin(cls, web: Gunicorn, database: psycopg.Connection[Any], count: int) -> Held:
        """Make the calls, and wait until each has its row."""
        held = cls()
        message = request(f"{web.url}/ai/v1/chat/completions", BODY)
        for start in range(0, count, AT_ONCE):
            some = min(AT_ONCE, count - start)
            held.tasks += [asyncio.create_task(held._call(web.url, message)) for _ in range(some)]
            await held._until(lambda: len(_pending(database)) >= len(held.tasks))
        return held

    async def wait_for(self, answers: int) -> None:
        """Until so many have come."""
        await self._until(lambda: len(self.ended) >= answers, every_s=0.0002)

    async def _call(self, url: str, message: bytes) -> None:
        connection = await Connection.open(url)
        try:
            answer = await connection.call(message)
        except Lost:
            self.answers.append(None)
        else:
            self.answers.append(answer)
            self.ended.append(answer.ended)
        connection.close()

    async def _until(self, reached: Callable[[], bool], every_s: float = 0.02) -> None:
        until = time.monotonic() + PATIENCE_S
        while not reached():
            if time.monotonic() > until:
                raise SystemExit(f"{len(self.ended)} of {len(self.tasks)} answered, and no more")
            await asyncio.sleep(every_s)


async def _wave(web: Gunicorn, database: psycopg.Connection[Any], count: int) -> None:
    """Everything that is made once has been made after this."""
    held = await Held.begin(web, database, count)
    await _wake_all(held, database, tell=True)


async def _idle(web: Gunicorn) -> None:
    used, began = measure.cpu_s(web.pid), time.monotonic()
    await asyncio.sleep(2)
    share = (measure.cpu_s(web.pid) - used) / (time.monotonic() - began)
    report.figure("core taken while all are waiting", 100 * share, "%")


async def _wake_singly(held: Held, database: psycopg.Connection[Any]) -> None:
    """From the UPDATE being sent to the answer."""
    times = []
    for id in _pending(database)[:SINGLE]:
        began, known = time.monotonic(), len(held.ended)
        _complete(database, [id], tell=True)
        await held.wait_for(known + 1)
        times.append((held.ended[-1] - began) * 1000)
        await asyncio.sleep(0.005)
    times.sort()
    report.figure("one wake, UPDATE and commit included, p50", times[SINGLE // 2], "ms")
    report.below("one wake, p99", times[SINGLE * 99 // 100], "ms", 50)


async def _wake_all(
    held: Held, database: psycopg.Connection[Any], *, tell: bool
) -> tuple[float, float]:
    """Seconds for the UPDATE, and from its commit to the last answer."""
    ids = _pending(database)
    began = time.monotonic()
    await asyncio.to_thread(_complete, database, ids, tell=tell)
    committed = time.monotonic()
    await held.wait_for(len(held.tasks))
    return committed - began, max(held.ended) - committed


def _prove(held: Held) -> None:
    right = sum(
        1 for a in held.answers if a is not None and a.status == 200 and a.raw == COMPLETION
    )
    total = len(held.tasks)
    report.proven("none lost", holds=right == total, what=f"{right:,} of {total:,} answered")


def _pending(database: psycopg.Connection[Any]) -> list[UUID]:
    rows = database.execute("SELECT id FROM fusillade.requests WHERE state = 'pending'").fetchall()
    return [id for (id,) in rows]


def _complete(database: psycopg.Connection[Any], ids: list[UUID], *, tell: bool) -> None:
    values = {"answer": COMPLETION.decode(), "page": A_NOTIFICATION_HOLDS}
    database.execute(_COMPLETE, {"ids": ids, "tell": tell} | values)


if __name__ == "__main__":
    sys.exit(main())
