"""The queue's functions: one file has their present text, a migrated database the same, and nothing else writes requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("functions.sql", "claims.sql", "batches.sql")
TABLES = (
    "requests|batches|request_templates|files|ready|delayed|inflight|queues|model_slots|open_calls|unrecorded|response_chunks"
    "|file_models|batch_models|finished_lines|sweeps|recounts|uploads"
)
WRITES = re.compile(
    rf"\b(INSERT\s+INTO|UPDATE|DELETE\s+FROM|COPY)\s+fusillade\.({TABLES})\b", re.IGNORECASE
)
# The recorder takes what the functions have put there, in the transaction that records it; lines of a file come by the million.
ALLOWED = {
    ("dwctl/queue/queries.sql", "unrecorded"),
    ("dwctl/files/queries.sql", "request_templates"),
}


def definitions(connection: psycopg.Connection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid) FROM pg_proc p WHERE pronamespace = 'fusillade'::regnamespace"
    )
    return dict(rows.fetchall())


@pytest.fixture
def untouched(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url) as connection:
        yield connection
        connection.rollback()


def test_a_migrated_database_has_the_functions_of_the_file(untouched: psycopg.Connection) -> None:
    migrated = definitions(untouched)
    for name in migrated:
        untouched.execute(f"DROP FUNCTION {name} CASCADE")  # type: ignore[arg-type]
    for name in FILES:
        untouched.execute(files("dwctl.queue").joinpath(name).read_text("utf-8"))  # type: ignore[arg-type]
    assert definitions(untouched) == migrated


def test_what_catches_errors_is_in_no_parallel_plan(untouched: psycopg.Connection) -> None:
    """PostgreSQL before 17 begins no subtransaction in one, however safe the function says that it is."""
    rows = untouched.execute(
        "SELECT p.proname, p.prosrc, p.proparallel = 'u' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
        "WHERE n.nspname IN ('fusillade', 'public')"
    ).fetchall()
    catching = {name for name, source, _ in rows if re.search(r"\bEXCEPTION\s+WHEN\b", source)}
    assert {"one_line", "read_failure"} <= catching
    while more := {
        name
        for name, source, _ in rows
        if name not in catching and re.search(rf"\b({'|'.join(catching)})\(", source)
    }:
        catching |= more
    assert {name for name, _, is_unsafe in rows if name in catching and not is_unsafe} == set()


def test_requests_are_written_in_one_file_only() -> None:
    found = {
        (str(path.relative_to(ROOT)), match[2])
        for path in (ROOT / "dwctl").rglob("*")
        if path.suffix in (".py", ".sql") and path.name not in FILES
        for match in WRITES.finditer(path.read_text("utf-8"))
    }
    assert found == ALLOWED
