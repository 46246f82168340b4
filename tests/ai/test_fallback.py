"""Whether the next target is tried, and what the caller gets when none has answered."""

from __future__ import annotations

from typing import Any

import pytest

from dwctl.ai import outcomes
from dwctl.ai.fallback import covers, verdict, why_next
from dwctl.ai.outcomes import Done, Failed, Outcome, Reason
from dwctl.catalog.routing import Fallback
from dwctl.errors import DwctlError
from dwctl.protocols.failures import FailureKind
from dwctl.upstream.errors import (
    AddressNotAllowed,
    BadResponse,
    ConnectionFailed,
    Phase,
    ResponseTooLarge,
    Timeout,
)


def said(status: int, retry_after_s: float | None = None, shown: int | None = None) -> Outcome:
    """An upstream's own error status."""
    end = Failed(FailureKind.RETRIABLE_STATUS, f"http_{status}", {}, retry_after_s)
    return Outcome(end, shown or status, b"", [], b"", upstream_status=status)


def in_form(said_status: int | None) -> Outcome:
    """200 with an error in it."""
    end = Failed(FailureKind.RETRIABLE_STATUS, "upstream_error")
    return Outcome(end, 502, b"", [], b"", upstream_status=200, said_status=said_status)


def here(code: str = "rate_limit", retry_after_s: int = 3) -> Outcome:
    return outcomes.over_limit(DwctlError(code=code, status=429, retry_after_s=retry_after_s))


GOOD = Outcome(Done(), 200, b"", [], b"", upstream_status=200)
NEVER = Fallback(enabled=False)
NOTHING = Fallback(on_status=())


@pytest.mark.parametrize(
    ("how", "outcome", "why"),
    [
        (Fallback(), GOOD, None),
        *((Fallback(), said(status), f"http_{status}") for status in (429, 500, 502, 503, 504)),
        *((Fallback(), said(status), None) for status in (301, 400, 401, 403, 404, 408, 422, 501)),
        (Fallback(on_status=(5,)), said(501), "http_501"),
        (Fallback(on_status=(40,)), said(401, shown=502), "http_401"),
        (NOTHING, said(500), None),
        *(
            (how, outcomes.unreachable(Timeout(phase)), f"upstream_{phase}_timeout")
            for phase in Phase
            for how in (Fallback(), NOTHING)
        ),
        (NOTHING, outcomes.unreachable(ConnectionFailed()), "upstream_unreachable"),
        (NOTHING, outcomes.unreachable(BadResponse()), "upstream_unreachable"),
        (NOTHING, outcomes.unreachable(AddressNotAllowed()), "upstream_address_not_allowed"),
        (NOTHING, outcomes.unreachable(ConnectionFailed(retryable=False)), "upstream_connection_failed"),
        (NOTHING, outcomes.unreachable(ResponseTooLarge()), None),
        (NOTHING, outcomes.unreadable(200, "empty"), "not_an_answer"),
        *((NOTHING, in_form(status), "not_an_answer") for status in (None, 429, 408, 500, 503)),
        *((NOTHING, in_form(status), None) for status in (400, 401, 404, 422)),
        (Fallback(on_status=(4,)), in_form(400), "not_an_answer"),
        (Fallback(), here(), "rate_limit"),
        (Fallback(), here("concurrency_limit_exceeded"), "concurrency_limit_exceeded"),
        (Fallback(on_rate_limit=False), here(), None),
        (Fallback(on_rate_limit=False), said(429), "http_429"),
        *((Fallback(), outcomes.interrupted(reason), None) for reason in Reason),
        *((NEVER, one, None) for one in (said(500), here(), in_form(None), outcomes.unreachable(ConnectionFailed()))),
    ],
)  # fmt: skip
def test_why_the_next_one_is_tried(how: Fallback, outcome: Outcome, why: str | None) -> None:
    assert why_next(how, outcome) == why


@pytest.mark.parametrize(
    ("on_status", "status", "covered"),
    [
        ((5,), 500, True), ((5,), 599, True), ((5,), 499, False), ((5,), 50, False),
        ((50,), 500, True), ((50,), 509, True), ((50,), 510, False), ((50,), 450, False),
        ((503,), 503, True), ((503,), 504, False), ((), 500, False), ((4, 503), 503, True), ((4, 503), 404, True),
    ],
)  # fmt: skip
def test_a_status_is_named_itself_or_by_its_class_or_by_its_beginning(
    on_status: tuple[int, ...], status: int, covered: bool
) -> None:
    assert covers(on_status, status) is covered


SLOW = outcomes.unreachable(Timeout(Phase.FIRST_BYTE))
LOST = outcomes.unreachable(ConnectionFailed())


@pytest.mark.parametrize(
    ("tried", "number", "status", "retry_after"),
    [
        ([said(429), said(429)], 1, 429, None),
        ([said(429, 7.0), said(429, 30.0)], 1, 429, "7"),
        ([said(429, 0.2), said(503)], 1, 503, "1"),
        ([said(429, 7.0), said(500)], 1, 500, None),
        ([said(503), LOST], 0, 503, None),
        ([said(503, 9.0), SLOW, LOST], 0, 503, "9"),
        ([said(500), said(429)], 1, 429, None),
        ([said(401, shown=502), LOST], 0, 502, None),
        ([LOST, SLOW], 1, 504, None),
        ([SLOW, LOST], 1, 502, None),
        ([in_form(500), LOST], 1, 502, None),
        ([in_form(500), said(500)], 1, 500, None),
        ([here(), here(retry_after_s=2)], 1, 429, "2"),
        ([here(), LOST], 1, 502, None),
        ([here(), said(503)], 1, 503, "3"),
        ([LOST, here()], 1, 429, "3"),
    ],
)
def test_what_the_caller_gets_when_all_have_failed(
    tried: list[Outcome], number: int, status: int, retry_after: str | None
) -> None:
    chosen, outcome = verdict(tried)
    headers: dict[str, Any] = dict(outcome.headers)
    assert (chosen, outcome.status, headers.get("retry-after")) == (number, status, retry_after)
    assert isinstance(outcome.end, Failed)
    assert sum(name == "retry-after" for name, _ in outcome.headers) <= 1
    if retry_after is not None:
        assert outcome.end.retry_after_s is not None
