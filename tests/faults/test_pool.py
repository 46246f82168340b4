"""Connections that wait to be borrowed: all are in use, one has ended, one was used otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from flask import Flask

from benchmarks.pages import counted
from dwctl import pool
from dwctl.db import Connections, DatabaseAway, PoolExhausted, db
from tests.cast import Cast
from tests.identity.doors import ADMIN, app_with


@pytest.fixture
def exhausted(environ: dict[str, str], cast: Cast) -> Iterator[Flask]:
    few = {"database__pool_size": "1", "database__pool_overflow": "0", "database__pool_timeout": "100ms"}  # fmt: skip
    with app_with(environ, **few) as app, app.app_context():
        with db.engine.connect():
            yield app


def test_it_says_so_and_when_to_come_again(exhausted: Flask) -> None:
    answer = exhausted.test_client().get(f"{ADMIN}/groups", headers=Cast.headers("admin"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert answer.json["code"] == "pool_exhausted"
    assert (answer.json["error"], answer.json["retry_after_seconds"]) == ("service_unavailable", 30)
    assert "in use" in answer.json["message"]


def test_statements_of_our_own_say_the_same(exhausted: Flask) -> None:
    with pytest.raises(PoolExhausted), Connections(db.engine).transaction():
        pass
    # Whoever copes without a database copes with that.
    assert issubclass(PoolExhausted, DatabaseAway)


@pytest.fixture
def connections(environ: dict[str, str]) -> Iterator[Connections]:
    with app_with(environ) as app, app.app_context():
        yield Connections(db.engine)


def test_one_that_ended_while_it_waited_is_handed_to_nobody(
    connections: Connections, sql: psycopg.Connection[Any]
) -> None:
    with connections.transaction() as connection:
        ended = connection.info.backend_pid
    sql.execute("SELECT pg_terminate_backend(%s, 5000)", (ended,))
    with connections.transaction() as connection:
        assert connection.info.backend_pid != ended
        connection.execute("SELECT 1")


def test_only_one_that_has_rested_is_asked(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connections.transaction() as connection:
        connection.execute("SELECT 1")
    with counted() as seen, connections.transaction():
        pass
    assert seen.preparing == []
    monkeypatch.setattr(pool, "RESTED_S", 0)
    with counted() as seen, connections.transaction():
        pass
    assert seen.preparing == [";"]


@pytest.mark.parametrize("problem", [None, LookupError, psycopg.errors.DivisionByZero])
def test_after_a_moment_it_writes_again(
    connections: Connections, problem: type[Exception] | None
) -> None:
    with suppress(LookupError, psycopg.errors.DivisionByZero), connections.moment() as connection:
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)
        assert connection.execute("SHOW transaction_read_only").fetchone() == ("on",)
        if problem is LookupError:
            raise LookupError
        if problem is not None:
            connection.execute("SELECT 1 / 0")
    with connections.transaction() as again:
        assert again is connection
        assert again.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
        assert again.execute("SHOW transaction_read_only").fetchone() == ("off",)
