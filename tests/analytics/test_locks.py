"""Rows that several recorders touch are locked in one order."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg

ENSURE = "SELECT fusillade.ensure_files(%s::json)"


def test_recorders_that_begin_the_same_day_lock_its_files_in_one_order(database_url: str) -> None:
    """At midnight each of them inserts the day's containers of the same accounts, in any order, while the others do."""
    low, high = ({"id": str(UUID(int=n, version=4)), "owner": "a"} for n in (1000, 2000))

    def other() -> None:
        with psycopg.connect(database_url, autocommit=True, application_name="other") as connection:
            connection.execute(ENSURE, (json.dumps([high, low]),))

    with psycopg.connect(database_url) as one, ThreadPoolExecutor(1) as threads:
        one.execute("SET lock_timeout = '10s'")
        one.execute(ENSURE, (json.dumps([low]),))
        waiting = threads.submit(other)
        _wait_until_blocked(database_url)
        # The other one waits for the low one, and has not touched the high one yet.
        one.execute(ENSURE, (json.dumps([high]),))
        one.commit()
        waiting.result(timeout=30)


def _wait_until_blocked(database_url: str) -> None:
    until = time.monotonic() + 20
    with psycopg.connect(database_url, autocommit=True) as watcher:
        while not _is_blocked(watcher):
            assert time.monotonic() < until
            time.sleep(0.02)


def _is_blocked(watcher: psycopg.Connection[Any]) -> bool:
    row = watcher.execute(
        "SELECT FROM pg_stat_activity WHERE application_name = 'other' AND datname = current_database() AND wait_event_type = 'Lock'"
    ).fetchone()
    return row is not None
