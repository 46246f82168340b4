"""Whether and when a failed request is tried again. Pure.

With the defaults the delays are about 1, 2, 4, 8, 10, 10, ... seconds, each spread by up to a quarter so that what failed together does
not come back together. An upstream that names a time (`Retry-After`) is taken at its word. Nothing is tried again past the deadline.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Times in seconds; `max_retries` None: as often as the deadline allows."""

    max_retries: int | None = 1000
    backoff_s: float = 1.0
    factor: float = 2.0
    max_backoff_s: float = 10.0
    stop_before_deadline_s: float | None = 0.0


def delay(
    policy: Policy, *, attempt: int, left_s: float, retry_after_s: float | None = None
) -> float | None:
    """Seconds until the next try; None when there is none. `attempt` counts the tries that were made before this one, `left_s` is
    the time until the deadline.
    """
    if policy.max_retries is not None and attempt >= policy.max_retries:
        return None
    wait_s = _backoff_s(policy, attempt) * random.uniform(1.0, 1.25)
    if retry_after_s is not None:
        wait_s = max(wait_s, retry_after_s)
    if wait_s > left_s - (policy.stop_before_deadline_s or 0.0):
        return None
    return wait_s


def why_not(policy: Policy, *, attempt: int) -> str:
    """Why `delay` gave none, as a label."""
    exhausted = policy.max_retries is not None and attempt >= policy.max_retries
    return "max_retries" if exhausted else "deadline"


def _backoff_s(policy: Policy, attempt: int) -> float:
    try:
        return min(policy.max_backoff_s, policy.backoff_s * policy.factor ** min(attempt, 64))
    except OverflowError:
        return policy.max_backoff_s
