"""What a caller is told of its limits: headers on every answer, and the refusal. Pure.

The names and forms are OpenAI's: `x-ratelimit-limit-requests: 60`, `x-ratelimit-remaining-requests: 59`, `x-ratelimit-reset-requests: 1s`
(until the bucket is full again), and the same for tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum

from dwctl.errors import DwctlError
from dwctl.limits.demands import Demand, Whose

Headers = list[tuple[str, str]]

_LONGEST_S = 365 * 86400
_NAMES = {Whose.MODEL: "model", Whose.KEY: "API key", Whose.COMPONENT: "model's component"}


class Kind(IntEnum):
    """Of which kind a limit is. The values are those of `exchange_limits`."""

    RATE = 1
    CONCURRENCY = 2
    TOKENS = 3


_CODES = {
    Kind.RATE: "rate_limit",
    Kind.CONCURRENCY: "concurrency_limit_exceeded",
    Kind.TOKENS: "tokens_per_minute",
}


class LimitReached(DwctlError):
    """A limit is reached. Try again after the time in Retry-After."""

    code = "rate_limit"
    status = 429
    retryable = True

    def __init__(self, by: Demand, kind: Kind, wait_s: float, headers: Headers) -> None:
        """`wait_s`: when the same call can pass if nobody takes anything meanwhile; for concurrency nobody knows."""
        super().__init__(
            _text(by, kind),
            code=_CODES[kind],
            retry_after_s=min(_LONGEST_S, max(1, math.ceil(wait_s))),
        )
        self.kind = kind
        self.whose = by.whose
        self.wait_s = wait_s
        self.headers = headers


def headers_of(
    demands: Sequence[Demand],
    calls_left: Sequence[float | None],
    tokens_left: Sequence[float | None],
) -> Headers:
    """Of the buckets with the least in them; none for limits of which there is no bucket. Components are nobody's business."""
    found: Headers = []
    calls: list[tuple[float, float, float]] = []
    tokens: list[tuple[float, float, float]] = []
    for one, left, tokens_of_it in zip(demands, calls_left, tokens_left, strict=True):
        if one.whose is Whose.COMPONENT:
            continue
        if left is not None and one.burst and one.rate:
            calls.append((left, one.burst, one.rate))
        if tokens_of_it is not None and one.per_minute:
            tokens.append((tokens_of_it, one.per_minute, one.per_minute / 60))
    for name, buckets in (("requests", calls), ("tokens", tokens)):
        if buckets:
            left, size, rate = min(buckets)
            found += [
                (f"x-ratelimit-limit-{name}", f"{size:.0f}"),
                (f"x-ratelimit-remaining-{name}", str(max(0, math.floor(left + 1e-6)))),
                (f"x-ratelimit-reset-{name}", duration((size - left) / rate)),
            ]
    return found


def duration(seconds: float) -> str:
    """As OpenAI writes it: `0s`, `12ms`, `1.5s`, `6m0s`, `2h3m20s`. Rounded up to the next millisecond, from a minute on to the next second."""
    ms = max(0, math.ceil(min(seconds, _LONGEST_S) * 1000 - 1e-6))
    if ms < 1000:
        return f"{ms}ms" if ms else "0s"
    if ms < 60_000:
        return f"{ms / 1000:g}s"
    minutes, left = divmod(math.ceil(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{left}s" if hours else f"{minutes}m{left}s"


def _text(by: Demand, kind: Kind) -> str:
    name = _NAMES[by.whose]
    if kind is Kind.RATE:
        return (
            f"You are sending requests too quickly: this {name} takes {by.rate:g} a second, and {by.burst:.0f} at once."
            " Slow down, and try again after the time in Retry-After."
        )
    if kind is Kind.CONCURRENCY:
        return (
            f"Too many concurrent requests: this {name} runs {by.capacity} at once."
            " Wait for some to finish, then try again."
        )
    return (
        f"Too many tokens: this {name} takes {by.per_minute:.0f} a minute, prompts and answers together."
        " Try again after the time in Retry-After, with a shorter prompt or a lower limit for the answer."
    )
