"""What a client makes of our answers that knows the published protocol and nothing else.

Texts that come in pieces are joined, identifiers and names too, as OpenAI's own client does: whoever repeats them spoils them. A part
of a tool call must begin with its identifier and its name, as the AI SDK demands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion_message import AnnotationURLCitation

from tests.protocols.openresponses.schema import check_response, events_of

REASONS = {None, "stop", "length", "tool_calls", "content_filter", "function_call"}
Json = dict[str, Any]


@dataclass(frozen=True)
class Said:
    """What a caller has learned. calls: names and arguments. reason: of the first choice. usage: prompt, completion. error: its code."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    reason: str | None = "stop"
    usage: tuple[int, int] | None = (9, 3)
    error: str | None = None


def chat_stream(stream: bytes, *, complete: bool) -> Said:
    """complete: chunks have all that the published schema requires (strict mode fills it in)."""
    assert stream.endswith(b"data: [DONE]\n\n")
    text, thought, reason, usage, error = "", "", None, None, None
    written = False
    calls: dict[int, Json] = {}
    for chunk in _data(stream):
        if chunk.get("error"):
            assert error is None
            error = _error(chunk["error"])
            continue
        if complete:
            ChatCompletionChunk.model_validate(chunk)
        assert isinstance(chunk["choices"], list)
        if chunk.get("usage"):
            usage = _usage(chunk["usage"])
        for choice in chunk["choices"]:
            assert type(choice["index"]) is int
            assert choice.get("finish_reason") in REASONS | {"error"}
            reason = choice.get("finish_reason") or reason
            delta = choice["delta"]
            assert delta.get("role", "assistant") in ("assistant", None)
            _look_at_citations(delta)
            written = written or bool(delta.get("content"))
            text += delta.get("content") or ("" if written else _spoken(delta))
            thought += _thought(delta)
            for part in delta.get("tool_calls") or ():
                _add_call(calls, part)
    said = tuple((c["name"], c["arguments"]) for _, c in sorted(calls.items()))
    assert sorted(calls) == list(range(len(calls)))
    assert len({c["id"] for c in calls.values()}) == len(calls)
    return Said(text, thought, said, reason, usage, error)


def _spoken(message: Json) -> str:
    said = (message.get("audio") or {}).get("transcript")
    assert said is None or isinstance(said, str)
    return said or ""


def _look_at_citations(message: Json) -> None:
    """The AI SDK and pydantic-ai refuse an answer with one that is not whole."""
    for one in message.get("annotations") or ():
        if one["type"] == "url_citation":
            AnnotationURLCitation.model_validate(one["url_citation"], strict=True)


def _add_call(calls: dict[int, Json], part: Json) -> None:
    assert type(part["index"]) is int
    known = calls.get(part["index"])
    function = part.get("function") or {}
    if known is None:
        assert part["id"]
        assert function["name"]
        assert part["type"] == "function"
        known = calls[part["index"]] = {"id": "", "name": "", "arguments": ""}
    for name, value in (("id", part.get("id")), *((n, function.get(n)) for n in ("name", "arguments"))):  # fmt: skip
        assert value is None or isinstance(value, str)
        assert not (known[name] and value and name != "arguments"), f"{name} is repeated"
        known[name] += value or ""


def chat_answer(body: bytes, *, complete: bool) -> Said:
    answer = orjson.loads(body)
    if complete:
        ChatCompletion.model_validate(answer)
    assert isinstance(answer["id"], str)
    assert answer["object"] == "chat.completion"
    assert isinstance(answer["created"], int)
    choice = answer["choices"][0]
    message = choice["message"]
    _look_at_citations(message)
    assert choice.get("finish_reason") in REASONS
    content = message.get("content")
    assert content is None or isinstance(content, str)
    assert message.get("role", "assistant") == "assistant"
    calls = []
    for call in message.get("tool_calls") or ():
        assert call["id"]
        assert call["type"] == "function"
        calls.append((call["function"]["name"], call["function"]["arguments"]))
    return Said(
        content or _spoken(message),
        _thought(message),
        tuple(calls),
        choice.get("finish_reason"),
        _usage(answer["usage"]) if answer.get("usage") else None,
    )


def text_stream(stream: bytes, *, complete: bool) -> Said:
    assert stream.endswith(b"data: [DONE]\n\n")
    text, reason, usage, error = "", None, None, None
    for chunk in _data(stream):
        if chunk.get("error"):
            error = _error(chunk["error"])
            continue
        if complete:
            assert isinstance(chunk["id"], str)
            assert chunk["object"] == "text_completion"
        if chunk.get("usage"):
            usage = _usage(chunk["usage"])
        for choice in chunk["choices"]:
            text += choice["text"]
            assert choice.get("finish_reason") in REASONS | {"error"}
            reason = choice.get("finish_reason") or reason
    return Said(text, reason=reason, usage=usage, error=error)


def text_answer(body: bytes, *, complete: bool) -> Said:
    answer = orjson.loads(body)
    if complete:
        Completion.model_validate(answer)
    choice = answer["choices"][0]
    assert choice.get("finish_reason") in REASONS
    usage = _usage(answer["usage"]) if answer.get("usage") else None
    return Said(choice["text"], reason=choice.get("finish_reason"), usage=usage)


def response_stream(stream: bytes) -> Said:
    """The same of a Response's events: each valid, and what the deltas say is what the last object says."""
    events = events_of(stream)
    whole: Json = events[-1]["response"]
    texts = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    said = response(whole)
    assert "".join(texts) == said.text
    arguments = [e for e in events if e["type"] == "response.function_call_arguments.delta"]
    assert "".join(e["delta"] for e in arguments) == "".join(call for _, call in said.calls)
    return said


def response(whole: Json) -> Said:
    check_response(whole, sdk=not whole["error"])
    text, thought, calls = "", "", []
    for item in whole["output"]:
        match item["type"]:
            case "message":
                text += "".join(part.get("text", "") for part in item["content"])
            case "reasoning":
                parts = [*item.get("content", ()), *item["summary"]]
                thought += "".join(part["text"] for part in parts)
            case "function_call":
                assert item["call_id"]
                calls.append((item["name"], item["arguments"]))
    usage = whole["usage"]
    counts = (usage["input_tokens"], usage["output_tokens"]) if usage else None
    match whole["status"]:
        case "completed":
            reason: str | None = "tool_calls" if calls else "stop"
        case "incomplete":
            reason = {"max_output_tokens": "length"}.get(why := whole["incomplete_details"]["reason"], why)  # fmt: skip
        case _:
            assert whole["status"] == "failed"
            reason = None
    return Said(text, thought, tuple(calls), reason, counts, _error(whole["error"]))


def _data(stream: bytes) -> list[Json]:
    frames = [frame for frame in stream.split(b"\n\n") if frame and not frame.startswith(b":")]
    lines = [line for frame in frames for line in frame.split(b"\n") if line.startswith(b"data:")]
    assert lines[-1] == b"data: [DONE]"
    found = [orjson.loads(line[5:]) for line in lines[:-1]]
    assert all(isinstance(chunk, dict) for chunk in found)
    return found


def _thought(message: Json) -> str:
    for name in ("reasoning_content", "reasoning"):
        value = message.get(name)
        assert value is None or isinstance(value, str)
        if value:
            return value
    return ""


def _usage(usage: Json) -> tuple[int, int]:
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert type(usage[name]) is int
    return usage["prompt_tokens"], usage["completion_tokens"]


def _error(error: Json | None) -> str | None:
    if error is None:
        return None
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["code"], str)
    return error["code"]
