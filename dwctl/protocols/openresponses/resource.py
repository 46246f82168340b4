"""The one Response object: complete from the start, and the same for the caller, the stream, the database and GET.

`skeleton` echoes the request, with the standard's defaults; everything else fills in how the response ended. None of these
functions changes what it is given, and none raises for what an upstream or an old row holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dwctl.protocols import shapes
from dwctl.protocols.answers import FAILED
from dwctl.protocols.assembly import text_of, transcript
from dwctl.protocols.openresponses import custom_tools, items, namespaces, tools
from dwctl.protocols.openresponses.items import Item, item_id
from dwctl.protocols.openresponses.namespaces import Called
from dwctl.protocols.usage import MOST_TOKENS, TokenUsage, count, derived, read_counts

Response = dict[str, Any]

# Every member that the published schema requires of a Response.
REQUIRED = frozenset(
    {
        "background", "completed_at", "created_at", "error", "frequency_penalty", "id", "incomplete_details", "instructions",
        "max_output_tokens", "max_tool_calls", "metadata", "model", "object", "output", "parallel_tool_calls",
        "presence_penalty", "previous_response_id", "prompt_cache_key", "reasoning", "safety_identifier", "service_tier",
        "status", "store", "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "usage",
    }
)  # fmt: skip
_TERMINAL = frozenset(["completed", "failed", "incomplete", "cancelled"])
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def skeleton(
    request: Mapping[str, Any],
    *,
    response_id: str,
    created_at: int,
    model: str,
    status: str,
    service_tier: str,
    background: bool,
) -> Response:
    """The object before anything is known of its outcome.

    request: the request's body. Members of a wrong type (of a row written by hand) count as absent.
    model: the alias that was asked for. service_tier: the tier in which the request runs.
    """
    given = _Given(_as_responses_request(request))
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "completed_at": None,
        "status": status,
        "incomplete_details": None,
        "model": model,
        "previous_response_id": given.text("previous_response_id"),
        "instructions": given.text("instructions"),
        "output": [],
        "error": None,
        "tools": tools.shown(given.body),
        "tool_choice": tools.shown_choice(given.body.get("tool_choice")),
        "truncation": given.text("truncation") or "disabled",
        "parallel_tool_calls": given.flag("parallel_tool_calls", True),
        "text": _text(given.body.get("text")),
        "top_p": given.number("top_p", 1.0),
        "presence_penalty": given.number("presence_penalty", 0.0),
        "frequency_penalty": given.number("frequency_penalty", 0.0),
        "top_logprobs": given.whole("top_logprobs") or 0,
        "temperature": given.number("temperature", 1.0),
        "reasoning": _reasoning(given.body.get("reasoning")),
        "usage": None,
        "max_output_tokens": given.whole("max_output_tokens"),
        "max_tool_calls": given.whole("max_tool_calls"),
        "store": given.flag("store", True),
        "background": background,
        "service_tier": service_tier,
        "metadata": given.body.get("metadata"),
        "safety_identifier": given.text("safety_identifier"),
        "prompt_cache_key": given.text("prompt_cache_key"),
        **({"user": given.body["user"]} if given.text("user") else {}),
    }


def is_complete(body: Mapping[str, Any]) -> bool:
    """Whether a stored body is a Response object with every member that the standard requires."""
    return body.get("object") == "response" and body.keys() >= REQUIRED


# --- how it ends


def from_chat(
    response: Response,
    completion: Mapping[str, Any],
    *,
    completed_at: int,
    settled: Callable[[], TokenUsage | None] = lambda: None,
) -> Response:
    """The object that a complete chat completion (or text completion) makes of the skeleton. settled: see `usage`."""
    listed = completion.get("choices")
    choices = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    output: list[Item] = []
    names = namespaces.by_flat_name(response["tools"])
    for choice in choices:
        output += _output_of(choice, str(response["id"]), len(output), names)
    reason = choices[0].get("finish_reason") if choices else None
    if not choices:
        ended = failed(response, code="server_error", message="The model gave no answer.")
        return ended | {"usage": usage(completion.get("usage"), settled)}
    return concluded(
        response,
        output=output,
        finish_reason=reason,
        usage=usage(completion.get("usage"), settled),
        completed_at=completed_at,
    )


def concluded(
    response: Response,
    *,
    output: list[Item],
    finish_reason: object,
    usage: dict[str, Any] | None,
    completed_at: int,
) -> Response:
    """The object once the model has ended by itself, for the reason of its first choice."""
    reason = _INCOMPLETE.get(finish_reason) if isinstance(finish_reason, str) else None
    return {
        **response,
        "completed_at": None if reason else completed_at,
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": usage,
    }


def failed(response: Response, *, code: str, message: str, type: str = "server_error") -> Response:
    """The object of a failure. What the model had said by then stays in it."""
    error = {"code": code, "message": message, "type": type}
    return {**response, "completed_at": None, "status": "failed", "error": error}


def cancelled(response: Response) -> Response:
    return {**response, "completed_at": None, "status": "cancelled"}


def in_progress(response: Response, status: str = "in_progress") -> Response:
    """The object as it was while nothing was known of its outcome (for the first events of a stream)."""
    return {
        **response,
        "completed_at": None,
        "status": status,
        "incomplete_details": None,
        "output": [],
        "error": None,
        "usage": None,
    }


def is_terminal(response: Mapping[str, Any]) -> bool:
    status = response.get("status")
    return isinstance(status, str) and status in _TERMINAL


# --- what came out


def item_status(finish_reason: object) -> str:
    """The status of the item that the model was at when it ended."""
    is_early = isinstance(finish_reason, str) and finish_reason in {*_INCOMPLETE, FAILED}
    return "incomplete" if is_early else "completed"


def reasoning_texts(message: Mapping[str, Any]) -> tuple[str, str]:
    """The reasoning in a message or a delta, as content and as summary; what is there twice counts once."""
    content: dict[str, None] = {}
    summary: dict[str, None] = {}
    details = message.get("reasoning_details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            is_summary = isinstance(detail.get("summary"), str)
            text = detail["summary"] if is_summary else detail.get("text")
            if isinstance(text, str) and text:
                (summary if is_summary else content)[text] = None
    given = [message.get(name) for name in ("reasoning_content", "reasoning")]
    flat = dict.fromkeys(text for text in given if isinstance(text, str) and text)
    known = {*summary, "".join(summary), "\n".join(summary)}
    own = dict.fromkeys(text for text in [*flat, *content] if text not in known)
    return "\n".join(own), "\n".join(summary)


def usage(
    given: object, settled: Callable[[], TokenUsage | None] = lambda: None
) -> dict[str, Any] | None:
    """A chat completion's or a Response's usage as a Response's; None where no count is known.

    settled: what the call is charged for, which is shown; None: nobody knows, so what is said counts.
    """
    counts = read_counts(given)
    if counts is None:
        return None
    assert isinstance(given, Mapping)
    known = derived(counts)
    prompt, completion = known.prompt or 0, known.completion or 0
    total = known.total or 0
    if (charged := settled()) is not None:
        prompt, completion = charged.prompt_tokens, charged.completion_tokens
        total = charged.total_tokens
    details = given.get("input_tokens_details") or given.get("prompt_tokens_details")
    written = details.get("cache_write_tokens") if isinstance(details, dict) else None
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": known.cached,
            "cache_write_tokens": count(written) or 0,
        },
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": known.reasoning},
        "total_tokens": max(total, min(prompt + completion, MOST_TOKENS)),
    }


def _output_of(
    choice: Mapping[str, Any], response_id: str, index: int, names: Mapping[str, Called]
) -> list[Item]:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {"content": choice.get("text")}
    output: list[Item] = []

    def next_id(kind: str) -> str:
        return item_id(response_id, kind, index + len(output))

    content, summary = reasoning_texts(message)
    if content or summary:
        output.append(items.reasoning(next_id("reasoning"), content, summary))
    if parts := _parts(message, choice):
        output.append(items.message(next_id("message"), parts))
    status = item_status(choice.get("finish_reason"))
    for call in _calls(message):
        kind = "custom_tool_call" if is_custom(call, names) else "function_call"
        output.append(_call(call, kind, next_id(kind), status, names))
    if output:
        output[-1]["status"] = status
    return output


def _parts(message: Mapping[str, Any], choice: Mapping[str, Any]) -> list[Item]:
    parts = []
    said = text_of(message.get("content")) or text_of(message.get("text"))
    if text := said or transcript(message.get("audio")):
        cited = items.citations(message.get("annotations"))
        parts.append(items.output_text(text, cited, items.logprobs(choice.get("logprobs"))))
    refused = message.get("refusal")
    if isinstance(refused, str) and refused:
        parts.append(items.refusal(refused))
    return parts


def _calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A message's tool calls; where there are none, the one function call of the older form, which has no id."""
    listed = message.get("tool_calls")
    calls = [call for call in listed if isinstance(call, dict)] if isinstance(listed, list) else []
    legacy = message.get("function_call")
    return calls or ([{"function": legacy}] if isinstance(legacy, dict) and legacy else [])


def is_custom(call: Mapping[str, Any], names: Mapping[str, Called]) -> bool:
    """Whether a chat completion's call, or the part of one that names it, is of a custom tool. names: see `namespaces.by_flat_name`."""
    function = call.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    called = names.get(name) if isinstance(name, str) else None
    return isinstance(call.get("custom"), dict) or (called is not None and called.is_custom)


def _call(
    call: Mapping[str, Any], kind: str, id: str, ending: str, names: Mapping[str, Called]
) -> Item:
    """A call. ending: its status where it is not whole."""
    function = call.get("function") or call.get("custom")
    function = function if isinstance(function, dict) else {}
    said = str(function.get("name") or "")
    called = names.get(said) or Called(said)
    named: dict[str, Any] = {
        "call_id": str(call.get("id") or items.minted_call_id(id)),
        "name": called.name,
        "namespace": called.namespace,
    }
    arguments = items.arguments(function)
    is_plain = "custom" in call
    is_whole = ending == "completed" or (not is_plain and items.is_object(arguments))
    status = "completed" if is_whole else ending
    if kind == "function_call":
        return items.function_call(id, arguments=arguments, status=status, **named)
    input = custom_tools.input_of(arguments, plain=is_plain)
    return items.custom_tool_call(id, input=input, status=status, **named)


# --- echoes of the request


class _Given:
    """A request's members, where they are of the right type."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.body = body

    def text(self, name: str) -> str | None:
        value = self.body.get(name)
        return value if isinstance(value, str) else None

    def flag(self, name: str, default: bool) -> bool:
        value = self.body.get(name)
        return value if isinstance(value, bool) else default

    def number(self, name: str, default: float) -> float:
        value = self.body.get(name)
        right = isinstance(value, int | float) and not isinstance(value, bool)
        return value if right and value is not None else default

    def whole(self, name: str) -> int | None:
        value = self.body.get(name)
        right = isinstance(value, int | float) and not isinstance(value, bool)
        return int(value) if right and value is not None and abs(value) <= shapes.MOST else None


def _as_responses_request(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A chat request's members by the names that they have in a Responses request."""
    if "messages" not in body:
        return body
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    effort = body.get("reasoning_effort")
    format = body.get("response_format")
    more = {
        "max_output_tokens": most,
        "reasoning": {"effort": effort} if isinstance(effort, str) else None,
        "text": {"format": _flat(format, "json_schema")} if isinstance(format, dict) else None,
    }
    listed = body.get("tools")
    if isinstance(listed, list):
        more["tools"] = [_flat(tool, _kind_of(tool)) for tool in listed if isinstance(tool, dict)]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        more["tool_choice"] = _flat_choice(choice)
    return {**_legacy_tools(body), **body, **more}


def _legacy_tools(body: Mapping[str, Any]) -> dict[str, Any]:
    """`functions` and `function_call`, the older form of `tools` and `tool_choice`."""
    given: dict[str, Any] = {}
    functions, choice = body.get("functions"), body.get("function_call")
    if isinstance(functions, list):
        given["tools"] = [{"type": "function", **f} for f in functions if isinstance(f, dict)]
    if choice is not None:
        is_one = isinstance(choice, dict)
        given["tool_choice"] = {"type": "function", **choice} if is_one else choice
    return given


def _kind_of(tool: Mapping[str, Any]) -> str:
    return "custom" if tool.get("type") == "custom" else "function"


def _flat_choice(choice: dict[str, Any]) -> dict[str, Any]:
    allowed = choice.get("allowed_tools")
    if not isinstance(allowed, dict) or not isinstance(allowed.get("tools"), list):
        return _flat(choice, _kind_of(choice))
    listed = [_flat(tool, _kind_of(tool)) for tool in allowed["tools"] if isinstance(tool, dict)]
    named = [{"type": tool["type"], "name": tool.get("name")} for tool in listed]
    return {"type": "allowed_tools", "mode": allowed.get("mode"), "tools": named}


def _flat(value: dict[str, Any], inner: str) -> dict[str, Any]:
    """`{type, inner: {...}}` as `{type, ...}`."""
    body = value.get(inner)
    return {"type": value.get("type"), **(body if isinstance(body, dict) else {})}


def _text(text: object) -> dict[str, Any]:
    given = text if isinstance(text, dict) else {}
    verbosity = given.get("verbosity")
    more = {"verbosity": verbosity} if isinstance(verbosity, str) else {}
    return {"format": _format(given.get("format")), **more}


def _format(format: object) -> dict[str, Any]:
    given = format if isinstance(format, dict) else {}
    if given.get("type") == "json_object":
        return {"type": "json_object"}
    if given.get("type") == "json_schema" and isinstance(given.get("name"), str):
        return {
            "type": "json_schema",
            "name": given["name"],
            "description": given.get("description"),
            "schema": given.get("schema"),
            "strict": given.get("strict") is True,
        }
    return {"type": "text"}


def _reasoning(reasoning: object) -> dict[str, Any] | None:
    if not isinstance(reasoning, dict):
        return None
    return {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")}
