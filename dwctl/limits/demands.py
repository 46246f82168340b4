"""What one call may be refused by: the limits of a model, of a key, of a component, as numbers that the database can work with. Pure."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

_SLOWEST, _FASTEST = 1e-9, 1e9
_MOST = 1e15
_MOST_AT_ONCE = 2**31 - 1


class Whose(StrEnum):
    """Of what a limit is."""

    MODEL = "model"
    KEY = "key"
    COMPONENT = "component"


class Demand(NamedTuple):
    """The limits of one subject. None: no limit of that kind.

    rate: calls a second; burst: how many at once after a rest. capacity: how many run at the same time. per_minute: LLM tokens.
    """

    whose: Whose
    subject: str
    rate: float | None
    burst: float | None
    capacity: int | None
    per_minute: float | None

    @property
    def is_held(self) -> bool:
        """Whether something must be given back when the call ends."""
        return self.capacity is not None or self.per_minute is not None


def demand(
    whose: Whose,
    id: object,
    *,
    requests_per_second: float | None = None,
    burst_size: int | None = None,
    capacity: int | None = None,
    tokens_per_minute: int | None = None,
) -> Demand | None:
    """What is set, made whole; None where nothing of it is a limit. Nothing, zero and below is no limit.

    A burst is at least one call; where none is set it is the rate, rounded up.
    """
    rate = burst = None
    if requests_per_second is not None and requests_per_second > 0:
        rate = min(max(requests_per_second, _SLOWEST), _FASTEST)
        chosen = burst_size if burst_size is not None and burst_size > 0 else math.ceil(rate)
        burst = float(min(max(chosen, 1), _MOST))
    most = min(capacity, _MOST_AT_ONCE) if capacity is not None and capacity > 0 else None
    per_minute = (
        float(min(tokens_per_minute, _MOST))
        if tokens_per_minute is not None and tokens_per_minute > 0
        else None
    )
    if rate is None and most is None and per_minute is None:
        return None
    return Demand(whose, f"{whose}:{id}", rate, burst, most, per_minute)
