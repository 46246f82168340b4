"""What does not add up is found, each kind by its check, and set right where that can be known."""

from __future__ import annotations

from importlib.resources import files
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from dwctl.analytics import writing
from dwctl.billing import verification
from dwctl.clock import uuid7
from tests.analytics.made import ALICE, Calls, final

Connection = psycopg.Connection[Any]
KEY = UUID(int=7, version=4)
BATCH = UUID(int=8, version=4)


@pytest.fixture
def books(sql: Connection) -> Connection:
    """An account with a capped key, a call of it, a batch's line, and a call that runs. All of it adds up."""
    sql.execute("TRUNCATE user_balance_checkpoints, credit_reservations, api_key_spend, batch_usage, http_analytics, credits_transactions")  # fmt: skip
    sql.execute("INSERT INTO users (id, username, email) VALUES (%s, 'alice', 'a@x') ON CONFLICT DO NOTHING", (ALICE,))  # fmt: skip
    sql.execute("DELETE FROM api_keys")
    sql.execute(
        "INSERT INTO api_keys (id, name, user_id, created_by, secret_hash, spend_limit, spend_limit_interval)"
        " VALUES (%s, 'k', %s, %s, 'k', 1, 'daily')",
        (KEY, ALICE, ALICE),
    )
    calls = Calls(sql)
    one, line = calls.make(track=False), calls.make(track=False)
    writing.record(sql, [final(one, api_key_id=KEY), final(line, tokens=2, batch_id=BATCH)])
    sql.execute("UPDATE user_balance_checkpoints SET balance = balance + 1")
    sql.execute(
        "INSERT INTO credits_transactions (user_id, transaction_type, amount, source_id) VALUES (%s, 'admin_grant', 1, %s)",
        (ALICE, uuid4().hex),
    )
    hold(sql)
    assert found(sql) == []
    return sql


def hold(sql: Connection, amount: str = "0.1", **more: Any) -> UUID:
    id = uuid7()
    wanted = {"id": str(id), "user_id": str(ALICE), "amount": amount, "is_bounded": True, "of_balance": True, "api_key_id": str(KEY)}  # fmt: skip
    wanted |= more
    row = sql.execute(
        "SELECT refused_by FROM hold_credit(%s, NULL, %s::json, 60)",
        (uuid4(), psycopg.types.json.Json([wanted])),
    ).fetchone()
    assert row == (None,)
    return id


def found(sql: Connection) -> list[tuple[str, str]]:
    return [(one.check.name, one.subject) for one in verification.findings(sql)]


DAMAGE = {
    "balance": ("UPDATE user_balance_checkpoints SET balance = balance + 0.000000000000001", ALICE),
    "reserved": ("UPDATE user_balance_checkpoints SET reserved = 0", ALICE),
    "spend": ("UPDATE api_key_spend SET spent = spent + 1", KEY),
    "spend_reserved": ("UPDATE api_key_spend SET reserved = 0", KEY),
    "batch_cost": ("UPDATE batch_usage SET cost = 7", BATCH),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_off_is_named_and_set_right(books: Connection, name: str) -> None:
    damage, subject = DAMAGE[name]
    books.execute(damage)  # type: ignore[arg-type]
    assert found(books) == [(name, str(subject))]
    (one,) = verification.findings(books)
    assert verification.repair(books, one)
    assert found(books) == []


@pytest.mark.parametrize("lacks", ["charge", "log"])
def test_a_call_without_its_charge_or_its_log_is_named_and_left_to_a_person(
    books: Connection, lacks: str
) -> None:
    row = books.execute("SELECT source_id FROM credits_transactions WHERE api_key_id = %s", (KEY,)).fetchone()  # fmt: skip
    assert row
    with books.transaction(force_rollback=True):
        if lacks == "log":
            books.execute("DELETE FROM http_analytics WHERE request_id = %s", row)
        else:
            books.execute("UPDATE http_analytics SET total_cost = 5 WHERE request_id = %s", row)
        statement = next(one.statement for one in verification.CHECKS if one.name == "charge")
        rows = books.execute(statement).fetchall()  # type: ignore[arg-type]
    assert [(subject, expected) for subject, expected, _ in rows] == [(row[0], 0 if lacks == "log" else 5)]  # fmt: skip


def test_a_cost_that_does_not_follow_from_its_prices_is_named(books: Connection) -> None:
    row = books.execute("SELECT source_id FROM credits_transactions WHERE api_key_id = %s", (KEY,)).fetchone()  # fmt: skip
    parts = (
        "UPDATE http_analytics SET prompt_tokens = 10, cached_tokens = 20, completion_tokens = 5, reasoning_tokens = 2, input_price_per_token = 1,"
        " cached_input_price_per_token = 0.1, output_price_per_token = 2, reasoning_price_per_token = 3, total_cost = %s WHERE request_id = %s"
    )
    statement = next(one.statement for one in verification.CHECKS if one.name == "price")
    assert row
    for cost, wanted in (("13", []), ("13.000000000000001", [(row[0], 13)])):
        with books.transaction(force_rollback=True):
            books.execute(parts, (cost, *row))
            rows = books.execute(statement).fetchall()  # type: ignore[arg-type]
        assert [(subject, expected) for subject, expected, _ in rows] == wanted


def test_the_functions_are_those_of_the_file(sql: Connection) -> None:
    query = (
        "SELECT oid::regprocedure::text, pg_get_functiondef(oid) FROM pg_proc"
        " WHERE proname IN ('funds_level', 'spend_window', 'let_go_credit', 'count_spent', 'hold_credit', 'free_credit', 'count_spend')"
    )
    migrated = dict(sql.execute(query).fetchall())
    assert len(migrated) == 7
    with sql.transaction(force_rollback=True):
        for name in migrated:
            sql.execute(f"DROP FUNCTION {name} CASCADE")  # type: ignore[arg-type]
        sql.execute(files("dwctl.billing").joinpath("functions.sql").read_text("utf-8"))  # type: ignore[arg-type]
        assert dict(sql.execute(query).fetchall()) == migrated
