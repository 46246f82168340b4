"""Whatever order the items of a conversation have, its messages have the one that chat servers insist on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwctl.protocols.openresponses.conversation import messages

IDS = st.sampled_from(["c1", "c2", "c3"])
TEXTS = st.text(max_size=5)
ITEMS = st.one_of(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant", "system", "developer"]), TEXTS),
    st.builds(lambda id: {"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"}, IDS),
    st.builds(lambda id, text: {"type": "function_call_output", "call_id": id, "output": text}, IDS, TEXTS),
    st.just({"type": "reasoning", "summary": []}),
)  # fmt: skip


CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
TOLD = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
USER = {"role": "user", "content": "Hi"}


def thought(text: str, place: str = "content") -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], place: [{"type": "reasoning_text", "text": text}]}


WITH_REASONING = {
    "before a call": (
        [USER, thought("Hm"), CALL, RESULT, thought("So", "summary"), {"role": "assistant", "content": "Sun"}],
        [USER, {"role": "assistant", "tool_calls": [CHAT_CALL], "reasoning": "Hm"}, TOLD, {"role": "assistant", "content": "Sun", "reasoning": "So"}],
    ),
    "before the text of a call, and between the two": (
        [thought("Hm"), {"role": "assistant", "content": "Let me"}, thought("Now"), CALL],
        [{"role": "assistant", "content": "Let me", "reasoning": "Hm\n\nNow", "tool_calls": [CHAT_CALL]}],
    ),
    "none before a call": ([USER, CALL], [USER, {"role": "assistant", "tool_calls": [CHAT_CALL], "reasoning": ""}]),
    "none before a text": ([{"role": "assistant", "content": "Yes"}], [{"role": "assistant", "content": "Yes"}]),
    "nothing came of it": ([thought("Hm"), USER, {"role": "assistant", "content": "Yes"}], [USER, {"role": "assistant", "content": "Yes"}]),
    "nobody here can read it": ([{"type": "reasoning", "summary": [], "content": None, "encrypted_content": "x"}, {"role": "assistant", "content": "Yes"}], [{"role": "assistant", "content": "Yes"}]),
}  # fmt: skip


@pytest.mark.parametrize(("items", "expected"), WITH_REASONING.values(), ids=WITH_REASONING)
def test_reasoning_goes_where_the_server_wants_it_and_nowhere_else(items: list[Any], expected: list[Any]) -> None:  # fmt: skip
    assert messages(None, items, "reasoning") == expected
    assert not any("reasoning" in message for message in messages(None, items))


@given(st.lists(ITEMS, max_size=20), st.none() | TEXTS)
def test_the_order_is_what_chat_servers_want(items: list[Any], instructions: str | None) -> None:
    said = messages(instructions, items)
    assert [m["role"] for m in said[1:]].count("system") == 0
    called: list[str] = []
    answered: set[str] = set()
    waiting: list[str] = []  # the calls that may still be answered here
    for message in said:
        if message["role"] != "tool":
            waiting = [call["id"] for call in message.get("tool_calls", ())]
            called += waiting
        elif (
            message["tool_call_id"] in waiting
        ):  # in the order of the calls; none is passed over for a later one
            del waiting[: waiting.index(message["tool_call_id"])]
        else:  # of a call that has a result already, or comes later
            assert message["tool_call_id"] not in called or message["tool_call_id"] in answered
        if message["role"] == "tool":
            answered.add(message["tool_call_id"])
    count = len([item for item in items if item.get("type") == "function_call"])
    assert len(called) == count
    outputs = [item for item in items if item.get("type") == "function_call_output"]
    assert len([m for m in said if m["role"] == "tool"]) == len(outputs)
