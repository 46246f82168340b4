import math

import pytest

from dwctl.queue.retry import Policy, delay

FAR = 3600.0


def spread(policy: Policy, attempt: int, **more: float) -> tuple[float, float]:
    """The least and the greatest of many delays."""
    found = [delay(policy, attempt=attempt, left_s=more.get("left_s", FAR)) for _ in range(200)]
    known = [seconds for seconds in found if seconds is not None]
    assert len(known) == len(found)
    return min(known), max(known)


@pytest.mark.parametrize(
    ("attempt", "base_s"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 10), (5, 10), (1000, 10)]
)
def test_delays_double_up_to_the_most_and_are_spread_by_a_quarter(
    attempt: int, base_s: float
) -> None:
    least, most = spread(Policy(max_retries=None), attempt)
    assert base_s <= least < most <= base_s * 1.25
    assert most - least > base_s * 0.1


def test_a_huge_number_of_attempts_is_no_overflow() -> None:
    least, _ = spread(Policy(max_retries=None, factor=1e10), 10**9)
    assert math.isfinite(least)


@pytest.mark.parametrize(
    ("most", "attempt", "again"),
    [(3, 0, True), (3, 2, True), (3, 3, False), (0, 0, False), (None, 10**6, True)],
)
def test_there_are_only_so_many_retries(most: int | None, attempt: int, again: bool) -> None:
    assert (delay(Policy(max_retries=most), attempt=attempt, left_s=FAR) is not None) is again


@pytest.mark.parametrize(("left_s", "again"), [(1.3, True), (0.9, False), (0.0, False), (-5.0, False)])  # fmt: skip
def test_nothing_is_tried_again_past_the_deadline(left_s: float, again: bool) -> None:
    assert (delay(Policy(), attempt=0, left_s=left_s) is not None) is again


def test_retries_may_stop_some_time_before_the_deadline() -> None:
    policy = Policy(stop_before_deadline_s=900.0)
    assert delay(policy, attempt=0, left_s=905.0) is not None
    assert delay(policy, attempt=0, left_s=900.0) is None
    assert delay(Policy(stop_before_deadline_s=None), attempt=0, left_s=1.3) is not None
    assert delay(Policy(stop_before_deadline_s=-60.0), attempt=0, left_s=-30.0) is not None


def test_an_upstream_that_names_a_time_is_taken_at_its_word() -> None:
    assert delay(Policy(), attempt=0, left_s=FAR, retry_after_s=42.0) == 42.0
    # But it cannot hurry us, nor make us wait past the deadline.
    soon = delay(Policy(), attempt=3, left_s=FAR, retry_after_s=0.0)
    assert soon is not None
    assert soon >= 8.0
    assert delay(Policy(), attempt=0, left_s=30.0, retry_after_s=42.0) is None
