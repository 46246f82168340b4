"""What a call cost, as a sum: tokens times the price of each, which must come to what the ledger took. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from dwctl.billing.money import EXACT

Call = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """So many tokens at so much each. own_price: False where they have the price of the others of their kind."""

    label: str
    tokens: int
    price: str
    amount: str
    own_price: bool = True


@dataclass(frozen=True, slots=True)
class Sum:
    """lines: empty where the call has no price, for the reason in `why_free`. agrees: the lines come to the cost, and the ledger has that."""

    lines: tuple[Line, ...]
    total: Decimal
    agrees: bool
    why_free: str | None = None


def of(call: Call) -> Sum:
    """The sum of a call that is in the log."""
    parts = call["cost_parts"]
    if parts is None:
        return Sum((), Decimal(0), call["charge"] is None, _why_free(call))
    lines = tuple(line for line in _lines(call, parts) if line.tokens)
    total = Decimal(0)
    for line in lines:
        total = EXACT.add(total, Decimal(line.amount))
    charge = call["charge"]
    charged = Decimal(charge["amount"]) if charge else Decimal(0)
    return Sum(lines, total, total == Decimal(call["total_cost"]) == charged)


def _lines(call: Call, parts: Mapping[str, str]) -> tuple[Line, ...]:
    prompt, completion = call.get("prompt_tokens", 0), call.get("completion_tokens", 0)
    cached = min(call.get("cached_tokens", 0), prompt)
    reasoning = min(call.get("reasoning_tokens", 0), completion)
    input, output = call["input_price_per_token"], call["output_price_per_token"]
    cached_price, reasoning_price = (
        call["cached_input_price_per_token"],
        call["reasoning_price_per_token"],
    )
    return (
        Line("Input", prompt - cached, input, parts["input"]),
        Line("Cached input", cached, cached_price or input, parts["cached_input"], bool(cached_price)),
        Line("Output", completion - reasoning, output, parts["output"]),
        Line("Reasoning", reasoning, reasoning_price or output, parts["reasoning"], bool(reasoning_price)),
    )  # fmt: skip


def _why_free(call: Call) -> str:
    if call["usage_source"] == "none" and call["status_code"] < 400:
        return "The answer does not say how many tokens it took (speech, images, units of its server's own), so it was not priced."
    if call["usage_source"] == "none":
        return "No tokens were used, so there is nothing to charge."
    if call["status_code"] >= 400:
        return "What a provider's failure used is not charged."
    return "The model has no tariff for such calls: they are free."
