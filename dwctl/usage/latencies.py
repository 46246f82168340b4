"""Histograms of how long calls took, and percentiles from them. Pure.

A slot holds the times that lie within a factor of 1.1 (`latency_slot` of migration 0029), and stands for the middle of it: a percentile is within
5 % of the time of the call that has that rank (half a millisecond where times are that short). A histogram is one number (migration 0033): its
digits to the base of 10^12 are the calls of each slot, so that adding numbers adds histograms.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate

_RATIO = 1.1
_DIGITS = 12
_BASE = 10**_DIGITS

Counts = Sequence[int]
"""Calls by slot."""


def counts(histogram: str) -> Counts:
    """The calls of each slot, from the histogram in decimal. Some may be below zero: what is taken back can come before it."""
    whole = histogram.lstrip("-")
    slots = -(-len(whole) // _DIGITS)
    # (A series has a thousand of them: this takes a third of the time of slices.)
    digits = struct.unpack(f"{_DIGITS}s" * slots, whole.zfill(slots * _DIGITS).encode())
    found = list(map(int, reversed(digits)))
    if max(found) >= _BASE // 2:
        found = list(_borrowed_back([*found, 0]))
    return found if whole is histogram else [-calls for calls in found]


def percentiles(histogram: str, shares: Sequence[float]) -> list[float | None]:
    """The times in milliseconds that so large a share of the calls did not exceed; None without calls."""
    found = counts(histogram)
    if min(found) < 0:
        found = [max(calls, 0) for calls in found]
    seen = list(accumulate(found))
    total = seen[-1]
    return [_time(bisect_left(seen, math.ceil(share * total))) if total else None for share in shares]  # fmt: skip


def _borrowed_back(digits: Counts) -> Iterator[int]:
    """What each slot has itself: one below zero has borrowed from the next, and none has half of what fits into it."""
    borrowed = 0
    for digit in digits:
        calls = digit + borrowed
        borrowed = calls >= _BASE // 2
        yield calls - _BASE * borrowed


@cache
def _time(slot: int) -> float:
    """The geometric middle of a slot. The first has what took a millisecond or less."""
    return 1.0 if slot == 0 else round(_RATIO ** (slot - 0.5), 1)
