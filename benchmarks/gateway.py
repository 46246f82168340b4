"""A realtime chat call of 1 KB through one web process, with key check, tracking row, log row and charge: what it costs.

The measure is a bare WSGI hello under the same gunicorn settings, taken in turns in the same run.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import psycopg

from benchmarks import books, measure, report
from benchmarks.client import Connection, request
from benchmarks.load import Load, chat, generator, press, send
from benchmarks.stage import Gunicorn, Stage
from benchmarks.upstream import COMPLETION, Upstream

CONNECTIONS = (1, 16, 64)
ROUNDS = 3
HELLO_S = 1
GATEWAY_S = 3
EXACT = 1000
PAIRS = 300
BODY = chat("plain")


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of both. CPU in milliseconds a call."""

    hello: Load
    gateway: Load
    hello_before_ms: float
    hello_ms: float
    gateway_ms: float
    database_ms: float


def main() -> int:
    """Measure and print."""
    report.begin(
        "gateway: one web process against a bare WSGI hello",
        f"request {len(BODY)} B, answer {len(COMPLETION)} B, load by {generator()}",
    )
    with Upstream() as upstream, Stage(upstream.url, {"plain": "plain"}) as stage:
        web, hello, hello_before = stage.web(), stage.hello(), stage.hello_before()
        report.below("memory of an idle web process", _mib(web), "MiB", 120)
        _print_latency(web, upstream)
        send(_url(web), BODY, 16, 500)
        with stage.connect() as database:
            seen = _under_load(stage, web, hello, hello_before, upstream, database)
            exact = send(_url(web), BODY, 64, EXACT)
            report.proven(
                "answers of a last round, each looked at",
                holds=exact.answers == EXACT,
                what=f"{exact.answers:,} of {EXACT:,}",
            )
            books.check(books.Books.read(database) - seen, exact.answers, "these answers")
    return report.exit_code()


def _under_load(
    stage: Stage,
    web: Gunicorn,
    hello: Gunicorn,
    hello_before: Gunicorn,
    upstream: Upstream,
    database: psycopg.Connection[Any],
) -> books.Books:
    """All rounds, and what the database has of them."""
    database.execute("CHECKPOINT")
    size, log = measure.database_bytes(database), measure.wal_position(database)
    before = counted = books.Books.read(database).tracked
    for connections in CONNECTIONS:
        rounds = [_round(stage, web, hello, hello_before, connections) for _ in range(ROUNDS)]
        counted += sum(r.gateway.answers for r in rounds)
        _print(connections, rounds)
    time.sleep(1)  # for the calls that were cut off: their rows come after the load
    seen = books.Books.read(database)
    calls = seen.tracked - before
    grown, written = measure.database_bytes(database) - size, measure.wal_position(database) - log
    report.figure("bytes in the database a call, with indexes", grown / calls, "B", digits=0)
    report.figure("write-ahead log a call", written / calls, "B", digits=0)
    # Those that did not come through the gateway are the benchmark's own.
    _prove(seen, counted, len(upstream.calls()) - PAIRS)
    return seen


def _print_latency(web: Gunicorn, upstream: Upstream) -> None:
    direct, through = asyncio.run(_in_turns(f"{upstream.url}/chat/completions", _url(web)))
    report.figure("p50 at one connection, upstream alone", direct, "ms", digits=2)
    report.below("p50 that the gateway adds", through - direct, "ms", 2, digits=2)


async def _in_turns(*urls: str) -> list[float]:
    """The median of each in milliseconds: one call to each in turn, so that both see the same machine."""
    connections = [(await Connection.open(url), request(url, BODY)) for url in urls]
    times: list[list[float]] = [[] for _ in urls]
    for _ in range(PAIRS):
        for (connection, message), taken in zip(connections, times, strict=True):
            taken.append((await connection.call(message)).seconds * 1000)
    return [statistics.median(taken) for taken in times]


def _round(
    stage: Stage, web: Gunicorn, hello: Gunicorn, hello_before: Gunicorn, connections: int
) -> Round:
    used = measure.cpu_s(hello_before.pid)
    before = press(hello_before.url + "/", BODY, connections, HELLO_S)
    before_s = measure.cpu_s(hello_before.pid) - used
    used = measure.cpu_s(hello.pid)
    greeted = press(hello.url + "/", BODY, connections, HELLO_S)
    hello_s = measure.cpu_s(hello.pid) - used
    used, database = measure.cpu_s(web.pid), measure.family_cpu_s(stage.postmaster)
    answered = press(_url(web), BODY, connections, GATEWAY_S)
    gateway_s = measure.cpu_s(web.pid) - used
    database_s = measure.family_cpu_s(stage.postmaster) - database
    return Round(
        hello=greeted,
        gateway=answered,
        hello_before_ms=before_s * 1000 / before.answers,
        hello_ms=hello_s * 1000 / greeted.answers,
        gateway_ms=gateway_s * 1000 / answered.answers,
        database_ms=database_s * 1000 / answered.answers,
    )


def _print(connections: int, rounds: list[Round]) -> None:
    """Medians over the rounds; the ratio is taken within each."""
    many = f"at {connections} connections" if connections > 1 else "at 1 connection"
    report.figure(f"hello {many}", _median([r.hello.per_s for r in rounds]), "/s", digits=0)
    report.figure(f"gateway {many}", _median([r.gateway.per_s for r in rounds]), "/s", digits=0)
    share = _median([100 * r.gateway.per_s / r.hello.per_s for r in rounds])
    report.at_least(f"gateway / hello {many}", share, "%", 25)
    share = _median([100 * r.hello_ms / r.gateway_ms for r in rounds])
    report.at_least(f"the same by CPU time of the web process {many}", share, "%", 25)
    web, database = (
        _median([r.gateway_ms for r in rounds]),
        _median([r.database_ms for r in rounds]),
    )
    greeting = _median([r.hello_ms for r in rounds])
    before = _median([r.hello_before_ms for r in rounds])
    report.figure(
        f"CPU a call, hello, gunicorn's own gevent worker, {many}", before, "ms", digits=3
    )
    report.figure(f"CPU a call, hello, {many}", greeting, "ms", digits=3)
    report.figure(f"web process / hello of gunicorn's own, by CPU, {many}", web / before, "x")
    report.figure(f"CPU a call, web process, {many}", web, "ms", digits=3)
    report.at_most(f"CPU a call, PostgreSQL, {many}", database, "ms", round(web, 3), digits=3)
    report.figure(f"p99 {many}", _median([r.gateway.p99_ms for r in rounds]), "ms")
    faults = sum(r.hello.faults + r.gateway.faults for r in rounds)
    report.proven(f"no faults {many}", holds=not faults, what=f"{faults}")
    shares = [load.share for r in rounds for load in (r.hello, r.gateway) if load.share is not None]
    if shares:
        report.figure(f"core taken by the load generator {many}", 100 * _median(shares), "%")


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _prove(seen: books.Books, counted: int, upstream_calls: int) -> None:
    """wrk hangs up in the middle of calls when its time is over: those have rows too, as answered or as left by their caller."""
    report.proven(
        "tracking rows = calls that reached the upstream",
        holds=seen.tracked == upstream_calls,
        what=f"{seen.tracked:,} = {upstream_calls:,}",
    )
    cut = ROUNDS * sum(CONNECTIONS)
    report.proven(
        "charged rows = answers (and those cut off by wrk)",
        holds=seen.completed == seen.charged and counted <= seen.charged <= counted + cut,
        what=f"{seen.charged:,} = {counted:,} + {seen.charged - counted}",
    )
    books.check_money(seen)


def _url(web: Gunicorn) -> str:
    return f"{web.url}/ai/v1/chat/completions"


def _mib(process: Gunicorn) -> float:
    return measure.rss_bytes(process.pid) / 1024 / 1024


if __name__ == "__main__":
    sys.exit(main())
