"""Admission by capacity: a batch is let in where its models can end it, beside all that is to end before, within its window.

A model's headroom in a window is its throughput x the window x the window's relaxation factor. What is counted against it are the lines not yet
ended of the batches that are due before the window is over, single requests that wait for a worker, and what is reserved. The count, the
decision and the batch itself are one transaction, with the models locked: what was admitted is counted by whoever comes next.
(docs/decisions/0025-admission-by-capacity.md)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from dwctl import sql
from dwctl.ai.idempotency import NEVER_AGAIN
from dwctl.config import Batches, window_seconds
from dwctl.errors import DwctlError

_QUERIES = sql.load("dwctl.batches")
_LONGEST_WAIT_S = 86400


class AtCapacity(DwctlError):
    """No room for the batch within its window."""

    code = "insufficient_capacity"
    status = 429
    retryable = True


class LargerThanWindow(AtCapacity):
    """The batch alone is more than a model can answer within the window."""

    retryable = False
    headers = (NEVER_AGAIN,)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a batch wants of one model. throughput: requests a second, None where nobody has said."""

    model_id: UUID
    alias: str
    throughput: float | None
    requests: int


@dataclass(frozen=True, slots=True)
class Headroom:
    """What a model can end within a window, and what it has to. `throughput` in requests a second."""

    alias: str
    throughput: float
    limit: float
    taken: int
    wanted: int

    @property
    def is_enough(self) -> bool:
        """Whether what is wanted fits beside what is taken."""
        return self.taken + self.wanted <= self.limit

    @property
    def can_ever_be(self) -> bool:
        """Whether what is wanted would fit where nothing is taken."""
        return self.wanted <= self.limit

    @property
    def wait_s(self) -> float:
        """Seconds until what is too much has been worked off; infinite where that is never."""
        excess = self.taken + self.wanted - self.limit
        return excess / self.throughput if self.throughput > 0 and self.limit > 0 else math.inf


def admit(
    connection: psycopg.Connection[Any], rules: Batches, window: str, demands: Sequence[Demand]
) -> None:
    """Lock the models and let the demands in, all or none. The caller makes the batch in the same transaction. Raises AtCapacity."""
    aliases = [demand.alias for demand in demands]
    ids = [demand.model_id for demand in demands]
    connection.execute(_QUERIES["lock_models"], {"ids": ids})
    # After the lock, in a statement of its own: it sees what the one before let in.
    values = {"ids": ids, "aliases": aliases, "window": window, "window_s": window_seconds(window)}
    taken: dict[str, int] = dict(connection.execute(_QUERIES["taken"], values).fetchall())
    rooms = [headroom_of(demand, taken.get(demand.alias, 0), rules, window) for demand in demands]
    full = [room for room in rooms if not room.is_enough]
    if full:
        raise refusal(window, full)


def headroom_of(demand: Demand, taken: int, rules: Batches, window: str) -> Headroom:
    """The headroom of the demanded model. Pure."""
    throughput = rules.default_throughput if demand.throughput is None else demand.throughput
    throughput = max(throughput, 0.0)
    factor = rules.window_relaxation_factors.get(window, 1.0)
    limit = throughput * window_seconds(window) * factor
    return Headroom(demand.alias, throughput, limit, taken, demand.requests)


def refusal(window: str, full: Sequence[Headroom]) -> AtCapacity:
    """Names the models that are full, and when there may be room, where there ever is."""
    names = ", ".join(room.alias for room in full)
    begin = f"Insufficient capacity for {window} completion window. The following models are currently at capacity: {names}."
    never = [f"{room.alias} ({max(room.limit, 0):.0f})" for room in full if not room.can_ever_be]
    if never:
        return LargerThanWindow(
            f"{begin} The batch alone is more than they answer within that window: {', '.join(never)} requests at most."
            " Split it, or use a longer completion window."
        )
    longest = min(window_seconds(window), _LONGEST_WAIT_S)
    wait_s = max(1, math.ceil(min(max(room.wait_s for room in full), longest)))
    return AtCapacity(
        f"{begin} Try again later or use a longer completion window.",
        retry_after_s=wait_s,
        members={"retry_after_seconds": wait_s},
    )
