"""What an account has used: its calls that succeeded, by model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg

from dwctl.access.caller import MANAGERS, Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.billing import money, tariffs
from dwctl.billing.tariffs import TariffPrice
from dwctl.errors import Forbidden
from dwctl.usage import spans
from dwctl.usage.reading import ask, kept
from dwctl.usage.spans import OF_ALL_TIME

Shown = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Accounts:
    """Whose calls: all those of some accounts, or those by some of their keys (`keys`)."""

    ids: tuple[UUID, ...]
    keys: tuple[UUID, ...] | None = None

    def with_key(self, key_id: UUID | None) -> Accounts:
        """Those of one of their keys alone, where one is named."""
        if key_id is None:
            return self
        return Accounts(self.ids, (key_id,) if self.keys is None or key_id in self.keys else ())


def of(connection: psycopg.Connection[Any], caller: Caller, user_id: UUID | None) -> Accounts:
    """Whose usage the caller may read and means: by default that of the account for which they act.

    Of an organisation its members may; of a person who manages one in which that is a member may what was used in its name; of anybody who
    may read all analytics. Raises Forbidden.
    """
    if user_id is None:
        return Accounts((caller.owner_id,))
    mine = user_id == caller.user_id or caller.role_in(user_id) is not None
    if mine or may_all(caller, Resource.ANALYTICS, Operation.READ):
        return Accounts((user_id,))
    managed = [m.organization_id for m in caller.memberships if m.role in MANAGERS]
    shared = ask(connection, "shared_with", {"organizations": managed, "person": user_id})
    if not shared:
        raise Forbidden(f"Insufficient permissions to Read usage for user {user_id}")
    ids = [row.organization_id for row in shared]
    keys = ask(connection, "keys_made_by", {"accounts": ids, "person": user_id})
    return Accounts(tuple(ids), tuple(row.id for row in keys))


def of_key(connection: psycopg.Connection[Any], key_id: UUID) -> Accounts:
    """Calls with one key; of a key that is none, none."""
    owners = ask(connection, "owner_of_key", {"key": key_id})
    return Accounts(tuple(row.user_id for row in owners), (key_id,))


def read(
    connection: psycopg.Connection[Any],
    accounts: Accounts,
    since: datetime | None,
    until: datetime | None,
) -> Shown:
    """What was used in a time, or of all time, as it is shown. The connection is at one `moment`."""
    is_all = since is None and until is None
    sums = kept(connection)
    found = OF_ALL_TIME if is_all else spans.cover(since or spans.EPOCH, until or spans.LATEST, sums)  # fmt: skip
    values = {
        **found.parameters,
        "accounts": list(accounts.ids),
        "owners": [str(id) for id in accounts.ids],
        "keys": None if accounts.keys is None else list(accounts.keys),
    }
    models = ask(connection, "of_accounts", values, of_keys=_of_keys(accounts, "r"))
    (batches,) = ask(connection, "batches_of_accounts", values, of_keys=_of_keys(accounts, "b"))
    text = money.amount_text if is_all else _price_text
    calls = sum(row.calls for row in models)
    cost = sum((row.cost for row in models), Decimal(0))
    realtime = sum((_realtime_cost(row) for row in models), Decimal(0))
    return {
        "total_input_tokens": sum(row.input_tokens for row in models),
        "total_output_tokens": sum(row.output_tokens for row in models),
        "total_request_count": calls,
        "total_batch_count": batches.made,
        "avg_requests_per_batch": calls / batches.made if batches.made else 0.0,
        "batch_request_count": batches.requests,
        "total_cost": text(cost),
        "estimated_realtime_cost": _price_text(realtime),
        "by_model": [
            {
                "model": row.model,
                "input_tokens": row.input_tokens,
                "output_tokens": row.output_tokens,
                "reasoning_tokens": row.reasoning_tokens,
                "cached_tokens": row.cached_tokens,
                "cost": text(row.cost),
                "request_count": row.calls,
            }
            for row in models
        ],
    }


def _of_keys(accounts: Accounts, alias: str) -> str:
    return "true" if accounts.keys is None else f"{alias}.api_key_id = ANY (%(keys)s)"


def _realtime_cost(row: Any) -> Decimal:
    """The same tokens at the model's current realtime tariff; nothing without one."""
    if row.input_price is None:
        return Decimal(0)
    tariff = TariffPrice(
        row.input_price, row.output_price, row.cached_input_price, row.reasoning_price
    )
    return tariffs.price(
        tariff,
        row.input_tokens,
        row.output_tokens,
        cached_tokens=row.cached_tokens,
        reasoning_tokens=row.reasoning_tokens,
    )


def _price_text(value: Decimal) -> str:
    return money.price_text(value) if value else "0"
