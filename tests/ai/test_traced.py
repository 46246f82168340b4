"""What of an answer stands on the span of its attempt; an odd one breaks no call."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from dwctl import config
from dwctl.ai import outcomes, traced
from dwctl.ai.in_progress import Flight
from dwctl.ai.outcomes import Done, Outcome, Reason
from dwctl.protocols.usage import TokenUsage
from dwctl.tracing.setup import tracer_for

USED = {
    "gen_ai.usage.input_tokens": 9,
    "gen_ai.usage.output_tokens": 3,
    "dwctl.usage_source": "reported",
}


def attributes(outcome: Outcome | None) -> dict[str, Any]:
    """Of the span of an attempt that came to that. Nothing is exported: nobody has started it."""
    tracer = tracer_for(config.load({"DWCTL_ENABLE_OTEL_EXPORT": "true"}), "web")
    assert tracer is not None
    flight = Flight(UUID(int=1))
    span = flight.attempt = tracer.server("chat m", None, {})
    tracer.put_away()
    traced.end_attempt(flight, outcome)
    traced.end_attempt(flight, None)
    return dict(span.attributes)  # type: ignore[attr-defined]


def done(stored: bytes) -> Outcome:
    usage = TokenUsage(prompt_tokens=9, completion_tokens=3, total_tokens=12)
    return Outcome(Done(), 200, stored, [], stored, usage=usage)


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (b'{"model": "m", "choices": [{"finish_reason": "stop"}, {"finish_reason": "length"}]}', {"gen_ai.response.model": "m", "gen_ai.response.finish_reasons": ("stop", "length")}),
        (b'{"object": "response", "status": "incomplete"}', {"gen_ai.response.finish_reasons": ("incomplete",)}),
        (b'{"model": "m\\u001b[31m\\n"}', {}),
        (b'{"model": "You said: x", "choices": [{"finish_reason": "You said: x"}]}', {}),
        (b'{"status": "You said: x"}', {}),
        (b'{"choices": [{"finish_reason": null}]}', {}),
        (b'{"choices": [{"finish_reason": 5}]}', {}),
        (b'{"model": "\\ud800"}', {}),
        (b'{"model": "\xff\xfe"}', {}),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", {}),
        (b"[]", {}),
        (b"no JSON", {}),
        (b"", {}),
    ],
    ids=["chat", "response", "unprintable", "quoted", "quoted status", "null", "number", "surrogate", "no_utf8", "deep", "list", "text", "empty"],
)  # fmt: skip
def test_an_answer_tells_what_it_can(stored: bytes, told: dict[str, Any]) -> None:
    assert attributes(done(stored)) == USED | told


def test_what_has_failed_says_why_and_what_was_given_up_that_it_was() -> None:
    assert attributes(outcomes.interrupted(Reason.CANCELLED))["error.type"] == "cancelled"
    assert attributes(outcomes.unreadable(200, "no object")) == {
        "error.type": "http_502",
        "http.response.status_code": 200,
    }
    assert attributes(None) == {"error.type": "stopped"}
