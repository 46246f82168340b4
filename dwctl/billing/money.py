"""Money as exact decimals: the arithmetic, what a column can hold, and plain text. Pure.

1 credit is 1 USD. Amounts and prices have 15 digits after the point (numeric(24,15)); nothing is rounded before that boundary.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation

SCALE = 15
LARGEST = Decimal("999999999.999999999999999")
PRICE_SCALE = 8
"""Digits that a price shows at least; more only where it has them."""

EXACT = Context(prec=80, traps=[InvalidOperation, Inexact])
"""Arithmetic that raises rather than rounds: a price has 24 digits, a count of tokens at most 19."""

_ROUNDING = Context(prec=80, rounding=ROUND_HALF_UP, traps=[InvalidOperation])
_UNIT = Decimal(1).scaleb(-SCALE)


def fits(value: Decimal) -> bool:
    """Whether a column holds the value as it is: finite, in range, no digit beyond the scale."""
    return value.is_finite() and abs(value) <= LARGEST and rounded(value) == value


def rounded(value: Decimal) -> Decimal:
    """The value with the scale of the columns, half up as PostgreSQL rounds. In range only."""
    return _ROUNDING.quantize(value, _UNIT)


def chargeable(value: Decimal) -> Decimal:
    """The value, or the most that a column holds: a provider that counts tokens by the billion must not keep its call from being recorded."""
    return min(value, LARGEST)


def units(value: Decimal) -> int:
    """How many of the smallest unit of a column the value is, rounded up: sums of such numbers are exact, and cost little."""
    return int(value.scaleb(SCALE, _ROUNDING).to_integral_value(ROUND_CEILING))


def amount_text(value: Decimal) -> str:
    """Plain text with the ledger's scale; zero is `0`."""
    return format(value, f".{SCALE}f") if value else "0"


def short_text(value: Decimal) -> str:
    """Plain text without zeros at its end."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def price_text(value: Decimal) -> str:
    """Plain text with 8 digits after the point, and further ones only where they say something."""
    whole, _, digits = format(value, f".{SCALE}f").partition(".")
    return f"{whole}.{digits[:PRICE_SCALE]}{digits[PRICE_SCALE:].rstrip('0')}"
