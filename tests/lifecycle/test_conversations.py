"""Conversations that go on here: `previous_response_id` and `item_reference`, in every mode, through real processes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway import Gateway, Json, marker
from tests.protocols.openresponses.schema import check_response, events_of

MODES: dict[str, Json] = {
    "realtime": {},
    "stream": {"stream": True},
    "background": {"background": True},
    "flex": {"service_tier": "flex"},
    "flex stream": {"service_tier": "flex", "stream": True},
    "flex background": {"service_tier": "flex", "background": True},
}
SAID = "Hello there friend"


def ended(stage: Gateway, answer: Any) -> Json:
    """The Response object in the end, however it was asked for."""
    assert answer.ok, answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        stream = b"".join(f + b"\n\n" for f in answer.content.split(b"\n\n") if f and f[:1] != b":")
        found: Json = events_of(stream)[-1]["response"]
        return found
    found = answer.json()
    return stage.over(found["id"]) if answer.status_code == 202 else found


def told(stage: Gateway, said: str) -> list[Json]:
    """The messages of the last call with that text."""
    messages: list[Json] = stage.sent(said)[-1]["body"]["messages"]
    return messages


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_conversation_goes_on(stage: Gateway, mode: Json) -> None:
    model, mark = stage.flexible("plain"), marker()
    first = stage.respond(model, f"one {mark}", instructions="Not inherited.").json()
    second = ended(stage, stage.respond(model, "two", previous_response_id=first["id"], **mode))
    third = ended(
        stage,
        stage.respond(
            model, "three", previous_response_id=second["id"], instructions="New.", **mode
        ),
    )
    check_response(third)
    assert (third["status"], third["previous_response_id"]) == ("completed", second["id"])
    assert stage.shown(third["id"]) == third
    assert told(stage, mark) == [
        {"role": "system", "content": "New."},
        {"role": "user", "content": f"one {mark}"},
        {"role": "assistant", "content": SAID},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": SAID},
        {"role": "user", "content": "three"},
    ]
    # What is stored is what was asked: nothing twice.
    assert mark not in stage.of(third["id"]).template.body
