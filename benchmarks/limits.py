"""What a limit adds to a realtime call, beside the same call without one: the rate of a model, and its rate with places and LLM tokens.

All calls ask for one model, so that they meet in one row: the worst case. Taken in turns, on one web process, and on two of them.
"""

from __future__ import annotations

import asyncio
import statistics
import sys

from benchmarks import measure, report
from benchmarks.client import Connection, request
from benchmarks.load import Load, chat, generator, press
from benchmarks.stage import Gunicorn, Stage
from benchmarks.upstream import Upstream

CONNECTIONS = (1, 16, 64)
ROUNDS = 2
LOAD_S = 1
PAIRS = 200
PLAIN, RATED, ALL = KINDS = ("plain", "rated", "all")
WHAT = {PLAIN: "no limit", RATED: "a rate", ALL: "rate, places, tokens"}
_LIMITS = {
    RATED: "requests_per_second = 1e6",
    ALL: "requests_per_second = 1e6, capacity = 100000, tokens_per_minute = 2000000000",
}


def main() -> int:
    """Measure and print."""
    report.begin("limits: a limited call beside an unlimited one", f"load by {generator()}")
    with Upstream() as upstream, Stage(upstream.url, dict.fromkeys(KINDS, "plain")) as stage:
        with stage.connect() as database:
            for alias, limits in _LIMITS.items():
                database.execute(f"UPDATE deployed_models SET {limits} WHERE alias = '{alias}'")  # type: ignore[arg-type]
        web, other = stage.web(), stage.web()
        _print_latency(web)
        for connections in CONNECTIONS:
            _print_load(stage, web, connections)
        _print_two(web, other)
        with stage.connect() as database:
            held = database.execute("SELECT count(*) FROM limit_holds").fetchone()
            report.proven("nothing is held any more", holds=held == (0,), what=f"{held}")
    return report.exit_code()


def _print_latency(web: Gunicorn) -> None:
    medians = asyncio.run(_in_turns(web))
    plain = medians[PLAIN]
    report.figure("p50 at one connection, no limit", plain, "ms", digits=2)
    for kind in (RATED, ALL):
        name = f"p50 that is added at one connection by {WHAT[kind]}"
        report.at_most(name, medians[kind] - plain, "ms", 1, digits=2)


async def _in_turns(web: Gunicorn) -> dict[str, float]:
    """The median of each kind in milliseconds: one call of each in turn, so that all see the same machine."""
    connection = await Connection.open(_url(web))
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(PAIRS):
        for kind, taken in times.items():
            message = request(_url(web), chat(kind))
            taken.append((await connection.call(message)).seconds * 1000)
    return {kind: statistics.median(taken) for kind, taken in times.items()}


def _print_load(stage: Stage, web: Gunicorn, connections: int) -> None:
    many = f"at {connections} connections" if connections > 1 else "at 1 connection"
    loads: dict[str, list[Load]] = {kind: [] for kind in KINDS}
    cpu: dict[str, list[float]] = {kind: [] for kind in KINDS}
    database: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(ROUNDS):
        for kind in KINDS:
            used, of_database = measure.cpu_s(web.pid), measure.family_cpu_s(stage.postmaster)
            load = press(_url(web), chat(kind), connections, LOAD_S)
            loads[kind].append(load)
            cpu[kind].append((measure.cpu_s(web.pid) - used) * 1000 / load.answers)
            of_database = measure.family_cpu_s(stage.postmaster) - of_database
            database[kind].append(of_database * 1000 / load.answers)
    for kind in KINDS:
        report.figure(
            f"{WHAT[kind]}, {many}", statistics.median(x.per_s for x in loads[kind]), "/s", digits=0
        )
        report.figure(
            f"{WHAT[kind]}, CPU a call, web process", statistics.median(cpu[kind]), "ms", digits=3
        )
        report.figure(
            f"{WHAT[kind]}, CPU a call, PostgreSQL",
            statistics.median(database[kind]),
            "ms",
            digits=3,
        )
    for kind in (RATED, ALL):
        shares = [a.per_s / b.per_s for a, b in zip(loads[kind], loads[PLAIN], strict=True)]
        share = 100 * statistics.median(shares)
        report.figure(f"with {WHAT[kind]} / without {many}", share, "%")
        added = statistics.median(
            a.p50_ms - b.p50_ms for a, b in zip(loads[kind], loads[PLAIN], strict=True)
        )
        report.figure(f"p50 that is added by {WHAT[kind]} {many}", added, "ms", digits=2)
    faults = sum(load.faults for kind in KINDS for load in loads[kind])
    report.proven(f"no faults {many}", holds=not faults, what=f"{faults}")


def _print_two(web: Gunicorn, other: Gunicorn) -> None:
    """Two processes that meet in one row."""
    for kind in KINDS:
        both = asyncio.run(_both(web, other, kind))
        report.figure(f"{WHAT[kind]}, 2 processes, 32 connections each", both, "/s", digits=0)


async def _both(web: Gunicorn, other: Gunicorn, kind: str) -> float:
    loads = await asyncio.gather(
        *(asyncio.to_thread(press, _url(one), chat(kind), 32, LOAD_S) for one in (web, other))
    )
    return sum(load.per_s for load in loads)


def _url(web: Gunicorn) -> str:
    return f"{web.url}/ai/v1/chat/completions"


if __name__ == "__main__":
    sys.exit(main())
