"""Percentiles from counts by slot: as near as promised."""

from __future__ import annotations

import math
import random
from collections import Counter
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from dwctl.usage import latencies


def histogram(calls: dict[int, int]) -> str:
    return format(Decimal(sum(n * 10 ** (12 * slot) for slot, n in calls.items())), "f")


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        pytest.param({}, [None, None], id="no calls"),
        pytest.param({0: 3}, [1.0, 1.0], id="at once"),
        pytest.param({0: 1, 30: 99}, [16.6, 16.6], id="nearly all the same"),
        pytest.param({10: 50, 50: 50}, [2.5, 111.9], id="the middle belongs to the first half"),
        pytest.param({0: 10**11, 50: 2 * 10**11}, [111.9, 111.9], id="very many"),
        pytest.param({10: 0, 50: 1}, [111.9, 111.9], id="what was taken back"),
        pytest.param({10: -1, 50: 2}, [111.9, 111.9], id="what was taken back early"),
        pytest.param({10: 2, 50: -1}, [2.5, 2.5], id="what was taken back early of the slowest"),
        pytest.param({50: -1}, [None, None], id="nothing else"),
    ],
)
def test_percentiles(calls: dict[int, int], found: list[float | None]) -> None:
    assert latencies.percentiles(histogram(calls), (0.5, 0.99)) == found


def test_a_histogram_has_each_slot_as_it_is_whatever_lies_beside_it() -> None:
    chance = random.Random(7)
    for _ in range(300):
        calls = [chance.choice((0, 0, 1, -1, -3, 10**9, -(10**11))) for _ in range(chance.randrange(1, 90))]  # fmt: skip
        found = [*latencies.counts(histogram(dict(enumerate(calls)))), *[0] * 90]
        assert found[: len(calls)] == calls
        assert not any(found[len(calls) :])


def test_every_time_is_within_the_promise(sql: psycopg.Connection[Any]) -> None:
    chance = random.Random(5)
    times = [0, 1, 2, 3, 5, 10, 11, 12, 99, 2**62, *(round(10 ** chance.uniform(0, 9)) for _ in range(300))]  # fmt: skip
    slots = [slot for (slot,) in sql.execute("SELECT latency_slot(ms) FROM unnest(%s::bigint[]) ms", (times,))]  # fmt: skip
    for time, slot in zip(times, slots, strict=True):
        (shown,) = latencies.percentiles(histogram({slot: 1}), (0.5,))
        assert shown is not None
        assert abs(shown - time) <= max(0.05 * time, 1)
        # The statement and the shown time mean the same slot.
        assert slot == (0 if time <= 1 else math.ceil(math.log(time) / math.log(1.1)))
    (added, calls) = sql.execute("SELECT sum(h)::text, histogram_calls(sum(h))::int FROM (SELECT latency_histogram(ms, 1) h FROM unnest(%s::bigint[]) ms) h", (times,)).fetchone() or ("", 0)  # fmt: skip
    assert (Counter(slots), len(times)) == (Counter({slot: n for slot, n in enumerate(latencies.counts(added)) if n}), calls)  # fmt: skip
    for share in (0.01, 0.5, 0.9, 0.999):
        (shown,) = latencies.percentiles(added, (share,))
        nearest = sorted(times)[math.ceil(share * len(times)) - 1]
        assert shown is not None
        assert abs(shown - nearest) <= max(0.05 * nearest, 1)
