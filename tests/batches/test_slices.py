"""A slice of a batch that is ended or retried reads about as many rows as it changes, however many more there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

import psycopg
import pytest

from dwctl import config
from dwctl.batches import changes, duties
from tests.batches import lines as helpers
from tests.batches.lines import Lines

LINES, SLICE = 3_000, 50
TABLES = ("requests", "ready", "delayed", "finished_lines")
PLANS = ("auto", "force_generic_plan", "force_custom_plan")


@pytest.fixture
def lines(
    database_url: str, sql: psycopg.Connection, environ: dict[str, str]
) -> Iterator[Lines]:  # fmt: skip
    made = helpers.connect(database_url, config.load(environ), sql)
    yield made
    made.ours.close()


def cancelled(lines: Lines) -> UUID:
    id = lines.batch(LINES)
    changes.cancel(lines.ours, id)
    return id


def expired(lines: Lines) -> UUID:
    return lines.batch(LINES, due_s=-3600.0)


def late(lines: Lines) -> UUID:
    id = lines.batch(LINES)
    lines.ours.execute("UPDATE fusillade.ready SET deadline = now() - interval '1 hour'")
    lines.ours.execute("UPDATE fusillade.batches SET expires_at = (SELECT max(deadline) FROM fusillade.ready)")  # fmt: skip
    return id


def retried(lines: Lines) -> UUID:
    id = expired(lines)
    lines.work()
    changes.retry(lines.ours, id)
    return id


def sweep(lines: Lines, id: UUID) -> None:
    lines.ours.execute("SELECT fusillade.sweep(%s, %s)", (id, SLICE))


def sweep_retries(lines: Lines, id: UUID) -> None:
    lines.ours.execute("SELECT fusillade.sweep_retries(%s, %s)", (id, SLICE))


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize(
    ("begin", "step"), [(cancelled, sweep), (late, sweep), (retried, sweep_retries)]
)
def test_a_slice_reads_what_it_changes(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, plans: str, begin: Callable[[Lines], UUID], step: Callable[[Lines, UUID], None]
) -> None:  # fmt: skip
    for module in (changes, duties):
        monkeypatch.setattr(module, "AT_ONCE", 500)
    id = begin(lines)
    for table in TABLES:
        lines.ours.execute(f"ANALYZE fusillade.{table}")  # type: ignore[arg-type]
    lines.ours.execute(f"SET plan_cache_mode = {plans}")  # type: ignore[arg-type]
    for _ in range(8):
        with lines.ours.transaction():
            before = read(lines)
            step(lines, id)
            after = read(lines)
        rows = {table: after[table] - before[table] for table in TABLES}
        assert rows["requests"] >= SLICE
        assert max(rows.values()) <= 20 * SLICE, rows


def read(lines: Lines) -> dict[str, int]:
    """Rows of each table that this transaction has read."""
    lines.ours.execute("SELECT pg_stat_clear_snapshot()")
    found = lines.ours.execute(
        "SELECT relname, seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE schemaname = 'fusillade'"
    )
    return dict(found.fetchall())
