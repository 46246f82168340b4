"""The queue on one page: what waits and runs by model and tier, what is due when, what comes next, what is paused, and how fast it goes."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

import psycopg

from dwctl import sql
from dwctl.monitoring import queue_depth

_QUERIES = sql.load("dwctl.monitoring")

WINDOWS = ("1h", "4h", "12h", "24h", "7d")
"""Within which it is said how much is due. What is due later is in `pending` alone."""
_EVER = "100000d"
_AT_ONCE = "SELECT " + ", ".join(
    f"(SELECT json_agg(part) FROM (\n{_QUERIES[name]}\n) part) AS {name}"
    for name in ("flying_by_tier", "pending", "heads", "pauses", "rates")
)
"""All of it in one statement, so that its numbers are of one moment: each part as a list of its rows."""


def described(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """The answer. Rates in lines of batches a second, ages in seconds."""
    row = connection.execute(_AT_ONCE, {"windows": [*WINDOWS, _EVER]}).fetchone()
    assert row is not None
    flying, pending, heads, pauses, rates = (found or [] for found in row)
    running = {(one["model"], one["tier"]): one["requests"] for one in flying}
    waiting = queue_depth.tiers(tuple(one.values()) for one in pending)
    tiers = [_tier(one, running) for one in waiting]
    rate = sum(
        one["lines"] / one["seconds"] for one in rates if one["lines"] > 1 and one["seconds"] > 0
    )
    left = sum(tier["pending"] for tier in tiers if tier["tier"] == "batch")
    return {
        "pending": sum(tier["pending"] for tier in tiers),
        "running": sum(running.values()),
        "lines_per_second": round(rate, 3) if rate else None,
        "drained_in_s": round(left / rate) if rate else None,
        "tiers": tiers,
        "next": [_head(one) for one in heads],
        "pauses": [one | {"paused_until": _moment(one["paused_until"])} for one in pauses],
    }


def _tier(one: queue_depth.Tier, running: dict[tuple[str, str], int]) -> dict[str, Any]:
    due = dict(one.due)
    return {
        **asdict(one),
        "pending": due.pop(_EVER),
        "running": running.get((one.model, one.tier), 0),
        "due": due,
    }


def _head(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": one["id"],
        "batch_id": None if one["is_single"] else one["batch_id"],
        "model": one["model"],
        "tier": "flex" if one["is_single"] else "batch",
        "created_at": _moment(one["created_at"]),
        "deadline": _moment(one["deadline"]),
        "owner_email": one["owner_email"],
        "attempts": one["retry_attempt"],
    }


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
