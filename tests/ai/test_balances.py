"""What a refusal for want of credit tells of a balance, and how often it asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import create_engine

from dwctl.ai.balances import Balances
from dwctl.db import Connections

ALICE, BOB = UUID(int=1), UUID(int=2)


@pytest.fixture
def connections(database_url: str, sql: psycopg.Connection[Any]) -> Iterator[Connections]:
    sql.execute("DELETE FROM user_balance_checkpoints")
    sql.execute("INSERT INTO user_balance_checkpoints (user_id, balance) VALUES (%s, -0.5)", (ALICE,))  # fmt: skip
    engine = create_engine(f"postgresql+psycopg://{database_url.partition('://')[2]}")
    yield Connections(engine)
    engine.dispose()


def test_it_is_asked_for_once_in_a_while_for_each_account(
    connections: Connections, sql: psycopg.Connection[Any]
) -> None:
    balances = Balances(connections, lambda: False, kept_s=600)
    now = Balances(connections, lambda: False, kept_s=0)
    assert (balances.text_of(ALICE), now.text_of(ALICE)) == ("-0.5", "-0.5")
    sql.execute("UPDATE user_balance_checkpoints SET balance = -1")
    assert (balances.text_of(ALICE), now.text_of(ALICE)) == ("-0.5", "-1")
    assert balances.text_of(BOB) == "0"


def test_nobody_waits_for_a_database_that_is_away(connections: Connections) -> None:
    assert Balances(connections, lambda: True).text_of(ALICE) is None


def test_a_question_that_failed_is_not_asked_again_at_once(
    connections: Connections, sql: psycopg.Connection[Any]
) -> None:
    balances = Balances(connections, lambda: False, kept_s=600)
    sql.execute("ALTER TABLE user_balance_checkpoints RENAME TO elsewhere")
    assert balances.text_of(ALICE) is None
    sql.execute("ALTER TABLE elsewhere RENAME TO user_balance_checkpoints")
    assert balances.text_of(ALICE) is None
