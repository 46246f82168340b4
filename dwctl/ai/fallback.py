"""Whether a composite model's next target is tried, and what the caller gets when none has answered. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from dwctl.ai.outcomes import Failed, Outcome
from dwctl.catalog.routing import Fallback
from dwctl.protocols.failures import FailureKind
from dwctl.upstream.errors import ResponseTooLarge
from dwctl.upstream.retry_after import WAIT_STATUSES

_NO_ANSWER = frozenset({FailureKind.NETWORK, FailureKind.TIMEOUT, FailureKind.STREAM_BROKEN})
_PASSING = frozenset({408, 429})


def why_next(fallback: Fallback, outcome: Outcome) -> str | None:
    """Why this outcome of an attempt is not what the caller gets; None: it is."""
    end = outcome.end
    if not fallback.enabled or not isinstance(end, Failed):
        return None
    if outcome.refused_here:
        return end.code if fallback.on_rate_limit else None
    if end.kind in _NO_ANSWER:
        return end.code
    status = outcome.upstream_status
    if status is None:
        # It may not be called, or shows a wrong certificate. What is too large here is too large elsewhere.
        return None if end.code == ResponseTooLarge.code else end.code
    if status >= 300:
        return f"http_{status}" if covers(fallback.on_status, status) else None
    said = outcome.said_status
    if said is None or said >= 500 or said in _PASSING or covers(fallback.on_status, said):
        return "not_an_answer"
    return None


def covers(on_status: Iterable[int], status: int) -> bool:
    """Whether a status is among those: 5 stands for 5xx, 50 for 50x, 500 for itself."""
    return any(
        status // 100 == one if one < 10 else status // 10 == one if one < 100 else status == one
        for one in on_status
    )


def verdict(tried: Sequence[Outcome]) -> tuple[int, Outcome]:
    """What the caller gets when every attempt has failed, and which attempt it is of: the last status that an upstream really said, else
    the last failure.

    A 429 or 503 says when to come back: as soon as one of the targets may be asked again.
    """
    numbers = range(len(tried))
    real = [number for number in numbers if (tried[number].upstream_status or 0) >= 300]
    chosen = real[-1] if real else numbers[-1]
    waits = [
        one.end.retry_after_s
        for one in tried
        if isinstance(one.end, Failed) and one.end.retry_after_s is not None
    ]
    return chosen, _coming_back_in(tried[chosen], min(waits)) if waits else tried[chosen]


def _coming_back_in(outcome: Outcome, seconds: float) -> Outcome:
    end = outcome.end
    if not isinstance(end, Failed) or outcome.status not in WAIT_STATUSES:
        return outcome
    headers = [pair for pair in outcome.headers if pair[0] != "retry-after"]
    headers.append(("retry-after", str(math.ceil(seconds))))
    return msgspec.structs.replace(
        outcome, headers=headers, end=msgspec.structs.replace(end, retry_after_s=seconds)
    )
