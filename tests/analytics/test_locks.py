"""Rows that several recorders touch are locked in one order."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg


def test_recorders_that_begin_the_same_day_do_not_deadlock(database_url: str) -> None:
    """At midnight each of them inserts the day's containers of the same accounts, in any order, while the others do."""
    days = [[{"id": str(uuid4()), "owner": "a"} for _ in range(60)] for _ in range(25)]

    def begin(seed: int) -> None:
        order = random.Random(seed)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SET deadlock_timeout = '10ms'")
            for day in days:
                rows = order.sample(day, len(day))
                connection.execute("SELECT fusillade.ensure_files(%s::json)", (json.dumps(rows),))

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(begin, seed) for seed in range(4)]:
            done.result(timeout=60)
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM fusillade.files WHERE uploaded_by = 'a'").fetchone()  # fmt: skip
    assert row == (25 * 60,)
