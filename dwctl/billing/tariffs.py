"""Which tariff prices a call, and what the call costs then. Pure.

A tariff is for calls of one purpose, and with a window for those that promise it. One without a purpose informs, it never prices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from dwctl.billing.money import EXACT

REALTIME = "realtime"
BATCH = "batch"


@dataclass(frozen=True, slots=True)
class TariffPrice:
    """USD per token."""

    input: Decimal
    output: Decimal

    @property
    def is_zero(self) -> bool:
        """Whether nothing is charged."""
        return not (self.input or self.output)


@dataclass(frozen=True, slots=True)
class CurrentTariff:
    """A tariff of one model, in force from `valid_from` until just before `valid_until` (None: for good). Prices in USD per token."""

    input: Decimal
    output: Decimal
    purpose: str | None
    window: str | None
    valid_from: datetime
    valid_until: datetime | None = None

    def holds(self, at: datetime) -> bool:
        """Whether it is in force at that moment."""
        return self.valid_from <= at and (self.valid_until is None or at < self.valid_until)

    @property
    def price(self) -> TariffPrice:
        """What it charges."""
        return TariffPrice(self.input, self.output)


def pick(
    tariffs: Sequence[CurrentTariff], *, purpose: str, window: str | None, at: datetime
) -> TariffPrice | None:
    """The price of a call that began `at`; None when the model has none for it, so the call costs nothing.

    The first that exists of: (purpose, window), (purpose, no window), (realtime, no window). A batch in a window without a tariff
    of its own therefore pays the realtime price, never that of another window. Flex is purpose batch with its own window.
    """
    for wanted_purpose, wanted_window in _preference(purpose, window):
        matching = (t for t in tariffs if t.purpose == wanted_purpose and t.window == wanted_window)
        found = _newest(tariff for tariff in matching if tariff.holds(at))
        if found is not None:
            return found.price
    return None


def price(tariff: TariffPrice, prompt_tokens: int, completion_tokens: int) -> Decimal:
    """What a usage costs, exactly. Reasoning tokens are among the completion tokens already."""
    completion = EXACT.multiply(tariff.output, Decimal(completion_tokens))
    return EXACT.fma(tariff.input, Decimal(prompt_tokens), completion)


def is_free(
    tariffs: Sequence[CurrentTariff], *, purpose: str, window: str | None, at: datetime
) -> bool:
    """Whether such a call costs nothing: judged by the tariff that would price it, not by the model's others."""
    picked = pick(tariffs, purpose=purpose, window=window, at=at)
    return picked is None or picked.is_zero


def _preference(purpose: str, window: str | None) -> Iterator[tuple[str, str | None]]:
    if window is not None:
        yield purpose, window
    yield purpose, None
    if purpose != REALTIME:
        yield REALTIME, None


def _newest(tariffs: Iterable[CurrentTariff]) -> CurrentTariff | None:
    # Two at once exist only where rows were written by hand.
    return max(tariffs, key=lambda tariff: tariff.valid_from, default=None)
