"""Hypothesis strategies for JSON that looks like what these protocols say: their members and words, with values of any type."""

from typing import Any

from hypothesis import strategies as st

NAMES = [
    "id", "object", "created", "created_at", "model", "choices", "usage", "output", "input", "messages", "message", "delta", "role",
    "content", "text", "type", "index", "finish_reason", "logprobs", "top_logprobs", "token", "bytes", "tool_calls", "function",
    "custom", "name", "arguments", "call_id", "tool_call_id", "refusal", "reasoning", "reasoning_content", "reasoning_details",
    "annotations", "url_citation", "url", "title", "start_index", "summary", "status", "error", "code", "param",
    "incomplete_details", "reason", "response", "item", "part", "sequence_number", "prompt_tokens", "completion_tokens",
    "total_tokens", "input_tokens", "prompt_tokens_details", "cached_tokens", "data", "embedding", "metadata", "tools", "tool_choice",
    "parameters", "properties", "strict", "mode", "format", "schema", "json_schema", "response_format", "verbosity", "effort",
    "instructions", "max_output_tokens", "max_tool_calls", "max_tokens", "stream", "stream_options", "include_usage", "service_tier",
    "background", "store", "temperature", "top_p", "stop", "user", "include", "truncation", "previous_response_id", "output_index",
    "image_url", "detail", "file", "file_data", "filename", "input_audio", "prompt", "seed", "n", "parallel_tool_calls",
]  # fmt: skip
WORDS = [
    "", "x", "stop", "length", "error", "content_filter", "function", "custom", "allowed_tools", "message", "function_call",
    "function_call_output", "reasoning", "input_text", "output_text", "input_image", "input_file", "refusal", "text", "json_object",
    "json_schema", "auto", "none", "required", "user", "assistant", "system", "tool", "flex", "priority", "default", "completed",
    "failed", "incomplete", "queued", "response", "response.completed", "response.output_text.delta", "disabled", "low", "é\u2028\x00",
    "message.output_text.logprobs", "summary_text", "reasoning.summary", "1e30", "401",
]  # fmt: skip

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 5, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 0.5, 1e30, -1e300, 5.0]),
    st.sampled_from(WORDS),
)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(NAMES), values, max_size=6)


values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), objects(inner)), max_leaves=12
)


def nested(depth: int) -> Any:
    """Objects and lists by turns."""
    value: Any = 1
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all parts of a value, its own (the empty one) too."""
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *[place for key, part in parts for place in places(part, (*path, key))]]


def replaced(base: Any, path: tuple[Any, ...], part: Any) -> Any:
    if not path:
        return part
    key, *rest = path
    inner = replaced(base[key], tuple(rest), part)
    if isinstance(base, dict):
        return {**base, key: inner}
    return [*base[:key], inner, *base[key + 1 :]]


@st.composite
def altered(draw: Any, bases: list[Any]) -> Any:
    """One of these values with up to three of its parts replaced."""
    value = draw(st.sampled_from(bases))
    for _ in range(draw(st.integers(0, 3))):
        deep = draw(st.integers(0, 20)) == 20
        part = nested(draw(st.sampled_from([150, 197, 230, 500]))) if deep else draw(values)
        path = draw(st.sampled_from(places(value)[1:] or [()]))
        value = replaced(value, path, part)
        if isinstance(value, dict) and draw(st.booleans()):
            value = {**value, draw(st.sampled_from(NAMES)): draw(values)}
    return value
