"""The ledger: entries that are only appended, each with its balance in the same statement.

Usage entries are written by `analytics.recorder`; everything else goes through `grant`. An entry's `source_id` is unique, so what
is tried twice is written once.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl import sql
from dwctl.billing import money
from dwctl.billing.tables import Balance, Transaction
from dwctl.errors import Conflict, Invalid, NotFound

_QUERIES = sql.load("dwctl.billing")

CREDITING = frozenset({"purchase", "admin_grant"})
"""Types that add to the balance; the others take from it."""


class SourceUsed(Conflict):
    """This source_id has been used already."""

    code = "source_id_used"


def grant(
    session: Session,
    *,
    user_id: UUID,
    amount: Decimal,
    source_id: str,
    description: str | None,
    granted_by: UUID | None,
    transaction_type: str = "admin_grant",
) -> Transaction:
    """Append an entry of any type but usage and change the balance with it; the caller commits.

    `amount` is positive, the type gives the sign; a removal may exceed the balance. `granted_by` is who did it (None: nobody in particular).
    Raises: Invalid for an amount that is not positive or that the ledger cannot hold exactly, NotFound for an unknown or deleted account,
    SourceUsed (409) for a source_id that was used before, naming the first entry.
    """
    _check(amount)
    parameters = {
        "user_id": user_id,
        "transaction_type": transaction_type,
        "amount": amount,
        "source_id": source_id,
        "description": description,
        "granted_by": granted_by,
    }
    connection = session.connection()
    written = connection.exec_driver_sql(_QUERIES["grant"], parameters).scalar()
    if written is None:
        first = connection.exec_driver_sql(_QUERIES["find_source"], {"source_id": source_id})
        raise _refusal(user_id, source_id, first.scalar())
    return session.get_one(Transaction, written)


def balances(session: Session, ids: Iterable[UUID]) -> dict[UUID, Decimal]:
    """The balance of each account; one without entries has 0."""
    wanted = set(ids)
    rows = session.execute(
        select(Balance.user_id, Balance.balance).where(Balance.user_id.in_(wanted))
    )
    return dict.fromkeys(wanted, Decimal(0)) | {row.user_id: row.balance for row in rows}


def balance(connection: psycopg.Connection[Any], user_id: UUID) -> Decimal:
    """That of one account, where no session is at hand."""
    row = connection.execute(_QUERIES["balance"], {"user_id": user_id}).fetchone()
    return row[0] if row else Decimal(0)


def internal_source(grantor: UUID) -> str:
    """A source_id of our own making, for grants that nobody repeats by mistake (nil grantor: initial credits)."""
    return f"{grantor}_{uuid4()}"


def _check(amount: Decimal) -> None:
    if not amount.is_finite() or amount <= 0:
        raise Invalid("Amount must be greater than zero", param="amount")
    if not money.fits(amount):
        raise Invalid(
            f"Amount must not exceed {money.LARGEST} or have more than {money.SCALE} decimals",
            param="amount",
        )


def _refusal(user_id: UUID, source_id: str, first: UUID | None) -> NotFound | SourceUsed:
    if first is None:
        return NotFound(f"User with ID {user_id} not found")
    return SourceUsed(
        f"source_id {source_id!r} has been used already, by transaction {first}",
        members={"resource": "unknown", "transaction_id": str(first)},
    )
