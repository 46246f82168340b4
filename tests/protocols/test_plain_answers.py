"""What looks plain is left as it came; what is odd in one member only is mended all the same, in a chunk and in a whole answer."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dwctl.protocols import forms
from dwctl.protocols.dialects import Chunks, put_answer_right

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
PLAIN: list[dict[str, Any]] = [
    {"role": "assistant", "content": "Hello"},
    {"role": "assistant", "content": None, "refusal": "No."},
    {"role": "assistant", "content": "Hello", "reasoning_content": "Hm", "tool_calls": []},
    {"content": "Hello", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}], "x_own": {"a": 1}},
]  # fmt: skip
ODD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "another role": ({"role": "model", "content": "a"}, {"role": "assistant", "content": "a"}),
    "content in parts": ({"content": [{"type": "text", "text": "a"}]}, {"content": "a"}),
    "Ollama's name for thoughts": ({"content": "a", "thinking": "Hm"}, {"content": "a", "reasoning_content": "Hm"}),
    "one detail, without its list": ({"content": "a", "reasoning_details": {"text": "Hm"}}, {"content": "a", "reasoning_details": [{"text": "Hm"}]}),
    "an empty detail": ({"content": "a", "reasoning_details": {}}, {"content": "a", "reasoning_details": [{}]}),
}  # fmt: skip


def an_answer(message: dict[str, Any], **choice: Any) -> dict[str, Any]:
    one = {"index": 0, "message": message, "finish_reason": "stop", **choice}
    return {"id": "x", "choices": [one], "usage": USAGE}


def a_chunk(delta: dict[str, Any]) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


@pytest.mark.parametrize("message", PLAIN)
def test_what_is_plain_stays_as_it_is(message: dict[str, Any]) -> None:
    for given in (an_answer(message), an_answer(message, index=None)):
        before = copy.deepcopy(given)
        assert not put_answer_right(given, forms.CHAT, "resp_1")
        assert given == before
    chunk = a_chunk(message)
    assert not Chunks(forms.CHAT, "resp_1").put_right(chunk)
    assert chunk == a_chunk(message)


@pytest.mark.parametrize("name", ODD)
def test_one_odd_member_is_enough(name: str) -> None:
    message, right = ODD[name]
    answer, chunk = an_answer(dict(message)), a_chunk(dict(message))
    assert put_answer_right(answer, forms.CHAT, "resp_1")
    assert answer["choices"][0]["message"] == right
    assert Chunks(forms.CHAT, "resp_1").put_right(chunk)
    assert chunk["choices"][0]["delta"] == right


@pytest.mark.parametrize(
    ("choice", "right"),
    [({"finish_reason": "eos"}, {"finish_reason": "stop", "native_finish_reason": "eos"}), ({"index": "0"}, {"index": 0})],
)  # fmt: skip
def test_an_odd_choice_around_a_plain_message_is_mended(
    choice: dict[str, Any], right: dict[str, Any]
) -> None:
    answer = an_answer(PLAIN[0], **choice)
    assert put_answer_right(answer, forms.CHAT, "resp_1")
    assert right.items() <= answer["choices"][0].items()
