import pytest
from openai.types.chat import ChatCompletionChunk

from dwctl.protocols import forms
from dwctl.protocols.assembly import replay, text_of
from dwctl.protocols.chat_stream import ChatStream
from tests.protocols.streams import USAGE, data_of, drive

CALLS = [
    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]


def completion(*messages, reason="stop"):
    return {
        "id": "resp_1",
        "object": "chat.completion",
        "created": 17,
        "model": "m",
        "choices": [
            {"index": i, "message": {"role": "assistant", **m}, "finish_reason": reason}
            for i, m in enumerate(messages)
        ],
        "usage": USAGE,
    }


REPLAYED = {
    "text": completion({"content": "Hi"}),
    "tool calls": completion({"content": None, "tool_calls": CALLS}, reason="tool_calls"),
    "two choices": completion({"content": "a"}, {"content": "b"}),
    "reasoning": completion({"content": "a", "reasoning_content": "b"}),
    "nothing said": completion({"content": ""}),
}


@pytest.mark.parametrize("answer", REPLAYED.values(), ids=REPLAYED)
def test_a_replayed_answer_is_put_together_to_the_same_answer(answer):
    out = replay(answer, forms.CHAT, usage_wanted=True)
    stream, _ = drive(lambda: ChatStream(response_id=None, alias="m"), out)
    assert stream.assembled() == answer
    for data in data_of(out)[:-1]:
        ChatCompletionChunk.model_validate(data)


def test_a_replay_has_a_role_chunk_one_with_all_and_one_with_the_reason():
    chunks = data_of(replay(REPLAYED["text"], forms.CHAT, usage_wanted=False))
    assert [c["choices"][0] for c in chunks[:-1]] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None},
        {"index": 0, "delta": {"content": "Hi"}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "stop"},
    ]
    assert chunks[-1] == "[DONE]"
    assert all(c["object"] == "chat.completion.chunk" and c["id"] == "resp_1" for c in chunks[:-1])


def test_a_completion_is_replayed_in_one_chunk():
    choice = {"index": 0, "text": "Hi", "finish_reason": "stop"}
    answer = {"id": "cmpl-1", "object": "text_completion", "choices": [choice], "usage": USAGE}
    chunks = data_of(replay(answer, forms.COMPLETIONS, usage_wanted=True))
    assert [c["choices"] for c in chunks[:-1]] == [[choice], []]
    assert chunks[1]["usage"] == USAGE


@pytest.mark.parametrize(
    "answer", [{}, {"choices": 5}, {"choices": [5, {}]}, {"choices": [{"message": {"tool_calls": [5]}}]}]
)  # fmt: skip
def test_a_strange_answer_is_replayed_all_the_same(answer):
    assert data_of(replay(answer, forms.CHAT, usage_wanted=True))[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("content", "text"),
    [("a", "a"), (None, ""), ([{"text": "a"}, {"text": 5}, {}, 5, {"text": "b"}], "ab"), (5, "")],
)
def test_the_text_of_any_content(content, text):
    assert text_of(content) == text
