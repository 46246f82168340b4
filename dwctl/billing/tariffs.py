"""Which tariff prices a call, and what the call costs then. Pure.

A tariff is for calls of one purpose, and with a window for those that promise it. One without a purpose informs, it never prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property, lru_cache
from uuid import UUID

from dwctl.billing.money import EXACT, units

REALTIME = "realtime"
BATCH = "batch"


# (Without slots: what every call asks of a price and a tariff is kept with it, as long as the snapshot has it.)
@dataclass(frozen=True)
class TariffPrice:
    """USD per token.

    cached_input: of prompt tokens that the provider had in its cache; reasoning: of completion tokens that the caller does not see.
    None: what the others of their kind cost. tariff_id: the row that says so.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    reasoning: Decimal | None = None
    tariff_id: UUID | None = None

    @cached_property
    def is_zero(self) -> bool:
        """Whether nothing is charged."""
        return not (self.input or self.output or self.cached_input or self.reasoning)

    @cached_property
    def dearest(self) -> TariffPrice:
        """What each token costs at most."""
        return TariffPrice(max(self._inputs), max(self._outputs))

    @cached_property
    def dearest_units(self) -> tuple[int, int]:
        """The same of a token read and of one written, in `money.units`."""
        return units(self.dearest.input), units(self.dearest.output)

    @property
    def cheapest(self) -> TariffPrice:
        """What each token costs at least."""
        return TariffPrice(min(self._inputs), min(self._outputs))

    @property
    def _inputs(self) -> list[Decimal]:
        return [self.input] if self.cached_input is None else [self.input, self.cached_input]

    @property
    def _outputs(self) -> list[Decimal]:
        return [self.output] if self.reasoning is None else [self.output, self.reasoning]


@dataclass(frozen=True, slots=True)
class ProviderPrice:
    """What the operator pays, in USD per token; None where that is not known. It informs, and is never charged."""

    input: Decimal | None
    output: Decimal | None

    def of(self, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        """What a usage costs the operator; None where tokens were used whose price is not known."""
        cost = Decimal(0)
        for tokens, each in ((prompt_tokens, self.input), (completion_tokens, self.output)):
            if each is not None:
                cost = EXACT.fma(each, Decimal(tokens), cost)
            elif tokens:
                return None
        return cost


@dataclass(frozen=True)
class CurrentTariff:
    """A tariff of one model, in force from `valid_from` until just before `valid_until` (None: for good). Prices: see `TariffPrice`."""

    input: Decimal
    output: Decimal
    purpose: str | None
    window: str | None
    valid_from: datetime
    valid_until: datetime | None = None
    cached_input: Decimal | None = None
    reasoning: Decimal | None = None
    id: UUID | None = None

    def holds(self, at: datetime) -> bool:
        """Whether it is in force at that moment."""
        return self.valid_from <= at and (self.valid_until is None or at < self.valid_until)

    @cached_property
    def price(self) -> TariffPrice:
        """What it charges."""
        return TariffPrice(self.input, self.output, self.cached_input, self.reasoning, self.id)


def pick(
    tariffs: Sequence[CurrentTariff], *, purpose: str, window: str | None, at: datetime
) -> TariffPrice | None:
    """The price of a call that began `at`; None when the model has none for it, so the call costs nothing. See `find`."""
    found = find(tariffs, purpose=purpose, window=window, at=at)
    return None if found is None else found.price


def find(
    tariffs: Sequence[CurrentTariff], *, purpose: str, window: str | None, at: datetime
) -> CurrentTariff | None:
    """The tariff that prices a call that began `at`; None when the model has none for it.

    The first that exists of: (purpose, window), (purpose, no window), (realtime, no window). A batch in a window without a tariff
    of its own therefore pays the realtime price, never that of another window. Flex is purpose batch with its own window.
    """
    for wanted_purpose, wanted_window in _preference(purpose, window):
        found = None
        for one in tariffs:
            # Two at once exist only where rows were written by hand: the newest counts.
            if (
                one.purpose == wanted_purpose
                and one.window == wanted_window
                and one.holds(at)
                and (found is None or found.valid_from < one.valid_from)
            ):
                found = one
        if found is not None:
            return found
    return None


def gap(
    tariffs: Sequence[CurrentTariff], *, purpose: str, window: str | None, at: datetime
) -> str | None:
    """What happens to such calls for want of a tariff of their own, in a sentence.

    None where they have one, or nothing of the model is priced, now or later: it is meant to be free.
    """
    left = [tariff for tariff in tariffs if tariff.valid_until is None or at < tariff.valid_until]
    if all(tariff.purpose is None or tariff.price.is_zero for tariff in left):
        return None
    found = find(tariffs, purpose=purpose, window=window, at=at)
    named = f"{purpose} calls" if window is None else f"{purpose} calls with the window {window}"
    if found is None:
        return f"There is no tariff for {named}: they are free."
    if window is not None and found.window != window:
        return f"There is no tariff for {named}: they pay the {found.purpose} price."
    return None


def price(
    tariff: TariffPrice,
    prompt_tokens: int,
    completion_tokens: int,
    *,
    cached_tokens: int = 0,
    reasoning_tokens: int = 0,
) -> Decimal:
    """What a usage costs, exactly. Cached tokens are among those of the prompt, reasoning tokens among those of the completion."""
    if not (cached_tokens or reasoning_tokens):
        written = EXACT.multiply(tariff.output, Decimal(completion_tokens))
        return EXACT.fma(tariff.input, Decimal(prompt_tokens), written)
    prompt = _priced(prompt_tokens, tariff.input, cached_tokens, tariff.cached_input)
    completion = _priced(completion_tokens, tariff.output, reasoning_tokens, tariff.reasoning)
    return EXACT.add(prompt, completion)


def _priced(tokens: int, price: Decimal, some: int, price_of_some: Decimal | None) -> Decimal:
    """All at one price, or `some` of them at their own. A provider that counts more of these than there are has counted all."""
    if price_of_some is None or not some:
        return EXACT.multiply(price, Decimal(tokens))
    some = min(some, tokens)
    return EXACT.fma(price_of_some, Decimal(some), EXACT.multiply(price, Decimal(tokens - some)))


def is_free(
    tariffs: Sequence[CurrentTariff], *, purpose: str, window: str | None, at: datetime
) -> bool:
    """Whether such a call costs nothing: judged by the tariff that would price it, not by the model's others."""
    picked = pick(tariffs, purpose=purpose, window=window, at=at)
    return picked is None or picked.is_zero


@lru_cache(256)
def _preference(purpose: str, window: str | None) -> Sequence[tuple[str, str | None]]:
    of_window = [] if window is None else [(purpose, window)]
    of_realtime = [] if purpose == REALTIME else [(REALTIME, None)]
    return (*of_window, (purpose, None), *of_realtime)
