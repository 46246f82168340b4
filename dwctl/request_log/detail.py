"""One call with everything that is known of it: how it was served, what it cost, where it stood in the queue, its headers and bodies."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from psycopg.rows import dict_row

from dwctl.billing.money import EXACT
from dwctl.db import Connections
from dwctl.errors import NotFound
from dwctl.request_log.filters import Conditions, Filters, Scope, conditions, minted
from dwctl.request_log.pages import Row

_GONE = "not_kept"
"""Why there are no bodies where the log itself gives no reason: the call has, or has left, none; its owner may have deleted them."""

_OF_OPERATORS = (
    "served_by",
    "provider_cost",
    "attempts",
    "routed_model",
    "daemon_id",
    "hostname",
    "pid",
)
"""How it was served, and what that cost the operator."""


def find(connections: Connections, scope: Scope, id: UUID, *, shown: int) -> Row:
    """The call of this request id, and at most so many characters (`shown`) of its bodies. Raises NotFound, also for one outside the scope."""
    with connections.transaction() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        for narrow in _where(scope, id):
            values = {**narrow.values, "id": id, "shown": shown}
            row = cursor.execute(narrow.in_statement("detail"), values, prepare=False).fetchone()
            if row is not None:
                row["sent"] = row["served_by"] is not None
                return _described(as_seen(scope, row))
    raise NotFound(f"Request with ID {id} is not in the log")


def _where(scope: Scope, id: UUID) -> list[Conditions]:
    """Around the time that the id bears, then anywhere: rows may be written by hand."""
    times = minted(id)
    near = Filters(timestamp_after=times[0], timestamp_before=times[1]) if times else Filters()
    wanted = [conditions(scope, near), conditions(scope, Filters())]
    return [Conditions(one.range or ("true",), (), one.values) for one in wanted]


def as_seen(scope: Scope, row: Row) -> Row:
    """A call as its reader sees it."""
    if not scope.as_owner:
        return row
    return {name: None if name in _OF_OPERATORS else value for name, value in row.items()}


def _described(row: Row) -> Row:
    for name in ("request_headers", "response_headers"):
        row[name] = _object(row[name])
    if row["bodies"] is None and row["request_body"] is None and row["response_body"] is None:
        row["bodies"] = _GONE
    tracked = row["queue_id"] is not None
    row["response_id"] = f"resp_{row['queue_id']}" if tracked else None
    row["queue"] = _queue(row) if tracked else None
    row["cost_parts"] = _cost_parts(row)
    row["tariff"] = _tariff(row)
    row["charge"] = _charge(row)
    return row


def _object(text: str | None) -> Any:
    """Headers as they were written down: an object, else nothing."""
    try:
        found = orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _queue(row: Row) -> Row:
    first_byte_ms, started_at = row["duration_to_first_byte_ms"], row["started_at"]
    is_known = first_byte_ms is not None and started_at is not None
    return {
        "state": row["state"],
        "service_tier": row["service_tier"],
        "created_at": row["queued_at"],
        "due_at": row["due_at"],
        "claimed_at": row["claimed_at"],
        "started_at": started_at,
        "first_byte_at": started_at + timedelta(milliseconds=first_byte_ms) if is_known else None,
        "ended_at": row["ended_at"],
        "attempts": row["retry_attempt"],
        "times_lost": row["times_lost"],
        "times_retried": row["retried"],
        "process_id": row["daemon_id"],
        "process": process_of(row),
        "model": row["routed_model"],
        "error": row["error"],
    }


def process_of(row: Row) -> str | None:
    """Who runs it, as people say it; None where nobody does, or the reader does not see it."""
    return None if row["hostname"] is None else f"{row['hostname']} ({row['pid']})"


def _tariff(row: Row) -> Row | None:
    """The row of the price list that set the price; None also where its model is gone, and the list with it."""
    if row["tariff_name"] is None:
        return None
    return {
        "name": row["tariff_name"],
        "api_key_purpose": row["tariff_purpose"],
        "completion_window": row["tariff_window"],
        "valid_from": row["tariff_valid_from"],
    }


def _charge(row: Row) -> Row | None:
    """What the ledger says; None where nothing was charged."""
    if row["transaction_id"] is None:
        return None
    return {
        "transaction_id": row["transaction_id"],
        "amount": row["charged"],
        "created_at": row["charged_at"],
    }


def _cost_parts(row: Row) -> dict[str, Decimal] | None:
    """What the prices come to, as `tariffs.price` adds it up; None for a call without a price."""
    input, output = row["input_price_per_token"], row["output_price_per_token"]
    if None in (row["total_cost"], input, output):
        return None
    cached = min(row["cached_tokens"], row["prompt_tokens"])
    reasoning = min(row["reasoning_tokens"], row["completion_tokens"])
    parts = {
        "input": (row["prompt_tokens"] - cached, input),
        "cached_input": (cached, row["cached_input_price_per_token"]),
        "output": (row["completion_tokens"] - reasoning, output),
        "reasoning": (reasoning, row["reasoning_price_per_token"]),
    }
    whole = {"cached_input": input, "reasoning": output}
    return {
        name: EXACT.multiply(Decimal(tokens), whole[name] if price is None else price)
        for name, (tokens, price) in parts.items()
    }
