"""What this worker has done, counted: how requests ended, how long they took, what was tried again or put off, and why.

Labels are bounded: models are those that there are, all others one name; reasons and codes are those of `protocols.failures` and statuses.
"""

from __future__ import annotations

from collections import Counter

from dwctl.figures.spreads import Spreads

CLAIM_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.06, 0.1, 0.25, 1.0, 5.0)
CLAIM_SIZES = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
RETRIES = tuple(map(float, range(11)))


class Tally:
    """That of this worker. Keys are the labels of the metric, in its order (`metrics`)."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, ...]] = Counter()
        self.late: Counter[tuple[str, ...]] = Counter()
        self.escalated: Counter[tuple[str, ...]] = Counter()
        self.retried: Counter[str] = Counter()
        self.denied: Counter[tuple[str, ...]] = Counter()
        self.statuses: Counter[tuple[str, ...]] = Counter()
        self.pauses: Counter[str] = Counter()
        self.limited = self.panics = 0
        self.seconds = Spreads(SECONDS)
        self.retries_of_success = Spreads(RETRIES)
