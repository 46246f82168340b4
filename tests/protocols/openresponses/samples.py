"""Chat completions and skeletons that several tests of this folder use."""

from typing import Any

from dwctl.protocols.openresponses import resource

ID = "resp_0190d5a2-0000-7000-8000-000000000001"
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 3,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
RESPONSE_USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 12,
}
REQUESTS: dict[str, dict[str, Any]] = {
    "short": {"model": "m", "input": "Hi"},
    "in full": {
        "model": "m",
        "input": "Hi",
        "instructions": "Be brief",
        "previous_response_id": "resp_x",
        "store": False,
        "metadata": {"a": "b"},
        "temperature": 0,
        "top_p": 0.5,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "top_logprobs": 2,
        "max_output_tokens": 50,
        "max_tool_calls": 3,
        "parallel_tool_calls": False,
        "truncation": "auto",
        "user": "u",
        "reasoning": {"effort": "low"},
        "text": {
            "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}},
            "verbosity": "low",
        },
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        "tool_choice": {"type": "function", "name": "f"},
        "safety_identifier": "s",
        "prompt_cache_key": "k",
    },
    "nulls": {
        "model": "m",
        "input": "Hi",
        **dict.fromkeys(
            [
                "temperature",
                "top_p",
                "tools",
                "tool_choice",
                "text",
                "reasoning",
                "metadata",
                "store",
                "user",
                "instructions",
                "max_output_tokens",
                "parallel_tool_calls",
                "truncation",
                "top_logprobs",
            ]
        ),
    },
    "wrong types": {
        "model": 5,
        "input": 5,
        **dict.fromkeys(
            [
                "temperature",
                "top_p",
                "tools",
                "tool_choice",
                "text",
                "reasoning",
                "store",
                "user",
                "instructions",
                "max_output_tokens",
                "parallel_tool_calls",
                "truncation",
                "top_logprobs",
                "background",
            ],
            "x",
        ),
        "tools": [5, {"type": "mcp"}, {"type": "function"}],
        "reasoning": [],
        "truncation": 5,
        "metadata": None,
    },
    "allowed tools": {
        "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]}
    },
    "JSON": {"text": {"format": {"type": "json_object"}}},
    "chat": {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 5,
        "temperature": 0.5,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
        "tools": [{"type": "function", "function": {"name": "f", "description": "d"}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    },
    "nothing": {},
}


def skeleton(request: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    return resource.skeleton(
        REQUESTS["short"] if request is None else request,
        **{
            "response_id": ID,
            "created_at": 100,
            "model": "m",
            "status": "in_progress",
            "service_tier": "default",
            "background": False,
            **members,
        },
    )


def completion(message: Any, reason: Any = "stop", **members: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 17,
        "model": "up",
        "choices": [choice],
        "usage": USAGE,
        **members,
    }


def call(id: str = "call_1", name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


LOGPROB = {"token": "é", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "e", "logprob": -1}]}  # fmt: skip
CITATION = {
    "type": "url_citation",
    "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 2},
}
COMPLETIONS: dict[str, dict[str, Any]] = {
    "text": completion({"role": "assistant", "content": "Hello"}),
    "length": completion({"role": "assistant", "content": "Hel"}, "length"),
    "content filter": completion({"role": "assistant", "content": "Hel"}, "content_filter"),
    "tool calls": completion(
        {"role": "assistant", "content": None, "tool_calls": [call(), call("call_2", "g")]},
        "tool_calls",
    ),
    "text and tool call": completion(
        {"role": "assistant", "content": "Let me", "tool_calls": [call()]}, "tool_calls"
    ),
    "reasoning": completion(
        {"role": "assistant", "content": "Yes", "reasoning_content": "Hm", "reasoning": "Hm"}
    ),
    "reasoning cut": completion(
        {"role": "assistant", "content": "", "reasoning_details": [{"text": "Hm"}]}, "length"
    ),
    "refusal": completion({"role": "assistant", "content": None, "refusal": "I can't"}),
    "text and refusal": completion({"role": "assistant", "content": "Well", "refusal": "no"}),
    "citations": completion(
        {"role": "assistant", "content": "Yes", "annotations": [CITATION, {"type": "x"}, 5]}
    ),
    "log probabilities": {
        **completion({}),
        "choices": [
            {
                "message": {"content": "é"},
                "finish_reason": "stop",
                "logprobs": {"content": [LOGPROB, 5]},
            }
        ],
    },
    "two choices": {
        **completion({}),
        "choices": [
            {"message": {"content": "a"}, "finish_reason": "stop"},
            {"message": {"content": "b"}, "finish_reason": "length"},
        ],
    },
    "nothing said": completion({"role": "assistant", "content": ""}),
    "no usage": completion({"role": "assistant", "content": "Hi"}, usage=None),
    "no choices": completion({}, choices=[]),
    "text completion": {
        "object": "text_completion",
        "choices": [{"text": "Hi", "finish_reason": "stop"}],
    },
    "empty": {},
    "garbage": {"choices": [5, {"message": 5}, {"message": {"content": 5, "tool_calls": [5, {}], "annotations": 5, "reasoning": 5}, "finish_reason": [], "logprobs": 5}], "usage": 5},
    "choices as text": {"choices": "x"},
}  # fmt: skip
