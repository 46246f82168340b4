"""A process's reservations on a real database: who waits has its turn, who is killed leaves nothing held, and an
account that is locked is in nobody else's way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import gevent
import psycopg
import pytest

from dwctl import config
from dwctl.billing.reservations import NoCredit, Reservations, Wanted
from dwctl.clock import uuid7
from dwctl.db import DatabaseAway

ALICE, BOB = UUID(int=9, version=4), UUID(int=10, version=4)


@pytest.fixture
def reservations(sql: psycopg.Connection[Any], database_url: str) -> Iterator[Reservations]:
    """Those of a process, while two accounts have 1 USD each."""
    sql.execute("TRUNCATE user_balance_checkpoints, credit_reservations")
    sql.execute("INSERT INTO user_balance_checkpoints (user_id, balance) VALUES (%s, 1), (%s, 1)", (ALICE, BOB))  # fmt: skip
    made = Reservations(config.load({"DATABASE_URL": database_url}), uuid4())
    yield made
    made.stop(time.monotonic())


def wanted(amount: str, id: UUID | None = None, *, by: UUID = ALICE) -> Wanted:
    return Wanted(id or uuid7(), by, Decimal(amount), is_bounded=True, of_balance=True)


def held(sql: psycopg.Connection[Any]) -> Decimal:
    row = sql.execute(
        "SELECT coalesce((SELECT sum(amount) FROM credit_reservations), 0), sum(reserved) FROM user_balance_checkpoints"
    ).fetchone()
    assert row is not None
    assert row[0] == row[1]
    return Decimal(row[0])


def test_who_waits_has_its_turn_however_many_come_meanwhile(reservations: Reservations) -> None:
    reservations.hold(wanted("0.8"), patience_s=0)

    def wait(patience_s: float) -> str:
        with contextlib.suppress(NoCredit, gevent.GreenletExit):
            reservations.hold(wanted("0.5"), patience_s=patience_s)
        return "over"

    first = gevent.spawn(wait, 0.1)
    others = []
    while not first.ready() and len(others) < 200:
        others.append(gevent.spawn(wait, 60))
        gevent.sleep(0.01)
    assert first.ready()
    gevent.killall(others)


def test_who_is_killed_while_it_waits_holds_nothing_afterwards(
    reservations: Reservations, sql: psycopg.Connection[Any]
) -> None:
    running, id = wanted("0.8"), uuid7()
    reservations.hold(running, patience_s=0)
    waiting = gevent.spawn(reservations.hold, wanted("0.5", id), patience_s=60)
    gevent.sleep(0.02)
    waiting.kill()
    reservations.let_go(running.id)
    gevent.sleep(0.2)
    assert held(sql) == 0
    # The same request may be back, here.
    reservations.hold(wanted("0.5", id), patience_s=0)
    assert held(sql) == Decimal("0.5")


def test_an_account_that_is_locked_is_in_nobody_elses_way(
    reservations: Reservations, sql: psycopg.Connection[Any]
) -> None:
    let_go = wanted("0.1")
    reservations.hold(let_go, patience_s=0)
    with sql.transaction():
        sql.execute("SELECT FROM user_balance_checkpoints WHERE user_id = %s FOR UPDATE", (ALICE,))
        reservations.let_go(let_go.id)
        calls = [wanted("0.2"), wanted("0.2", by=BOB)]
        hers, his = gevent.joinall([gevent.spawn(reservations.hold, call, patience_s=0) for call in calls])  # fmt: skip
        assert isinstance(hers.exception, DatabaseAway)
        assert his.successful()
        with pytest.raises(DatabaseAway):
            reservations.hold(wanted("0.2"), patience_s=0)
    reservations.hold(wanted("0.3", by=BOB), patience_s=0)
    gevent.sleep(0.1)
    assert held(sql) == Decimal("0.5")
