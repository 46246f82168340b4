"""How runs end, as values: what is stored of each end, what the caller is told, and whether trying again helps."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest

from dwctl.ai import outcomes
from dwctl.ai.admission import Refused
from dwctl.ai.outcomes import Done, Failed, Outcome, Reason
from dwctl.protocols.failures import FailureKind, read_failure
from dwctl.protocols.usage import TokenUsage
from dwctl.upstream.errors import (
    BadResponse,
    ConnectionFailed,
    Phase,
    ResponseTooLarge,
    Timeout,
    UpstreamError,
)

DONE = Outcome(Done(), 200, b"{}", [], b"{}")
BROKEN_STREAM = Outcome(Failed(FailureKind.STREAM_BROKEN, "upstream_error"), 200, b"", [], b"{}")
ENDS: list[tuple[str, Outcome, int, str | None, bool]] = [
    ("done", DONE, 200, None, False),
    ("no connection", outcomes.unreachable(ConnectionFailed("x")), 502, "upstream_unreachable", True),
    ("cut short", outcomes.unreachable(BadResponse("x")), 502, "upstream_unreachable", True),
    *(
        (phase, outcomes.unreachable(Timeout(phase)), 504, f"upstream_{phase}_timeout", True)
        for phase in Phase
    ),
    ("too large", outcomes.unreachable(ResponseTooLarge()), 502, "upstream_response_too_large", False),
    ("no JSON", outcomes.unreadable(200, "no object"), 502, "http_502", True),
    ("refused", outcomes.refused(Refused("no", code="owner_gone", status=403)), 403, "owner_gone", False),
    ("our bug", outcomes.internal(), 500, "internal_error", False),
    *((reason.name, outcomes.interrupted(reason), reason.status, reason.code, False) for reason in Reason),
]  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "status", "code", "retry_helps"),
    [end[1:] for end in ENDS],
    ids=[end[0] for end in ENDS],
)
def test_an_end_knows_its_status_its_code_and_whether_a_retry_helps(
    outcome: Outcome, status: int, code: str | None, retry_helps: bool
) -> None:
    assert (outcome.status, outcome.error_code, outcome.retry_helps) == (status, code, retry_helps)
    assert outcome.succeeded is (status == 200)


@pytest.mark.parametrize("outcome", [end[1] for end in ENDS[1:]], ids=[end[0] for end in ENDS[1:]])
def test_a_failure_is_stored_with_its_kind_and_can_be_read_again(outcome: Outcome) -> None:
    stored: Any = orjson.loads(orjson.dumps(outcome.failure))
    assert FailureKind(stored["type"])
    read = read_failure(orjson.dumps(stored).decode())
    assert read.message
    assert read.code


@pytest.mark.parametrize("outcome", [end[1] for end in ENDS[1:]], ids=[end[0] for end in ENDS[1:]])
def test_a_caller_is_told_of_a_failure_in_openais_envelope(outcome: Outcome) -> None:
    error = orjson.loads(outcome.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert ("content-type", "application/json") in outcome.headers


@pytest.mark.parametrize("error", [ConnectionFailed("x"), Timeout(Phase.IDLE), ResponseTooLarge()])
def test_what_was_not_reached_has_no_upstream_status(error: UpstreamError) -> None:
    assert outcomes.unreachable(error).upstream_status is None


@pytest.mark.parametrize(
    ("outcome", "usage", "is_charged"),
    [
        (DONE, TokenUsage(9, 0), True),
        (BROKEN_STREAM, TokenUsage(9, 3), True),
        (BROKEN_STREAM, TokenUsage(9, 0), False),
        (BROKEN_STREAM, None, False),
        (outcomes.unreadable(200, "no object"), TokenUsage(9, 3), False),
        (outcomes.internal(), TokenUsage(9, 3), True),
        (outcomes.interrupted(Reason.LEFT), TokenUsage(9, 0), True),
    ],
)
def test_an_upstreams_failure_is_charged_only_where_its_caller_got_something(
    outcome: Outcome, usage: TokenUsage | None, is_charged: bool
) -> None:
    assert msgspec.structs.replace(outcome, usage=usage).is_charged is is_charged
