"""An empty queue for each test, and rows written by hand into it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.queue.rows import Rows

TABLES = "requests, batches, request_templates, files, ready, delayed, inflight, queues, model_slots, open_calls, unrecorded, daemons, duties, batch_models, finished_lines, sweeps, recounts"


@pytest.fixture
def rows(sql: psycopg.Connection, database_url: str) -> Iterator[Rows]:
    sql.execute("TRUNCATE " + ", ".join(f"fusillade.{table}" for table in TABLES.split(", ")))  # type: ignore[arg-type]
    sql.execute("DELETE FROM api_keys")
    with psycopg.connect(database_url, autocommit=True) as ours:
        # As the product's own connections say of themselves.
        ours.execute("SET dwctl.queue = own")
        yield Rows(by_hand=sql, ours=ours, url=database_url)
