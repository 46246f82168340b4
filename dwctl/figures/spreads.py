"""Histograms while they are counted: one dictionary entry for each set of labels, one addition for each figure."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

NO_MODEL = "(unknown)"
"""The label of every name that no model has: those are anybody's invention."""
MOST_SERIES = 10_000
"""Sets of labels that one histogram of a process has at most. They are bounded by what is configured; this is for the day they are not."""

NOTED_AT_MOST = 256


class Spread:
    """How often a figure was how large; the last bucket is everything larger than the last bound."""

    __slots__ = ("buckets", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0


class Spreads:
    """One for each set of labels. Figures are noted where they arise, and sorted into their buckets many at a time, which costs a third."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._by_labels: dict[tuple[str, ...], Spread] = {}
        self._left_out = 0
        self._noted: list[tuple[tuple[str, ...], float]] = []

    def add(self, labels: tuple[str, ...], figure: float) -> None:
        """One more."""
        self._noted.append((labels, figure))
        if len(self._noted) >= NOTED_AT_MOST:
            self._sort()

    @property
    def by_labels(self) -> dict[tuple[str, ...], Spread]:
        """All that was added."""
        self._sort()
        return self._by_labels

    @property
    def left_out(self) -> int:
        """How many figures came when there were too many sets of labels."""
        self._sort()
        return self._left_out

    def _sort(self) -> None:
        noted, self._noted = self._noted, []
        alike = defaultdict[tuple[str, ...], list[float]](list)
        for labels, figure in noted:
            alike[labels].append(figure)
        for labels, figures in alike.items():
            self.add_all(labels, figures)

    def add_all(self, labels: tuple[str, ...], figures: Sequence[float]) -> None:
        """Many more of the same labels, from somebody who notes them himself."""
        if not figures:
            return
        spread = self._by_labels.get(labels)
        if spread is None:
            if len(self._by_labels) >= MOST_SERIES:
                self._left_out += len(figures)
                return
            spread = self._by_labels[labels] = Spread(self.bounds)
        bounds, buckets = self.bounds, spread.buckets
        for figure in figures:
            buckets[bisect_left(bounds, figure)] += 1
        spread.total += sum(figures)
