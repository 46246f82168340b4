"""What must hold of money at every moment, looked at: each read model against the entries that it is a sum of.

A `Check` is a statement that gives what does not hold. Rooms above this one have checks of their own beside `CHECKS`; `dwctl credits verify` runs
them all in one transaction that sees one moment, and reads what they find from cursors of the server: nothing of it grows with the ledger here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg

from dwctl import sql

_STATEMENTS = sql.load("dwctl.billing", "verification.sql")
_ROWS_AT_ONCE = 500
# What is summed up is sorted or hashed; beyond this it goes to the server's disk.
_WORK_MEM = "64MB"


class Check(NamedTuple):
    """Something that must hold. `statement` gives rows (subject, expected, found) of what does not.

    repair: statements that set one subject right (`%(subject)s`), the first of which locks what they look at; none where nobody can know.
    """

    name: str
    statement: str
    repair: tuple[str, ...] = ()


class Finding(NamedTuple):
    """What does not hold: by its subject (an account, a key, a batch, a request), what it should be, what it is."""

    check: Check
    subject: str
    expected: Decimal
    found: Decimal


def _check(name: str, *repair: str) -> Check:
    return Check(name, _STATEMENTS[name], tuple(_STATEMENTS[step] for step in repair))


CHECKS = (
    _check("balance", "lock_account", "repair_account"),
    _check("reserved", "lock_account", "repair_account"),
    _check("spend", "lock_account_of_key", "repair_key"),
    _check("spend_reserved", "lock_account_of_key", "repair_key"),
    _check("charge"),
    _check("price"),
    _check("batch_cost", "lock_batch", "repair_batch"),
)
"""Those of this room. (A charge that is not what its call cost, or a cost that does not follow from its prices, is for a person to judge: entries are never changed.)"""


def findings(
    connection: psycopg.Connection[Any], checks: Iterable[Check] = CHECKS
) -> Iterator[Finding]:
    """All that does not hold, as of one moment, however long looking takes. The connection must be in no transaction."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    try:
        with connection.transaction():
            # Ten million entries are summed up in a minute; whoever asked for that waits.
            connection.execute("SET LOCAL statement_timeout = 0")
            connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            connection.execute(f"SET LOCAL work_mem = '{_WORK_MEM}'")
            for check in checks:
                with connection.cursor(name="verify") as cursor:
                    cursor.itersize = _ROWS_AT_ONCE
                    cursor.execute(check.statement)
                    for subject, expected, found in cursor:
                        yield Finding(check, subject, expected, found)
    finally:
        connection.isolation_level = connection.read_only = None


def repair(connection: psycopg.Connection[Any], finding: Finding) -> bool:
    """Set right what was found, by what the entries say now; False where nobody can know."""
    if not finding.check.repair:
        return False
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = 0")
        for statement in finding.check.repair:
            connection.execute(statement, {"subject": finding.subject})
    return True
