"""What running a file would cost, by the sums that its upload kept: no line is read for it.

Input tokens are guessed by bytes, output tokens by what the model's answers were like lately.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from dwctl import clock, sql
from dwctl.billing import money, tariffs
from dwctl.billing.tariffs import CurrentTariff
from dwctl.catalog.loader import tariff_of

_QUERIES = sql.load("dwctl.files")
_BYTES_A_TOKEN = 4
_EMBEDDINGS = "EMBEDDINGS"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a file asks of one model, and what is known of the model. calls: how many answers `completion_tokens` is the sum of."""

    model: str
    requests: int
    bytes: int
    type: str | None = None
    tariffs: Sequence[CurrentTariff] = ()
    completion_tokens: int = 0
    calls: int = 0


@dataclass(frozen=True, slots=True)
class ModelEstimate:
    """Of one model; `estimated_cost` in USD, None where the model has no price for it."""

    model: str
    request_count: int
    estimated_input_tokens: int
    estimated_output_tokens: int
    estimated_cost: Decimal | None


def estimate(asked: Asked, *, window: str, at: datetime) -> ModelEstimate:
    """The estimate for a batch in that window, by the tariff that would price it."""
    input_tokens = asked.bytes // _BYTES_A_TOKEN
    output_tokens = _output_tokens(asked, input_tokens)
    tariff = tariffs.pick(asked.tariffs, purpose=tariffs.BATCH, window=window, at=at)
    cost = None if tariff is None else tariffs.price(tariff, input_tokens, output_tokens)
    return ModelEstimate(asked.model, asked.requests, input_tokens, output_tokens, cost)


def _output_tokens(asked: Asked, input_tokens: int) -> int:
    if asked.type == _EMBEDDINGS:
        return asked.requests
    if asked.calls:
        average = Decimal(asked.completion_tokens) / asked.calls
        return int(average.to_integral_value(ROUND_HALF_UP)) * asked.requests
    return input_tokens * 11 // 10


def of_file(session: Session, file_id: UUID, window: str) -> dict[str, Any]:
    """The answer for one file: its models by name, and their sums. (One that was written by hand is counted first; the caller commits.)"""
    connection = session.connection()
    connection.exec_driver_sql(_QUERIES["count_file"], {"file": file_id})
    rows = connection.exec_driver_sql(_QUERIES["estimate"], {"file": file_id}).all()
    now = clock.now()
    found = [estimate(_asked(row), window=window, at=now) for row in rows]
    return {
        "file_id": str(file_id),
        "total_requests": sum(model.request_count for model in found),
        "total_estimated_input_tokens": sum(model.estimated_input_tokens for model in found),
        "total_estimated_output_tokens": sum(model.estimated_output_tokens for model in found),
        "total_estimated_cost": money.short_text(sum((m.estimated_cost or Decimal(0) for m in found), Decimal(0))),
        "models": [_shown(model) for model in found],
    }  # fmt: skip


def _asked(row: Any) -> Asked:
    return Asked(
        row.model,
        row.requests,
        row.bytes,
        row.type,
        tuple(tariff_of(part) for part in row.tariffs or ()),
        int(row.completion_tokens or 0),
        int(row.calls or 0),
    )


def _shown(model: ModelEstimate) -> dict[str, Any]:
    return {
        "model": model.model,
        "request_count": model.request_count,
        "estimated_input_tokens": model.estimated_input_tokens,
        "estimated_output_tokens": model.estimated_output_tokens,
        "estimated_cost": money.short_text(model.estimated_cost or Decimal(0)),
        # A free model's 0 is a price, that of a model without a tariff (or that is not there any more) is none.
        "price_known": model.estimated_cost is not None,
    }
