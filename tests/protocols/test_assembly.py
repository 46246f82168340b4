import copy
from typing import Any

import pytest
from openai.types.chat import ChatCompletionChunk

from dwctl.protocols import forms
from dwctl.protocols.assembly import Assembler, replay, text_of
from dwctl.protocols.chat_stream import ChatStream
from dwctl.protocols.openresponses.passthrough import ResponsesRelay
from dwctl.protocols.openresponses.stream import ResponsesStream
from tests.protocols.openresponses.samples import skeleton
from tests.protocols.streams import USAGE, chunk, data_of, drive, sse

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


class Watched(list[Any]):
    """A list that counts what is done with all of its elements."""

    walks = 0

    def __iter__(self) -> Any:
        self.walks += 1
        return super().__iter__()


class WatchedText(str):
    """A text that counts how often it was copied into a longer one."""

    additions = 0

    def __add__(self, other: str) -> str:
        WatchedText.additions += 1
        return super().__add__(other)


@pytest.mark.parametrize("name", ["reasoning_details", "annotations", "citations", "images"])
def test_lists_grow_in_place_however_many_chunks_there_are(name):
    first = Watched([{"text": "a"}])
    assembler = Assembler(forms.CHAT)
    assembler.add(chunk({name: first}))
    for _ in range(1000):
        assembler.add(chunk({name: [{"text": "b"}]}))
    assert first.walks <= 1  # when it came
    assert len(assembler.answer()["choices"][0]["message"][name]) == 1001


def test_logprobs_grow_in_place():
    first = Watched([{"token": "a"}])
    assembler = Assembler(forms.CHAT)
    for logprobs in [first, *[[{"token": "b"}] for _ in range(1000)]]:
        part = chunk({"content": "x"})
        part["choices"][0]["logprobs"] = {"content": logprobs, "refusal": None}
        assembler.add(part)
    assert first.walks == 0
    assert len(assembler.answer()["choices"][0]["logprobs"]["content"]) == 1001


GROWING_TEXTS = {
    "content": lambda text: {"content": text},
    "arguments": lambda text: {"tool_calls": [{"index": 0, "function": {"arguments": text}}]},
    "audio": lambda text: {"audio": {"data": text}},
}


@pytest.mark.parametrize("delta", GROWING_TEXTS.values(), ids=GROWING_TEXTS)
def test_texts_are_joined_once(delta):
    WatchedText.additions = 0
    assembler = Assembler(forms.CHAT)
    for _ in range(1000):
        assembler.add(chunk(delta(WatchedText("ab"))))
    assert "ab" * 1000 in str(assembler.answer())
    assert WatchedText.additions == 0


def test_an_answer_can_be_looked_at_while_it_grows():
    assembler = Assembler(forms.CHAT)
    for text in ("a", "b", "c"):
        assembler.add(chunk({"audio": {"data": text}, "annotations": [text]}))
        seen = assembler.answer()["choices"][0]["message"]
    assert seen["audio"] == {"data": "abc"}
    assert seen["annotations"] == ["a", "b", "c"]


MANY = {
    "choices": [{"choices": [{"index": i, "delta": {}}]} for i in range(10_000)],
    "choices at once": [{"choices": [{"index": i, "delta": {}} for i in range(10_000)]}],
    "calls": [chunk({"tool_calls": [{"index": i, "id": "x"} for i in range(10_000)]})],
}


@pytest.mark.parametrize("chunks", MANY.values(), ids=MANY)
def test_parts_without_number_end_a_stream(chunks):
    for make in (
        lambda: ChatStream(response_id=None, alias="m"),
        lambda: ResponsesStream(skeleton(), now=lambda: 1),
    ):
        stream, _ = drive(make, sse(chunks))
        assert stream.error
        assert stream.error["code"] == "upstream_response_too_large"


def test_a_huge_index_is_just_a_name():
    chunks = [chunk({"content": "a"}), {"choices": [{"index": 10**9, "delta": {"content": "b"}, "finish_reason": "stop"}]}]  # fmt: skip
    stream, _ = drive(lambda: ChatStream(response_id=None, alias="m"), sse(chunks))
    assert [choice["index"] for choice in stream.assembled()["choices"]] == [0, 10**9]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ChatStream(response_id=None, alias="m", max_bytes=1000),
        lambda: ResponsesStream(skeleton(), now=lambda: 1, max_bytes=1000),
        lambda: ResponsesRelay(skeleton(), now=lambda: 1, max_bytes=1000),
    ],
)
def test_a_stream_beyond_its_limit_fails_and_is_read_no_further(make):
    piece = sse([chunk({"content": "x" * 50})], done=False)
    stream = make()
    fed = 0
    while not stream.done:
        stream.feed(piece)
        fed += len(piece)
        assert fed < 3000
    assert stream.feed(piece) == b""
    assert stream.error["code"] == "upstream_response_too_large"
    assert b"upstream_response_too_large" in stream.finish()


@pytest.mark.parametrize(
    ("delta", "chars"),
    [
        ({"function_call": {"name": "f", "arguments": "x" * 40}}, 40),
        ({"audio": {"id": "a", "transcript": "x" * 40}}, 40),
        ({"audio": {"id": "a", "data": "QUJD" * 1000}}, 0),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "x" * 40}]}, 40),
        ({"content": "绳" * 40}, 120),
        ({"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": "绳" * 40}}]}, 120),
        ({"thinking": "x" * 40, "role": "assistant"}, 40),
        ({"reasoning": "x" * 40, "reasoning_details": [{"text": "x" * 40}]}, 40),
        ({"content": "", "annotations": None}, 0),
    ],
)
def test_what_is_said_wherever_and_in_any_script_is_billed_to_who_leaves_before_the_usage(
    delta: dict[str, Any], chars: int
) -> None:
    assembler = Assembler(forms.CHAT)
    for _ in range(3):
        assembler.add(chunk(copy.deepcopy(delta)))
    assert assembler.text_chars == 3 * chars
