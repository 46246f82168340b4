"""What servers in the field write in place of a chat completion, a text completion or their chunks, put right in place.

Everything behind this reads the protocol as it is published, and says it so. What the protocol allows is left as it came; what no
client of it can read, and is known from servers in the field, is mended in every mode: results that are null or no list, choices
without a delta, reasons that are empty or of a server's own, contents that are parts, tool calls whose index, identifier, name or
arguments are missing, repeated, late or of another type, usage in odd places. The cases are in `tests/protocols/dialects/`.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from dwctl.protocols.forms import Form
from dwctl.protocols.odd_calls import Calls, spelled
from dwctl.protocols.parts import PartsBudget
from dwctl.protocols.usage import found_elsewhere, standard_usage

Json = dict[str, Any]

_REASONS = frozenset(["stop", "length", "tool_calls", "content_filter", "function_call", "error"])
_REASON_OF = {
    name: reason
    for reason, names in {
        "stop": ("eos", "eos_token", "end", "end_turn", "stop_sequence", "stop_token", "complete", "completed", "done", "load", "pause_turn"),
        "length": ("max_tokens", "max_output_tokens", "model_length", "token_limit", "max_length", "model_context_window_exceeded"),
        "tool_calls": ("tool_use", "tool_call", "function_calls"),
        "content_filter": ("safety", "content-filter", "content_filtered", "sensitive", "recitation", "prohibited_content", "blocklist", "spii", "refusal"),
        "error": ("insufficient_system_resource", "network_error", "abort", "aborted", "failed", "malformed_function_call"),
    }.items()
    for name in names
}  # fmt: skip
_EARLY = frozenset(["length", "content_filter", "error"])
"""What was being said then may not be whole."""
_EMPTY_REASONS = frozenset(["", "null", "none", "undefined"])
_ONLY_OBJECTS = frozenset([dict])
_TEXTS = frozenset(["content", "refusal", "reasoning", "reasoning_content", "thinking"])
_THOUGHTS = ("reasoning_content", "reasoning")
_CITATION = "url_citation"


class Chunks:
    """Reads one stream. A chunk is put right in place; what it says stays in the order in which it came."""

    def __init__(self, form: Form, response_id: str | None) -> None:
        """response_id: identifiers that a server left out follow from it."""
        self._form = form
        self._seed = response_id or uuid4().hex
        self._budget = PartsBudget()
        self._calls: dict[int, Calls] = {}
        self._begun: set[int] = set()

    def put_right(self, chunk: Json) -> bool:
        """Whether anything had to be changed. Raises TooMuch."""
        choices = chunk.get("choices")
        if type(choices) is not list:
            if changed := _find_choices(chunk, choices):
                chunk["object"] = self._form.chunk_object
            choices = chunk.get("choices")
        elif choices and (len(choices) > 1 or type(choices[0]) is not dict):
            objects = [part for part in choices if type(part) is dict]
            changed = len(objects) < len(choices)
            choices = chunk["choices"] = objects
        else:
            changed = False
        has_messages = self._form.has_messages
        may_end = not choices
        if choices:
            for position, choice in enumerate(choices):
                reason = choice.get("finish_reason")
                if has_messages and not self._calls and _is_plain(choice, reason):
                    continue
                may_end = may_end or reason is not None
                changed = self._put_right(choice, position, reason) or changed
                if "usage" in choice:
                    may_end = True
        usage = chunk.get("usage")
        if usage:
            return _put_usage_right(chunk, usage) or changed
        return (may_end and _find_usage(chunk, choices)) or changed

    def rest(self, *, has_ended: bool) -> list[Json]:
        """What is still held back at the end of a stream that did not say why it ended, as choices of one more chunk.

        has_ended: it was not cut.
        """
        held = []
        for index, calls in self._calls.items():
            if parts := calls.rest(are_over=has_ended):
                held.append({"index": index, "delta": {"tool_calls": parts}, "finish_reason": None})
        return held

    def _put_right(self, choice: Json, position: int, reason: object) -> bool:
        changed = _put_index_right(choice, position)
        if reason is not None and not (type(reason) is str and reason in _REASONS):
            changed = _put_reason_right(choice, reason, at_end=None)
        if not self._form.has_messages:
            return _find_text(choice) or changed
        delta = choice.get("delta")
        if type(delta) is not dict:
            delta, changed = _find_delta(choice), True
        index: int = choice["index"]
        changed = _put_message_right(delta) or changed
        if "role" in delta and delta["role"] not in ("assistant", None):
            changed = True
            del delta["role"]
            if index not in self._begun:
                delta["role"] = "assistant"
        self._begun.add(index)
        calls = self._calls.get(index)
        if calls is None and delta.get("tool_calls"):
            calls = self._calls[index] = Calls(f"{self._seed}/{index}", self._budget)
        if calls is not None:
            given = delta.get("tool_calls")
            parts, differ = calls.read(given)
            right = choice.get("finish_reason")
            if right is not None and (rest := calls.rest(are_over=right not in _EARLY)):
                parts, differ = parts + rest, True
            if differ:
                changed = True
                if parts:
                    delta["tool_calls"] = parts
                else:
                    delta.pop("tool_calls", None)
        return changed


def _is_plain(choice: Json, reason: object) -> bool:
    """Whether a choice of a chat chunk holds nothing but text and is as it should be. Most are."""
    if reason is not None or type(choice.get("index")) is not int or "usage" in choice:
        return False
    return _is_text(choice.get("delta"))


def _is_plain_answer(choice: Json, reason: object) -> bool:
    """The same of a chat completion's choice."""
    index = choice.get("index")
    if not (index is None or type(index) is int):
        return False
    return type(reason) is str and reason in _REASONS and _is_text(choice.get("message"))


def _is_text(message: object) -> bool:
    """Whether a message or a delta is nothing but texts, each where it belongs."""
    if type(message) is not dict or "thinking" in message:
        return False
    for name, value in message.items():
        if name in _TEXTS:
            if type(value) is not str and value is not None:
                return False
        elif name == "role":
            if value != "assistant" and value is not None:
                return False
        elif (name in ("tool_calls", "annotations") and value) or (
            name == "reasoning_details" and type(value) is dict
        ):
            return False
    return True


def put_answer_right(answer: Json, form: Form, response_id: str | None) -> bool:
    """The same for a complete answer: whether anything in its choices, or its usage, had to be changed."""
    choices = answer.get("choices")
    changed = False
    if type(choices) is not list:
        if changed := _find_choices(answer, choices):
            answer["object"] = form.object
        choices = answer.get("choices")
    if type(choices) is not list:
        return changed
    if not _ONLY_OBJECTS.issuperset(map(type, choices)):
        choices = answer["choices"] = [choice for choice in choices if type(choice) is dict]
        changed = True
    seed = response_id
    for position, choice in enumerate(choices):
        reason = choice.get("finish_reason")
        if form.has_messages and _is_plain_answer(choice, reason):
            continue
        changed = _put_index_right(choice, position, only_wrong=True) or changed
        if form.has_messages:
            seed = seed or uuid4().hex
            changed = _put_whole_message_right(choice, f"{seed}/{position}") or changed
        else:
            changed = _find_text(choice) or changed
        if reason is None or not (type(reason) is str and reason in _REASONS):
            message = choice.get("message")
            calls = type(message) is dict and message.get("tool_calls")
            at_end = "tool_calls" if calls else "stop"
            changed = ("finish_reason" in choice and _put_reason_right(choice, reason, at_end)) or changed  # fmt: skip
    usage = answer.get("usage")
    if usage:
        return _put_usage_right(answer, usage) or changed
    return _find_usage(answer, choices) or changed


def _put_whole_message_right(choice: Json, seed: str) -> bool:
    changed = False
    message = choice.get("message")
    if type(message) is not dict:
        message = _find_delta(choice)
        del choice["delta"]
        choice["message"] = message
        message.setdefault("role", "assistant")
        message.setdefault("content", None)
        changed = True
    changed = _put_message_right(message) or changed
    if message.get("role", "assistant") not in ("assistant", None):
        message["role"] = "assistant"
        changed = True
    if message.get("tool_calls"):
        are_over = _known(choice.get("finish_reason")) not in _EARLY
        whole = _whole_calls(message["tool_calls"], seed, are_over=are_over)
        if whole != message["tool_calls"]:
            message["tool_calls"] = whole
            changed = True
    return changed


def _whole_calls(given: object, seed: str, *, are_over: bool) -> list[Json]:
    """A complete answer's calls; an index, where one was given, stays."""
    calls = Calls(seed, PartsBudget(), are_whole=True)
    parts, _ = calls.read(given)
    whole: dict[int, Json] = {}
    for part in parts + calls.rest(are_over=are_over):
        known = whole.setdefault(part["index"], part)
        if known is not part:
            known["function"]["arguments"] += part["function"]["arguments"]
    has_index = isinstance(given, list) and all("index" in c for c in given if isinstance(c, dict))
    if not has_index:
        for call in whole.values():
            del call["index"]
    return [call for _, call in sorted(whole.items())]


# --- choices


def _find_choices(content: Json, choices: object) -> bool:
    """The choices of an object that has no list of them."""
    if type(choices) is dict:
        content["choices"] = [choices]
        return True
    message = content.get("message")
    if type(message) is dict and "done" in content:  # Ollama's own protocol
        reason = (content.get("done_reason") or "stop") if content.get("done") else None
        content["choices"] = [{"index": 0, "delta": message, "finish_reason": reason}]
        for name in ("message", "done", "done_reason"):
            content.pop(name, None)
        content["created"] = 0
        return True
    if "choices" in content or content.get("usage"):
        content["choices"] = []
        return True
    return False


def _put_index_right(choice: Json, position: int, *, only_wrong: bool = False) -> bool:
    index = choice.get("index")
    if type(index) is int or (index is None and only_wrong):
        return False
    digits = isinstance(index, str) and index.isdecimal() and len(index) < 10
    choice["index"] = int(index) if digits and isinstance(index, str) else position
    return True


def _put_reason_right(choice: Json, reason: object, at_end: str | None) -> bool:
    """at_end: what stands for an empty reason, and for one that nobody knows."""
    right = _known(reason) or at_end
    if right == reason:
        return False
    choice["finish_reason"] = right
    said = reason.strip().lower() if isinstance(reason, str) else ""
    if said and said not in _EMPTY_REASONS:
        choice.setdefault("native_finish_reason", reason)
    return True


def _known(reason: object) -> str | None:
    """A reason by the name that the protocol has for it."""
    said = reason.strip().lower() if isinstance(reason, str) else ""
    return said if said in _REASONS else _REASON_OF.get(said)


def _find_delta(choice: Json) -> Json:
    """The delta of a choice that has it elsewhere, or none."""
    found = choice.pop("message", None) if "message" in choice else choice.get("delta")
    if type(found) is not dict:
        text = choice.pop("text", None) if type(choice.get("text")) is str else found
        found = {"content": text} if type(text) is str else {}
    choice["delta"] = found
    return found


def _find_text(choice: Json) -> bool:
    """A text completion's choice whose text is no text, or which is one of a chat."""
    text = choice.get("text")
    if type(text) is str:
        return False
    for name in ("delta", "message"):
        if type(choice.get(name)) is dict:
            text = choice.pop(name).get("content")
    choice["text"] = _as_text(text)[0]
    return True


# --- texts


def _put_message_right(message: Json) -> bool:
    """The texts of a message or a delta."""
    changed = False
    for name in _TEXTS & message.keys():
        value = message[name]
        if value is None or type(value) is str:
            continue
        changed = True
        text, thoughts = _as_text(value)
        if name == "content":
            message[name] = text
            if thoughts and not any(message.get(thought) for thought in _THOUGHTS):
                message["reasoning_content"] = thoughts
        else:
            message[name] = (text or thoughts) if isinstance(value, list | dict) else None
    thinking = message.get("thinking")
    if thinking and not any(message.get(thought) for thought in _THOUGHTS):
        message["reasoning_content"] = message.pop("thinking")
        changed = True
    if type(message.get("reasoning_details")) is dict:
        message["reasoning_details"] = [message["reasoning_details"]]
        changed = True
    annotations = message.get("annotations")
    if annotations:
        right = [_citation(one) for one in annotations] if type(annotations) is list else None
        if right != annotations:
            message["annotations"] = right
            changed = True
    return changed


def _citation(given: object) -> object:
    """A citation with all that the protocol wants of it; some servers write it flat, as Responses have it. What is none stays."""
    if type(given) is not dict or given.get("type", _CITATION) != _CITATION:
        return given
    body = given.get(_CITATION)
    body = body if type(body) is dict else {n: v for n, v in given.items() if n != "type"}
    if type(body.get("url")) is not str:
        return given
    known = {"title": str, "start_index": int, "end_index": int}
    missing = {name: kind() for name, kind in known.items() if type(body.get(name)) is not kind}
    if given.get(_CITATION) is body and "type" in given and not missing:
        return given
    return {"type": _CITATION, _CITATION: {**body, **missing}}


def _as_text(value: object) -> tuple[str, str]:
    """What is said, and what is thought, in a content that is no text: parts, a part, or the value that a text should have spelled."""
    if isinstance(value, str):
        return value, ""
    if value is None:
        return "", ""
    if isinstance(value, list):
        read = [_as_text(part) for part in value if isinstance(part, str | dict)]
        return "".join([text for text, _ in read]), "".join([thought for _, thought in read])
    if isinstance(value, dict):
        kind = value.get("type")
        if kind in ("thinking", "reasoning", "reasoning.text"):
            inner = value.get("thinking", value.get("text", value.get("reasoning")))
            text, thought = _as_text(inner)
            return "", text + thought
        for name in ("text", "content"):
            if type(value.get(name)) is str:
                return value[name], ""
        if isinstance(kind, str):  # a part that holds no text
            return "", ""
    return spelled(value), ""


# --- usage


def _put_usage_right(content: Json, usage: object) -> bool:
    right = standard_usage(usage)
    if right is None:
        return False
    content["usage"] = right
    return True


def _find_usage(content: Json, choices: list[Json] | None) -> bool:
    found = found_elsewhere(content, choices)
    if found is None:
        return False
    content["usage"] = found
    return True
