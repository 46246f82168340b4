"""How long the loop stands still while the routing snapshot of 100,000 keys is loaded, changed and checked.

A greenlet that sleeps a millisecond at a time notes its longest gap, as a call that waits for the loop would feel it. The baseline is
the same reading in one go: all rows fetched, then all values built.
"""

# ruff: noqa: E402  # gevent patches before anything else is imported
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import gevent
import psycopg
from sqlalchemy import create_engine

from benchmarks import report
from benchmarks.stage import Stage
from dwctl import config, sql
from dwctl.catalog.key_rows import key_of
from dwctl.catalog.snapshot import Snapshot
from dwctl.db import Connections, engine_options, sqlalchemy_url
from dwctl.encryption import Sealer
from dwctl.wakeups import Wakeups

KEYS = 100_000
MOST_MS = 50

_MANY = """
WITH people AS (
    INSERT INTO users (username, email, external_user_id)
    SELECT 'many ' || n, 'many' || n || '@example.com', 'many' || n FROM generate_series(1, %(n)s) n RETURNING id
), team AS (
    INSERT INTO groups (name, created_by, source) VALUES ('many', '00000000-0000-0000-0000-000000000000', 'native') RETURNING id
), keys AS (
    INSERT INTO api_keys (name, secret_hash, secret_prefix, user_id, created_by)
    SELECT 'key', sha256(id::text::bytea), 'sk-', id, id FROM people
), members AS (
    INSERT INTO user_groups (user_id, group_id) SELECT people.id, team.id FROM people, team
)
INSERT INTO user_balance_checkpoints (user_id, balance) SELECT id, 1 FROM people
"""


class Standstill:
    """The longest gap of a greenlet that wants to run every millisecond."""

    def __init__(self) -> None:
        self._longest_s = 0.0
        gevent.spawn(self._tick)

    def during(self, work: Callable[[], Any]) -> tuple[float, float]:
        """The longest gap while something runs, and how long that took; both in ms."""
        gevent.sleep(0.05)
        self._longest_s = 0.0
        began = time.monotonic()
        work()
        took_s = time.monotonic() - began
        gevent.sleep(0.01)  # the gap that the end of the work has made
        return self._longest_s * 1000, took_s * 1000

    def _tick(self) -> None:
        last = time.monotonic()
        while True:
            gevent.sleep(0.001)
            now = time.monotonic()
            self._longest_s = max(self._longest_s, now - last)
            last = now


def main() -> int:
    """Print the figures."""
    report.begin(f"A snapshot of {KEYS:,} keys, as many accounts, balances and memberships")
    with Stage("http://127.0.0.1:9", {"chat": "chat"}) as stage:
        with psycopg.connect(stage.url, autocommit=True) as connection:
            connection.execute(_MANY, {"n": KEYS})
            connection.execute("ANALYZE")
        _measure(stage.url)
    return report.exit_code()


def _measure(url: str) -> None:
    settings = config.load({"DATABASE_URL": url, "DWCTL_SECRET_KEY": "a-secret-key-for-benchmarks"})
    engine = create_engine(sqlalchemy_url(url), **engine_options(settings))
    standstill = Standstill()
    idle, _ = standstill.during(lambda: gevent.sleep(1))
    report.figure("longest standstill: nothing to do", idle, "ms")
    in_one_go, _ = standstill.during(lambda: _all_at_once(url))
    report.figure("all read in one go (baseline)", in_one_go, "ms")
    snapshot = Snapshot(settings, Connections(engine), Sealer([settings.secret_key or ""]))
    wakeups = Wakeups(settings)

    def start() -> None:
        snapshot.start(wakeups)
        wakeups.start()
        assert snapshot.wait_loaded(60)

    _line("first load", in_one_go, standstill.during(start))
    gevent.sleep(2)
    with psycopg.connect(url, autocommit=True) as connection:
        _line("one new key", in_one_go, standstill.during(lambda: _add_key(connection, snapshot)))
        _line("ten changes, one after the other", in_one_go, standstill.during(lambda: _add_keys(connection, snapshot, 10)))  # fmt: skip

    def check(*, forget: bool) -> None:
        snapshot._counted_at = -1e9
        if forget:
            snapshot._mark = None
        assert snapshot.wait_fresher_than(time.monotonic(), 60)
        gevent.sleep(3)

    _line("periodic check", in_one_go, standstill.during(lambda: check(forget=False)))
    _line("all read anew", in_one_go, standstill.during(lambda: check(forget=True)))
    report.proven("keys in the value", holds=len(snapshot.routing.keys) == KEYS + 12, what=f"{len(snapshot.routing.keys):,}")  # fmt: skip
    snapshot.stop()
    wakeups.stop()
    engine.dispose()


def _line(name: str, in_one_go: float, seen: tuple[float, float]) -> None:
    longest, took = seen
    report.below(f"{name} ({took:,.0f} ms): longest standstill", longest, "ms", MOST_MS)
    report.figure("    part of the baseline", 100 * longest / in_one_go, "%", digits=2)


def _all_at_once(url: str) -> None:
    with psycopg.connect(url) as connection:
        queries = sql.load("dwctl.catalog")
        rows = connection.execute(queries["snapshot_keys"], {"ids": None}).fetchall()
        keys = {row[0]: key_of(row) for row in rows}
        hashes = {row[1]: row[0] for row in rows}
        groups = connection.execute(queries["snapshot_groups"], {"ids": None}).fetchall()
        members = {account: frozenset(found) for account, found in groups}
        accounts = connection.execute(queries["snapshot_funded"], {"ids": None}).fetchall()
        funded = dict(accounts)
    assert len(keys) == len(hashes) >= len(members) <= len(funded)


def _add_keys(connection: psycopg.Connection[Any], snapshot: Snapshot, count: int) -> None:
    for _ in range(count):
        _add_key(connection, snapshot)


def _add_key(connection: psycopg.Connection[Any], snapshot: Snapshot) -> None:
    """Until it is in the value, as its notification brings it."""
    digest = uuid4().bytes * 2
    connection.execute(
        "INSERT INTO api_keys (name, secret_hash, secret_prefix, user_id, created_by)"
        " SELECT %s, %s, 'sk-', user_id, user_id FROM api_keys LIMIT 1",
        (digest.hex(), digest),
    )
    while digest not in snapshot.routing.keys:
        gevent.sleep(0.005)


if __name__ == "__main__":
    sys.exit(main())
