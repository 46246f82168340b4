"""What routing snapshots are told of: the tables that were notified, and the rows in the log of changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


class Announced:
    """`tables` as they were notified, `rows` as `table:id`; both in order."""

    def __init__(self) -> None:
        self.tables: list[str] = []
        self.rows: list[str] = []


@contextmanager
def announced(sql: psycopg.Connection[Any], count: int) -> Iterator[Announced]:
    """All that is announced within the block; waits for `count` notifications, and a little for more of them."""
    found = Announced()
    sql.execute("LISTEN auth_config_changed")
    (last,) = sql.execute("SELECT coalesce(max(id), 0) FROM routing_changes").fetchone()  # type: ignore[misc]  # an aggregate has a row
    yield found
    found.tables += [note.payload for note in sql.notifies(timeout=5, stop_after=count)]
    found.tables += [note.payload for note in sql.notifies(timeout=0.2)]
    rows = sql.execute(
        "SELECT table_name || ':' || row_id FROM routing_changes WHERE id > %s ORDER BY id", (last,)
    )
    found.rows += [row for (row,) in rows]
