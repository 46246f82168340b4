"""Whether everything was written down, once, and adds up: tracking rows, log rows, charges, balance, roll-up."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg

from benchmarks import report
from benchmarks.stage import GRANT, INPUT_PRICE, OUTPUT_PRICE
from benchmarks.upstream import COMPLETION_TOKENS, PROMPT_TOKENS

PRICE = INPUT_PRICE * PROMPT_TOKENS + OUTPUT_PRICE * COMPLETION_TOKENS
"""Of one call."""

_READ = """
SELECT (SELECT count(*) FROM fusillade.requests WHERE state = 'completed'),
       (SELECT count(*) FROM fusillade.requests),
       (SELECT count(*) FROM http_analytics WHERE status_code = 200),
       (SELECT count(*) FROM credits_transactions WHERE transaction_type = 'usage'),
       (SELECT coalesce(sum(amount), 0) FROM credits_transactions WHERE transaction_type = 'usage'),
       (SELECT %(grant)s - balance FROM user_balance_checkpoints WHERE checkpoint_seq > 0),
       (SELECT coalesce(sum(cost), 0) FROM (SELECT cost FROM model_rollups WHERE grain = 0 AND NOT of_all UNION ALL SELECT cost FROM usage_deltas) sums)
"""


@dataclass(frozen=True, slots=True)
class Books:
    """Rows of each kind, and the same money as the ledger, the balance and the roll-up have it."""

    completed: int
    tracked: int
    logged: int
    charged: int
    ledger: Decimal
    taken: Decimal
    rolled_up: Decimal

    @classmethod
    def read(cls, connection: psycopg.Connection[Any]) -> Books:
        """As they stand."""
        row = connection.execute(_READ, {"grant": GRANT}).fetchone()
        assert row is not None
        return cls(*row)

    def __sub__(self, before: Books) -> Books:
        """What came to it since `before`."""
        return Books(*(getattr(self, name) - getattr(before, name) for name in self.__slots__))


def check(books: Books, answers: int, what: str = "answers") -> None:
    """Print whether there is one row of each kind for each answer, and whether the money is exact."""
    rows = (books.completed, books.tracked, books.logged, books.charged)
    report.proven(
        f"tracking, log and ledger rows = {what}",
        holds=set(rows) == {answers},
        what=f"{books.completed:,} = {answers:,}",
    )
    check_money(books)


def check_money(books: Books) -> None:
    """Print whether ledger, balance and roll-up have the same money, to the last digit."""
    exact = books.completed * PRICE
    report.proven(
        "ledger = balance taken = roll-up = rows x price",
        holds=books.ledger == books.taken == books.rolled_up == exact,
        what=f"${books.ledger.normalize():f} = ${exact.normalize():f}",
    )
