"""Histograms while they are counted: one dictionary entry for each set of labels, one addition for each figure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

NO_MODEL = "(unknown)"
"""The label of every name that no model has: those are anybody's invention."""
MOST_SERIES = 10_000
"""Sets of labels that one histogram of a process has at most. They are bounded by what is configured; this is for the day they are not."""


class Spread:
    """How often a figure was how large; the last bucket is everything larger than the last bound."""

    __slots__ = ("buckets", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0


class Spreads:
    """One for each set of labels. `left_out` counts figures that came when there were too many of these."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.by_labels: dict[tuple[str, ...], Spread] = {}
        self.left_out = 0

    def add(self, labels: tuple[str, ...], figure: float) -> None:
        """One more."""
        spread = self.by_labels.get(labels)
        if spread is None:
            if len(self.by_labels) >= MOST_SERIES:
                self.left_out += 1
                return
            spread = self.by_labels[labels] = Spread(self.bounds)
        spread.buckets[bisect_left(self.bounds, figure)] += 1
        spread.total += figure
