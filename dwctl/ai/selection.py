"""Which of a model's targets a call tries next. Pure.

A standard model is a pool of one. A composite one gives its components: by weight, at random, or in their order. Each is tried at most once
in a round; there is a second round only where `max_attempts` asks for more attempts than there are components.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from enum import IntEnum

from dwctl.catalog.routing import Component, Model, Strategy


class Standing(IntEnum):
    """How a target stands, from best to worst. LEFT_OUT is tried when nothing better is left, RESTING not at all."""

    READY = 0
    LEFT_OUT = 1
    RESTING = 2


def components_of(model: Model) -> Sequence[Component]:
    """The targets that can be called for a model; none where nothing can."""
    if not model.is_composite:
        return () if model.target is None else (Component(model),)
    return [component for component in model.components if component.model.target is not None]


class Selection:
    """The choices of one call, one after the other."""

    def __init__(self, pool: Model, rng: random.Random | None = None) -> None:
        fallback = pool.fallback
        self._random = rng or random
        self._weighted = pool.strategy is Strategy.WEIGHTED_RANDOM
        self._again = fallback.with_replacement and self._weighted
        # Components of the same rank stay in the order in which they were made.
        self.all = sorted(components_of(pool), key=lambda one: (one.sort_order, -one.weight))
        self._round = list(self.all)
        most = fallback.max_attempts or len(self.all)
        self._has_rounds = most > len(self.all)
        self._attempts_left = most if fallback.enabled else 1

    def next(self, standing: Callable[[Component], Standing]) -> Component | None:
        """The component to try now; None where there is none, or where enough were tried."""
        if self._attempts_left <= 0:
            return None
        chosen = self._choose(self._round, standing)
        if chosen is None and self._has_rounds and len(self._round) < len(self.all):
            self._round = list(self.all)
            chosen = self._choose(self._round, standing)
        if chosen is None:
            return None
        self._attempts_left -= 1
        if not self._again:
            self._round.remove(chosen)
        return chosen

    def _choose(
        self, among: Sequence[Component], standing: Callable[[Component], Standing]
    ) -> Component | None:
        standings = [(standing(one), one) for one in among]
        best = min((found for found, _ in standings), default=Standing.RESTING)
        if best is Standing.RESTING:
            return None
        candidates = [one for found, one in standings if found is best]
        if not self._weighted:
            return candidates[0]
        weights = [max(one.weight, 0) for one in candidates]
        if not any(weights):
            return self._random.choice(candidates)
        return self._random.choices(candidates, weights)[0]
