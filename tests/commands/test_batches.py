"""`dwctl batches` on batches as their creation writes them."""

import json
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import Result
from flask import Flask

from dwctl.commands.main import cli
from tests.batches import made
from tests.cast import Cast

MODEL = "cli-batches"


@pytest.fixture
def batch(sql: psycopg.Connection, cast: Cast) -> UUID:
    """A batch of two lines that nobody has begun."""
    return made.batch(sql, cast["admin"], made.same_file(sql, cast["admin"], 2, MODEL))


def run(app: Flask, *args: object) -> Result:
    return app.test_cli_runner().invoke(cli, ["batches", *map(str, args)])


def asked(app: Flask, *args: object) -> Any:
    result = run(app, *args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def noted(sql: psycopg.Connection, batch: UUID) -> list[Any]:
    """What the audit log says of it: the action, the command, and what came of it."""
    rows = sql.execute("SELECT action, route, after FROM audit_log WHERE resource_type = 'batch' AND resource_id = %s ORDER BY id", (str(batch),))  # fmt: skip
    return [(action, route.partition(" ")[2], after) for action, route, after in rows]


def test_batches_are_listed(app: Flask, batch: UUID, cast: Cast) -> None:
    (row,) = asked(app, "list", "--search", batch)
    assert (row["id"], row["status"], row["total"], row["window"]) == (str(batch), "validating", 2, "24h")  # fmt: skip
    assert row["owner"] == asked(app, "show", batch)["owner"]
    owned = asked(app, "list", "--owner", row["owner"], "--status", "in_progress")
    assert str(batch) in [one["id"] for one in owned]
    assert asked(app, "list", "--status", "completed", "--search", batch) == []
    assert str(batch) in run(app, "list").output


def test_one_says_what_holds_it_up(app: Flask, batch: UUID) -> None:
    shown = asked(app, "show", f"batch_{batch}")
    assert (shown["models"], shown["running"], shown["errors"]) == ([MODEL], 0, [])
    assert shown["limited_by"] == "no_worker"
    assert "limited_by" in run(app, "show", batch).output


def test_why_one_could_not_begin(app: Flask, batch: UUID, sql: psycopg.Connection) -> None:
    sql.execute("SELECT fusillade.fail_batch(%s, 'file_gone', 'The file is gone')", (batch,))
    shown = asked(app, "show", batch)
    assert (shown["status"], shown["errors"]) == ("failed", ["The file is gone"])


def test_one_is_cancelled(app: Flask, batch: UUID, sql: psycopg.Connection) -> None:
    assert asked(app, "cancel", batch)["status"] in ("cancelling", "cancelled")
    assert asked(app, "cancel", batch)["id"] == str(batch)
    assert noted(sql, batch) == [("batch.cancelled", "batches cancel", None)]
    assert run(app, "retry", batch).stderr.startswith("Error: A batch that is cancelled")


def test_failed_lines_run_again(app: Flask, batch: UUID, sql: psycopg.Connection) -> None:
    assert run(app, "retry", batch).stderr == "Error: No failed requests to retry in this batch\n"
    sql.execute("SELECT fusillade.populate(%s, 10, 0)", (batch,))
    sql.execute(
        "UPDATE fusillade.requests SET state = 'failed', failed_at = now(), error = '{}' WHERE batch_id = %s",
        (batch,),
    )
    sql.execute("SELECT fusillade.recount(%s)", (batch,))
    assert asked(app, "retry", batch)["retried"] == 2
    assert asked(app, "show", batch)["failed"] == 0
    assert noted(sql, batch) == [("batch.retried", "batches retry", {"requests": 2})]


def test_a_batch_that_is_none_is_one_line(app: Flask) -> None:
    id = uuid4()
    for command in ("show", "cancel", "retry"):
        result = run(app, command, id)
        assert (result.exit_code, result.stderr) == (1, f"Error: There is no batch with the ID {id}\n")  # fmt: skip
    assert run(app, "show", "nonsense").stderr == "Error: Invalid batch ID format\n"
