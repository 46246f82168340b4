"""What the identity room's chores delete, and what they leave."""

from __future__ import annotations

import psycopg
import pytest

from dwctl import config
from dwctl.identity import duties

SETTINGS = config.Settings()
OVER = ["1 hour 1 second", "2 hours", "400 days"]
COUNTS = ["0 seconds", "2 minutes", "59 minutes"]
"""How old attempts are of which the longest window is over, or not."""


@pytest.fixture
def attempts(sql: psycopg.Connection) -> psycopg.Connection:
    sql.execute("TRUNCATE sign_in_attempts")
    return sql


def insert(sql: psycopg.Connection, age: str, how_many: int = 1) -> None:
    sql.execute(
        "INSERT INTO sign_in_attempts (key, began_at)"
        " SELECT sha256((%(age)s || n)::bytea), now() - %(age)s::interval FROM generate_series(1, %(how_many)s) n",
        {"age": age, "how_many": how_many},
    )


def left(sql: psycopg.Connection) -> int:
    return int(sql.execute("SELECT count(*) FROM sign_in_attempts").fetchone()[0])  # type: ignore[index]


def test_attempts_are_forgotten_when_their_longest_window_is_over(
    attempts: psycopg.Connection,
) -> None:
    for age in (*OVER, *COUNTS):
        insert(attempts, age)
    assert duties.forget_attempts(attempts, SETTINGS) == 600
    assert left(attempts) == len(COUNTS)


def test_many_are_forgotten_some_at_a_time(attempts: psycopg.Connection) -> None:
    insert(attempts, "2 hours", 7000)
    assert duties.forget_attempts(attempts, SETTINGS) == 1
    assert left(attempts) == 2000
    assert duties.forget_attempts(attempts, SETTINGS) == 600
    assert left(attempts) == 0


def test_one_that_somebody_counts_right_now_is_not_waited_for(
    attempts: psycopg.Connection, database_url: str
) -> None:
    insert(attempts, "2 hours", 2)
    with psycopg.connect(database_url) as counting:
        counting.execute(
            "UPDATE sign_in_attempts SET began_at = now() WHERE key = (SELECT min(key) FROM sign_in_attempts)"
        )
        duties.forget_attempts(attempts, SETTINGS)
        assert left(attempts) == 1
    duties.forget_attempts(attempts, SETTINGS)
    assert left(attempts) == 1


def test_sessions_that_ran_out_are_forgotten(sql: psycopg.Connection) -> None:
    sql.execute("DELETE FROM login_sessions")
    for n, age in enumerate(("-1 hour", "1 second", "30 days")):
        sql.execute(
            "INSERT INTO login_sessions (user_id, token_hash, expires_at)"
            " SELECT id, %s, now() - %s::interval FROM users LIMIT 1",
            (bytes([n]), age),
        )
    assert duties.forget_sessions(sql, SETTINGS) == 3600
    assert sql.execute("SELECT count(*) FROM login_sessions").fetchone() == (1,)
