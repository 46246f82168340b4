"""Requests that this worker holds ahead: when a call ends, the next one of its model begins in its place at once.

Without that a place stands empty while an end is written down and the next request is claimed, which costs calls of 100 ms a fifth of what
their model could do. The caps hold all the same: what is held ahead counts for none, and begins only in the place of a call that has ended
here and still counts (docs/decisions/0029). Few are held, and only of models that keep this worker busy; those with the nearest deadline
begin first.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import count

from dwctl.queue.leases import Job

_FROM = 8
"""Of a model of which fewer run here the places are worth little."""
_MOST = 100
_DRY_S = 0.25


class Ahead:
    """Those of this worker."""

    def __init__(self) -> None:
        self._held: dict[str, list[tuple[datetime, int, Job]]] = {}
        self._number = count()
        self._dry_until: dict[str, float] = {}

    def add(self, wanted: Mapping[str, int], jobs: Sequence[Job]) -> None:
        """Hold these, which are what came of what was `wanted`."""
        came = Counter(job.model for job in jobs)
        for model, most in wanted.items():
            if came[model] < most:
                # Nothing is left in the queue, or another claim had it.
                self._dry_until[model] = time.monotonic() + _DRY_S
        for job in jobs:
            held = self._held.setdefault(job.model, [])
            heapq.heappush(held, (job.deadline, next(self._number), job))

    def next(self, model: str) -> Job | None:
        """The one that takes the place of a call of that model; from now on it is not held any more."""
        held = self._held.get(model)
        return heapq.heappop(held)[2] if held else None

    def drop(self, model: str | None = None) -> list[Job]:
        """Hold none of a model (of any) any more: they are to be given back."""
        models = list(self._held) if model is None else [model]
        return [job for one in models for _, _, job in self._held.pop(one, ())]

    def is_low(self, model: str, running: int) -> bool:
        """Whether more should be held."""
        held = len(self._held.get(model, ()))
        return running >= _FROM and 2 * held < _share(running) and not self._is_dry(model)

    def wanted(self, running: Mapping[str, int], most: int) -> dict[str, int]:
        """How many more to hold of each model of which so many run here, at most so many altogether."""
        found: dict[str, int] = {}
        for model, number in running.items():
            if most > 0 and self.is_low(model, number):
                found[model] = min(most, _share(number) - len(self._held.get(model, ())))
                most -= found[model]
        return found

    def without_places(self, running: Mapping[str, int]) -> list[Job]:
        """Those of models of which nothing runs here any more, and which are not held any more: no place will be free for them."""
        return [
            job for model in list(self._held) if not running.get(model) for job in self.drop(model)
        ]

    def _is_dry(self, model: str) -> bool:
        return self._dry_until.get(model, 0.0) > time.monotonic()


def _share(running: int) -> int:
    return min(_MOST, running)
