"""The clock that follows the database's where the two are far apart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from dwctl import clock


@pytest.fixture(autouse=True)
def right_again() -> Iterator[None]:
    yield
    clock.follow(datetime.now(UTC))


def reference(ahead_s: float) -> datetime:
    return datetime.fromtimestamp(time.time() + ahead_s, UTC)


@pytest.mark.parametrize("ahead_s", [-4.0, -0.5, 0.0, 0.5, 4.0])
def test_small_differences_mean_nothing(ahead_s: float) -> None:
    assert not clock.follow(reference(ahead_s))
    assert clock.off_s() == 0


@pytest.mark.parametrize("ahead_s", [-1e7, -6.0, 6.0, 3600.0, 1e7])
def test_large_ones_are_followed_and_forgotten(ahead_s: float) -> None:
    assert clock.follow(reference(ahead_s))
    assert clock.time_s() == pytest.approx(time.time() + ahead_s, abs=1)
    assert clock.now().timestamp() == pytest.approx(time.time() + ahead_s, abs=1)
    assert clock.uuid7_seconds(clock.uuid7()) == pytest.approx(time.time() + ahead_s, abs=1)
    # It is not steered to and fro by how long a look takes.
    assert not clock.follow(reference(ahead_s + 1))
    assert clock.follow(reference(0))
    assert clock.off_s() == 0
