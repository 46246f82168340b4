"""What recorders leave for the sums, by SQL."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg

NOBODY = UUID(int=0)


def today() -> datetime:
    """The day's beginning, asked anew: a long run of tests may go past midnight."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def add(connection: psycopg.Connection[Any], at: datetime, **more: Any) -> None:
    """One call of 10 and 5 tokens at 0.1 USD, by nobody unless `user_id` says."""
    row = {
        "at": at,
        "model": "m",
        "user_id": NOBODY,
        "api_key_id": NOBODY,
        "status_code": 200,
        "calls": 1,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "reasoning_tokens": 0,
        "cached_tokens": 0,
        "total_tokens": 15,
        "cost": Decimal("0.1"),
        "duration_ms": 100,
        "ttfb_ms": 10,
    } | more
    names, marks = ", ".join(row), ", ".join(["%s"] * len(row))
    connection.execute(f"INSERT INTO usage_deltas ({names}) VALUES ({marks})", list(row.values()))  # type: ignore[arg-type]
