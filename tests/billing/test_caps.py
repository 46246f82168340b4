"""When a cap begins anew: as the database has it, at every edge of the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dwctl.billing import caps, levels

EDGES = [datetime(2026, 2, 28, 23, 59, 59, 999999, UTC), datetime(2028, 2, 29, tzinfo=UTC), datetime(2026, 12, 31, 23, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC), datetime(2026, 11, 30, tzinfo=UTC), datetime(2026, 11, 29, 12, tzinfo=UTC)]  # fmt: skip


@pytest.mark.parametrize("interval", [*caps.INTERVALS, None])
def test_windows_are_those_of_the_database(
    sql: psycopg.Connection[Any], interval: str | None
) -> None:
    for at in EDGES:
        row = sql.execute("SELECT spend_window(%s, %s)", (interval, at)).fetchone()
        assert row == (caps.window_start(interval, at),)
        end = caps.window_end(interval, at)
        if end is None:
            assert interval is None
            continue
        assert caps.window_start(interval, end) == end > at
        assert caps.window_start(interval, end - timedelta(microseconds=1)) == row[0]


def test_levels_are_those_of_the_database(sql: psycopg.Connection[Any]) -> None:
    amounts = ["-1", "0", "0.000000000000001", "0.99", "1", "9.99", "10", "99999", "999999.99", "1000000", "999999999"]  # fmt: skip
    for amount in amounts:
        row = sql.execute("SELECT funds_level(%s::numeric), %s::numeric", (amount, amount)).fetchone()  # fmt: skip
        assert row
        level, value = row
        assert levels.least(level) <= max(value, 0)
        assert level == levels.HIGHEST or value < max(levels.least(level + 1), 1)
