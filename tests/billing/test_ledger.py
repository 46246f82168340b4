import random
import threading
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from sqlalchemy.orm import Session

from dwctl.billing import ledger, verification
from dwctl.billing.tables import Transaction
from dwctl.db import db
from dwctl.errors import DwctlError, Invalid, NotFound
from tests.announced import announced


@pytest.fixture
def session(app: Flask) -> Iterator[Session]:
    with app.app_context():
        yield db.session()


@pytest.fixture
def account(sql: psycopg.Connection) -> UUID:
    name = uuid.uuid4().hex
    row = sql.execute(
        "INSERT INTO users (username, email) VALUES (%s, %s) RETURNING id",
        (name, f"{name}@x.example"),
    ).fetchone()
    assert row
    return row[0]


def grant(
    session: Session,
    account: UUID,
    amount: str,
    kind: str = "admin_grant",
    source: str | None = None,
) -> Transaction:
    return ledger.grant(
        session,
        user_id=account,
        amount=Decimal(amount),
        source_id=source or uuid.uuid4().hex,
        description=None,
        granted_by=None,
        transaction_type=kind,
    )


def in_parallel(app: Flask, jobs: list[Callable[[Session], object]]) -> list[object]:
    """What each job returned or raised, each in a thread and a session of its own, all begun at once."""
    results: list[object] = [None] * len(jobs)
    start = threading.Barrier(len(jobs))

    def run(index: int) -> None:
        with app.app_context():
            start.wait()
            try:
                results[index] = jobs[index](db.session())
                db.session.commit()
            except DwctlError as error:
                results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_an_entry_and_its_balance_are_written_together(session: Session, account: UUID) -> None:
    made = grant(session, account, "12.50")
    assert made.amount == Decimal("12.5")
    assert ledger.balances(session, [account]) == {account: Decimal("12.5")}
    session.rollback()
    assert ledger.balances(session, [account]) == {account: Decimal(0)}


def test_a_removal_may_exceed_the_balance(session: Session, account: UUID) -> None:
    grant(session, account, "1")
    grant(session, account, "3.000000000000001", kind="admin_removal")
    assert ledger.balances(session, [account])[account] == Decimal("-2.000000000000001")


def test_accounts_without_entries_have_a_balance_of_zero(session: Session) -> None:
    nobody = uuid.uuid4()
    assert ledger.balances(session, [nobody]) == {nobody: Decimal(0)}
    assert ledger.balances(session, []) == {}


def test_a_source_that_was_used_is_refused_with_the_first_entry(
    session: Session, account: UUID
) -> None:
    first = grant(session, account, "1", source="promotion")
    with pytest.raises(ledger.SourceUsed, match="'promotion'") as refused:
        grant(session, account, "1", source="promotion")
    assert refused.value.status == 409
    assert refused.value.members["transaction_id"] == str(first.id)
    assert ledger.balances(session, [account])[account] == 1


@pytest.mark.parametrize("amount", ["0", "-1", "1000000000", "0.0000000000000001", "NaN", "1e400"])
def test_an_amount_that_the_ledger_cannot_hold_is_refused(
    session: Session, account: UUID, amount: str
) -> None:
    with pytest.raises(Invalid):
        grant(session, account, amount)


def test_unknown_deleted_and_system_accounts_get_nothing(
    session: Session, account: UUID, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE users SET is_deleted = true WHERE id = %s", (account,))
    for unknown in (uuid.uuid4(), account, UUID(int=0)):
        with pytest.raises(NotFound, match=f"User with ID {unknown} not found"):
            grant(session, unknown, "1")


def test_entries_can_be_neither_changed_nor_deleted(
    session: Session, account: UUID, sql: psycopg.Connection
) -> None:
    made = grant(session, account, "1")
    session.commit()
    for statement in (
        "UPDATE credits_transactions SET amount = 2 WHERE id = %s",
        "DELETE FROM credits_transactions WHERE id = %s",
    ):
        with pytest.raises(psycopg.errors.CheckViolation):
            sql.execute(statement, (made.id,))


def test_parallel_entries_add_up(
    app: Flask, session: Session, account: UUID, sql: psycopg.Connection
) -> None:
    chance = random.Random(7)
    amounts = [
        (str(Decimal(chance.randrange(1, 10**15)).scaleb(-12)), kind)
        for kind in ("admin_grant", "admin_removal", "purchase", "usage")
        for _ in range(2)
    ]
    in_parallel(app, [lambda s, a=a, k=k: grant(s, account, a, k) for a, k in amounts])
    expected = sum(Decimal(a) if k in ledger.CREDITING else -Decimal(a) for a, k in amounts)
    assert ledger.balances(session, [account])[account] == expected
    assert list(verification.findings(sql)) == []


def test_of_parallel_grants_with_one_source_exactly_one_is_written(
    app: Flask, session: Session, account: UUID
) -> None:
    same = uuid.uuid4().hex
    results = in_parallel(app, [lambda s: grant(s, account, "5", source=same).id] * 8)
    written = [result for result in results if isinstance(result, UUID)]
    refused = [result for result in results if isinstance(result, ledger.SourceUsed)]
    assert (len(written), len(refused)) == (1, 7)
    assert {error.members["transaction_id"] for error in refused} == {str(written[0])}
    assert ledger.balances(session, [account])[account] == 5


def test_a_grant_that_makes_an_account_solvent_is_announced(
    session: Session, account: UUID, sql: psycopg.Connection
) -> None:
    with announced(sql, 2) as found:
        for amount, kind in (("5", "admin_grant"), ("1", "admin_grant"), ("6", "admin_removal")):
            grant(session, account, amount, kind)
            session.commit()
    assert found.tables == ["user_balance_checkpoints"] * 2
    assert found.rows == [f"user_balance_checkpoints:{account}"] * 2
