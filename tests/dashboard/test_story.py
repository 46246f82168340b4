"""Sentences and sums about calls, without calls: what is rare, and what is not known of one."""

from __future__ import annotations

from typing import Any

import pytest

from dwctl.dashboard.story import comparing, picture, sums, telling, texts, verdicts
from dwctl.request_log.schemas import LoggedDetailSchema, StandingSchema


def call(**members: Any) -> dict[str, Any]:
    """As the API shows one: served at once in 900 ms."""
    return LoggedDetailSchema.example | members


def told(**members: Any) -> telling.Story:
    found = call(**members)
    return telling.told(found, sums.of(found), answer=None)


FAILED = {"status_code": 502, "error_code": "upstream_unreachable", "total_cost": None, "cost_parts": None, "charge": None}  # fmt: skip


def test_a_member_is_not_told_that_a_call_was_refused_which_was_sent() -> None:
    """Of a call that is not kept there is no row in the queue, and its owner does not see who served it."""
    story = told(**FAILED, queue=None, served_by=None, sent=True)
    assert verdicts.of(story).startswith("Failed after")
    assert [step.name for step in story.steps] == [
        "received",
        "admitted",
        "sent",
        "done",
        "charged",
    ]


def test_a_call_whose_row_is_gone_keeps_its_wait_unsaid() -> None:
    story = told(queue=None, batch_sla="1h", tier="flex")
    assert "queued" not in [step.name for step in story.steps]


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        ({"limited_by": "retry", "attempts": 2}, "2 tries have failed, and it waits for the next one"),
        ({"limited_by": "retry", "times_lost": 1}, "the process that ran it died"),
        ({"limited_by": "no_worker", "ahead": 0}, "no worker is alive; none is due before it"),
        ({"limited_by": "no_credit", "ahead": 1000}, "not enough credit, and at least 1,000 calls are due before it"),
        ({"limited_by": "concurrency", "concurrency": 4}, "the model's 4 places are taken, and 12 calls are due before it"),
    ],
)  # fmt: skip
def test_why_it_waits(standing: dict[str, Any], said: str) -> None:
    assert said in verdicts.of_standing(StandingSchema.example | standing, 12_000)


def test_a_sum_that_the_ledger_does_not_have_is_owned_up_to() -> None:
    charge = LoggedDetailSchema.example["charge"] | {"amount": "0.016000000000000"}
    assert sums.of(call()).agrees
    assert not sums.of(call(charge=charge)).agrees


def test_every_bar_is_within_the_picture() -> None:
    steps = [telling.Step("a", "", "", begin, length) for begin, length in ((0, None), (0, 5), (1e9, 1e9), (2e9, 0))]  # fmt: skip
    for bar in picture.bars([*steps, telling.Step("b", "", "")])[:-1]:
        assert bar is not None
        assert bar.x >= 0
        assert bar.x + bar.width <= picture.WIDTH + 0.2


@pytest.mark.parametrize(
    "text",
    ["null", "[]", "{}", '"words"', "1e999", "[" * 500 + "]" * 500, '{"messages": [1, {"content": {"a": 1}}, {"role": 7, "content": [null]}]}',
     '{"choices": {"message": 1}}', '{"input": [[], null, {"type": "message"}], "output": "x", "error": {"message": 5}}', '{"data": [{"embedding": null}]}'],
)  # fmt: skip
def test_no_body_is_too_odd(text: str) -> None:
    found = texts.body(text, len(text))
    assert found is not None
    assert all(isinstance(turn.text, str) for turn in found.turns)
    assert texts.error_of(found.content) in ((None, None), (None, "x"))
    comparing.differences(text, '{"a": 1}')
