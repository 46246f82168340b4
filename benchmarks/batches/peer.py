"""Beside a queue in PostgreSQL that people trust (procrastinate), in the same run, on the same database server: its jobs do nothing, ours
call an upstream, record and charge.

It is installed for the run, into a temporary environment, from the package index that pip knows; without one this part says so and ends.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import psycopg

from benchmarks.batches import lines
from benchmarks.batches.run import AT_ONCE, CONCURRENCY
from benchmarks.stage import Stage
from benchmarks.upstream import Upstream

PEER = "procrastinate==3.10.0"
COUNT = 10_000
_PATIENCE_S = 120

_PROGRAM = """
import asyncio, logging, sys, time
import procrastinate

logging.disable(logging.CRITICAL)
url, count, at_once = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))

@app.task(name="nothing")
async def nothing(text):
    pass

async def main():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for _ in range(count // 1000):
            await nothing.batch_defer_async(*[{"text": "x" * 1000} for _ in range(1000)])
        await app.connector.execute_query_async("ANALYZE")
        began = time.monotonic()
        await app.run_worker_async(concurrency=at_once, wait=False, install_signal_handlers=False, listen_notify=False)
        print(time.monotonic() - began)

asyncio.run(main())
"""


def measure(report: ModuleType) -> None:
    """Print both rates and their ratio."""
    report.begin(
        "peer: lines of a batch beside jobs that do nothing",
        f"one process each, {AT_ONCE} at once; the other one is {PEER}",
    )
    with tempfile.TemporaryDirectory(prefix="dwctl-peer-") as folder:
        if not _install(Path(folder)):
            print(f"  skipped: pip cannot install {PEER}")
            return
        with (
            Upstream() as upstream,
            Stage(upstream.url, {"plain": "plain"}, most_s=240) as stage,
            stage.connect() as database,
        ):
            theirs = COUNT / _theirs(Path(folder), stage)
            batch = lines.put(database, "plain", COUNT)
            worker = stage.worker(**{CONCURRENCY: str(AT_ONCE)})
            result = lines.wait(database, batch, COUNT, 90)
            worker.stop()
        ours = COUNT / float(result.took_s)
        report.figure("jobs that do nothing, one process of the peer", theirs, "/s", digits=0)
        report.figure("lines, one worker process", ours, "/s", digits=0)
        report.at_least("ours to theirs", ours / theirs, "x", 1, digits=2)


def _install(folder: Path) -> bool:
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin/pip"), "install", "-q", PEER, "psycopg[binary]"],
    ):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
    return True


def _theirs(folder: Path, stage: Stage) -> float:
    """Seconds for all jobs, in a database of their own."""
    with psycopg.connect(stage.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE peer")
        parts = connection.info
        url = psycopg.conninfo.make_conninfo(
            host=parts.host,
            port=parts.port,
            user=parts.user,
            password=parts.password,
            dbname="peer",
        )
    command = [str(folder / "bin/python"), "-c", _PROGRAM, url, str(COUNT), str(AT_ONCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
    if done.returncode:
        raise SystemExit(f"the peer failed:\n{done.stderr[-2000:]}")
    return float(done.stdout)
