"""`dwctl secrets` on a database that two secrets have sealed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from click.testing import Result
from flask import Flask

from dwctl import config
from dwctl.commands import resealing
from dwctl.commands.main import cli
from dwctl.encryption import Sealer
from dwctl.web import current
from tests.cast import Cast
from tests.conftest import SECRET
from tests.identity.doors import app_with

OLD, NEW, LOST = SECRET, "the-next-secret-key-for-tests", "a-secret-that-nobody-has"
OWN, OWN_NEW = "a-key-for-connections-only", "the-next-key-for-connections"


@pytest.fixture
def sealed(sql: psycopg.Connection, cast: Cast) -> dict[str, str]:
    """Rows of every kind that old secrets have sealed, some more than a slice holds."""
    sql.execute("TRUNCATE inference_endpoints, connections, outgoing_mails CASCADE")
    old, own = Sealer([OLD]), Sealer([OWN, OLD])
    who = cast["admin"]
    for n in range(3):
        sql.execute("INSERT INTO inference_endpoints (name, url, created_by, api_key_sealed) VALUES (%s, 'http://x/', %s, %s)", (f"e{n}", who, old.seal(f"key {n}")))  # fmt: skip
    sql.execute("INSERT INTO inference_endpoints (name, url, created_by) VALUES ('bare', 'http://x/', %s)", (who,))  # fmt: skip
    connection = own.seal('{"a": 1}')
    sql.execute("INSERT INTO connections (owner_id, created_by, kind, provider, name, config_sealed) VALUES (%s, %s, 'source', 's3', 'c', %s)", (who, who, connection))  # fmt: skip
    with sql.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO outgoing_mails (template, recipient, values_sealed, expires_at) VALUES ('x', 'y', %s, now())",
            [(old.seal("{}"),) for _ in range(1100)],
        )
    return {"connection": connection}


@pytest.fixture
def rotating(environ: dict[str, str]) -> Iterator[Flask]:
    with app_with(
        environ, secret_key=NEW, secret_key_previous=OLD, connections__encryption_key=OWN_NEW, connections__encryption_key_previous=OWN
    ) as app:  # fmt: skip
        yield app


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(cli, ["secrets", *arguments, "--json"])


def table(done: Result, key: str = "place") -> dict[str, dict[str, object]]:
    return {row[key]: row for row in json.loads(done.stdout)}


def states(app: Flask) -> dict[str, set[tuple[object, object]]]:
    found: dict[str, set[tuple[object, object]]] = {}
    for row in json.loads(run(app, "status").stdout):
        found.setdefault(row["place"], set()).add((row["state"], row["rows"]))
    return found


@pytest.mark.usefixtures("sealed")
def test_everything_is_sealed_anew_and_then_the_old_secret_can_go(
    rotating: Flask, environ: dict[str, str], sql: psycopg.Connection
) -> None:
    before = {"inference_endpoints.api_key_sealed": {("previous", 3)}, "connections.config_sealed": {("previous", 1)}, "outgoing_mails.values_sealed": {("previous", 1100)}}  # fmt: skip
    assert states(rotating) == before
    dry = run(rotating, "rotate", "--dry-run")
    assert dry.exit_code == 0
    assert table(dry)["outgoing_mails.values_sealed"]["resealed"] == 1100
    assert states(rotating) == before
    done = run(rotating, "rotate")
    assert done.exit_code == 0, done.output
    assert {place: row["resealed"] for place, row in table(done).items() if row["resealed"]} == {place: next(iter(rows))[1] for place, rows in before.items()}  # fmt: skip
    noted = sql.execute("SELECT action, count(*) FROM audit_log WHERE route LIKE '%secrets rotate' GROUP BY 1 ORDER BY 1").fetchall()  # fmt: skip
    assert noted == [("connection.resealed", 1), ("endpoint.resealed", 3)]
    again = run(rotating, "rotate")
    assert {row["resealed"] for row in table(again).values()} == {0}
    with app_with(environ, secret_key=NEW, connections__encryption_key=OWN_NEW) as app:
        assert all(state == "newest" for rows in states(app).values() for state, _ in rows)
        row = sql.execute("SELECT api_key_sealed FROM inference_endpoints WHERE name = 'e1'").fetchone()  # fmt: skip
        assert row
        with app.app_context():
            assert current.parts().sealer.open(row[0]) == "key 1"


@pytest.mark.usefixtures("sealed")
def test_what_cannot_be_opened_is_named_and_left(rotating: Flask, sql: psycopg.Connection) -> None:
    broken = {"e0": Sealer([LOST]).seal("x"), "e1": f"v1:{Sealer([OLD]).newest}:AAAA", "e2": "rubbish"}  # fmt: skip
    for name, text in broken.items():
        sql.execute("UPDATE inference_endpoints SET api_key_sealed = %s WHERE name = %s", (text, name))  # fmt: skip
    done = run(rotating, "rotate")
    assert done.exit_code == 1
    row = table(done)["inference_endpoints.api_key_sealed"]
    assert (row["failed"], row["resealed"]) == (3, 0)
    ids = {str(id) for (id,) in sql.execute("SELECT id FROM inference_endpoints WHERE name <> 'bare'")}  # fmt: skip
    assert set(row["unreadable"]) == ids  # type: ignore[call-overload]
    kept = dict(sql.execute("SELECT name, api_key_sealed FROM inference_endpoints WHERE name <> 'bare'").fetchall())  # fmt: skip
    assert kept == broken
    assert ("not configured", 1) in states(rotating)["inference_endpoints.api_key_sealed"]
    assert "rubbish" not in done.output


@pytest.mark.usefixtures("sealed")
def test_a_row_that_is_changed_meanwhile_is_left_alone(
    rotating: Flask, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, changed = resealing._write, Sealer([NEW]).seal("newer")

    def after_somebody_else(*arguments: object) -> int:
        sql.execute("UPDATE inference_endpoints SET api_key_sealed = %s WHERE name = 'e1'", (changed,))  # fmt: skip
        return written(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(resealing, "_write", after_somebody_else)
    assert table(run(rotating, "rotate"))["inference_endpoints.api_key_sealed"]["resealed"] == 2
    row = sql.execute("SELECT api_key_sealed FROM inference_endpoints WHERE name = 'e1'").fetchone()
    assert row == (changed,)


def test_no_sealed_column_of_the_database_is_left_out(app: Flask, sql: psycopg.Connection) -> None:
    with app.app_context():
        parts = current.parts()
        places = resealing.places(parts.settings, parts.sealer)
    found = {place.name for place in places}
    there = sql.execute("SELECT table_schema, table_name, column_name FROM information_schema.columns WHERE column_name LIKE '%%\\_sealed'").fetchall()  # fmt: skip
    assert found == {f"{table}.{column}" if schema == "public" else f"{schema}.{table}.{column}" for schema, table, column in there}  # fmt: skip
    assert all(len(place.table.primary_key.columns) for place in places)


def test_without_a_secret_nothing_is_rotated(environ: dict[str, str]) -> None:
    without = {name: value for name, value in environ.items() if name != "DWCTL_SECRET_KEY"}
    with app_with(without) as app:
        done = run(app, "rotate")
        assert done.exit_code == 1
        assert "secret_key is not set" in done.output


@pytest.mark.parametrize("key", ["short", "x" * 15])
def test_a_weak_key_for_connections_stops_the_start(environ: dict[str, str], key: str) -> None:
    with pytest.raises(config.ConfigError, match=r"connections\.encryption_key"):
        config.load(environ | {"DWCTL_CONNECTIONS__ENCRYPTION_KEY": key})
