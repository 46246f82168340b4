"""A complete answer put together from a stream's chunks, and a stream made of a complete answer.

Both know chat/completions and completions. What an upstream sends beyond the standard is kept where it can be (reasoning,
annotations, audio, citations, a provider's own members); what has an unexpected type is left out, never raised for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dwctl.protocols.answers import FAILED, dump
from dwctl.protocols.forms import Form
from dwctl.protocols.numbered import DONE
from dwctl.protocols.parts import PartsBudget
from dwctl.protocols.usage import length

_TEXT_MEMBERS = frozenset(["content", "refusal", "reasoning", "reasoning_content"])
_JOINED_STRINGS = frozenset(["arguments", "input", "data", "transcript", "text"])
_SAID = frozenset(["arguments", "input", "transcript", "text", "content", "thinking", "summary"])
_HEAD = ("id", "created", "model", "system_fingerprint", "service_tier")


CallKey = tuple[int, int]
"""Of a tool call in a stream: see `CallKeys`."""

_ENDS = frozenset(
    [
        "stop",
        "length",
        "content_filter",
        "tool_calls",
        "function_call",
        "eos_token",
        "stop_sequence",
    ]
)


def is_end(finish_reason: object) -> bool:
    """Whether it says that a choice has ended; what is empty or unknown does not."""
    return isinstance(finish_reason, str) and (finish_reason in _ENDS or finish_reason == FAILED)


class Assembler:
    """Collects one stream's chunks. Each is taken in once: the work grows with the stream, whatever it is made of."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._first: Mapping[str, Any] = {}
        self._last: Mapping[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._budget = PartsBudget()
        self.text_chars = 0  # of all that the model wrote: text, reasoning, refusals, arguments
        self.failed = False  # a choice has ended with "error"

    @property
    def finished(self) -> bool:
        """Every choice that began has said why it ended."""
        choices = self._choices.values()
        return bool(choices) and all(is_end(choice.finish_reason) for choice in choices)

    @property
    def is_empty(self) -> bool:
        """No choice has begun."""
        return not self._choices

    @property
    def latest(self) -> Mapping[str, Any]:
        """The latest chunk."""
        return self._last

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Raises TooMuch."""
        self._last = chunk
        if not self._first:
            self._first = chunk
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return
        for position, part in enumerate(choices):
            if isinstance(part, dict):
                choice = self._choice(part.get("index"), position)
                self.text_chars += choice.add(part)
                self.failed = self.failed or choice.finish_reason == FAILED

    def answer(self, **overrides: Any) -> dict[str, Any]:
        """The complete object; `overrides` replace its top-level members."""
        chat = self._form.has_messages
        head = {name: self._head(name) for name in _HEAD}
        return {
            "id": head["id"] or "",
            "object": self._form.object,
            "created": head["created"] or 0,
            "model": head["model"] or "",
            "choices": [
                choice.message_choice(index) if chat else choice.text_choice(index)
                for index, choice in sorted(self._choices.items())
            ],
            **{n: head[n] for n in ("system_fingerprint", "service_tier") if head[n] is not None},
            **overrides,
        }

    def _head(self, name: str) -> Any:
        value = self._first.get(name)
        return self._last.get(name) if value is None else value

    def _choice(self, index: object, position: int) -> _Choice:
        key = index if isinstance(index, int) else position
        found = self._choices.get(key)
        if found is None:
            self._budget.spend()
            found = self._choices[key] = _Choice(self._budget)
        return found


class _Choice:
    """One choice so far."""

    __slots__ = ("_calls", "_logprobs", "_members", "_others", "_texts", "finish_reason")

    def __init__(self, budget: PartsBudget) -> None:
        self.finish_reason: Any = None
        self._texts: dict[str, list[str]] = {}
        self._members: dict[str, Any] = {}  # of the message, in order of appearance
        self._calls = ToolCalls(budget)
        self._logprobs: Any = None
        self._others: dict[str, Any] = {}

    def add(self, part: dict[str, Any]) -> int:
        """Take in one chunk's part of this choice; return how much (`length`) the model wrote in it."""
        written = 0
        for name, value in part.items():
            if value is None or name == "index":
                continue
            if name == "delta":
                if isinstance(value, dict):
                    written += self._add_delta(value)
            elif name == "text":
                written += self._add_text("text", value)
            elif name == "finish_reason":
                self.finish_reason = value
            elif name == "logprobs":
                self._logprobs = _merged(self._logprobs, value)
            else:
                self._others[name] = value
        return written

    def _add_delta(self, delta: dict[str, Any]) -> int:
        written = elsewhere = 0
        for name, value in delta.items():
            if name in _TEXT_MEMBERS:
                written += self._add_text(name, value)
            elif name == "tool_calls":
                written += self._calls.add(value)
                self._members.setdefault(name, None)
            elif name == "role":
                self._members[name] = self._members.get(name) or value
            else:
                elsewhere += said_in(value)
                self._members[name] = _merged(self._members.get(name), value)
        # Some servers say the same thing twice, in a member of their own too.
        return written or elsewhere

    def _add_text(self, name: str, value: object) -> int:
        texts = self._texts.get(name)
        if texts is None:
            texts = self._texts[name] = []
            self._members.setdefault(name, None)
        if value is None:
            return 0
        text = value if isinstance(value, str) else text_of(value)
        texts.append(text)
        return length(text)

    def message_choice(self, index: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": None} | _finished(self._members)
        message["role"] = message["role"] or "assistant"
        for name, texts in self._texts.items():
            message[name] = "".join(texts) if texts else None
        if "tool_calls" in message:
            message["tool_calls"] = self._calls.complete()
        if message.get("tool_calls") and not message["content"]:
            message["content"] = None
        return {"index": index, "message": message, **self._ending()}

    def text_choice(self, index: int) -> dict[str, Any]:
        return {"index": index, "text": "".join(self._texts.get("text", [])), **self._ending()}

    def _ending(self) -> dict[str, Any]:
        logprobs = {} if self._logprobs is None else {"logprobs": _finished(self._logprobs)}
        return {**logprobs, "finish_reason": self.finish_reason, **self._others}


class ToolCalls:
    """The tool calls of one choice, put together by their keys."""

    __slots__ = ("_budget", "_calls", "_keys")

    def __init__(self, budget: PartsBudget) -> None:
        self._budget = budget
        self._calls: dict[CallKey, dict[str, Any]] = {}
        self._keys = CallKeys()

    def add(self, parts: object) -> int:
        if not isinstance(parts, list):
            return 0
        return sum([self._add_part(part) for part in parts if isinstance(part, dict)])

    def complete(self) -> list[dict[str, Any]]:
        return [_finished(call) for _, call in sorted(self._calls.items())]

    def _add_part(self, part: dict[str, Any]) -> int:
        key = self._keys.of(part)
        call = self._calls.get(key)
        if call is None:
            self._budget.spend()
            call = self._calls[key] = {}
        written = 0
        for name, value in part.items():
            if name in ("function", "custom"):
                if isinstance(value, dict):
                    written += _add_function(call.setdefault(name, {}), value)
            elif name != "index" and value is not None:
                call[name] = call.get(name) or value
        return written


class CallKeys:
    """Which call a part belongs to: its index says so, and which of the calls under that index.

    Some servers send no index: then a new id begins a new call. Some give all calls the same: then a new id with a name does.
    """

    __slots__ = ("_latest", "_under")

    def __init__(self) -> None:
        self._latest = 0
        self._under: dict[int, tuple[int, object]] = {}  # index: number and id of its latest call

    def of(self, part: Mapping[str, Any]) -> CallKey:
        index, id = part.get("index"), part.get("id")
        if not isinstance(index, int):
            _, known = self._under.get(self._latest, (0, None))
            index = self._latest + bool(known and id and id != known)
        number, known = self._under.get(index, (0, None))
        if known and id and id != known and _has_name(part):
            number, known = number + 1, None
        self._latest = index
        self._under[index] = number, known or id
        return index, number


def _has_name(part: Mapping[str, Any]) -> bool:
    function = part.get("function") or part.get("custom")
    return isinstance(function, dict) and bool(function.get("name"))


def _add_function(function: dict[str, Any], part: dict[str, Any]) -> int:
    written = 0
    for name, value in part.items():
        if name in _JOINED_STRINGS and isinstance(value, str):
            _join(function, name, value)
            written += length(value)
        elif value is not None:
            function[name] = function.get(name) or value
    return written


def said_in(value: object) -> int:
    """How much (`length`) a model has written in a member that is not of the standard or not of today: a call of a function, the
    transcript of what it speaks, details of its reasoning. What is no text (sounds) does not count.
    """
    if isinstance(value, str):
        return length(value)
    if isinstance(value, list):
        return sum([said_in(part) for part in value])
    if isinstance(value, dict):
        return sum([said_in(member) for name, member in value.items() if name in _SAID])
    return 0


def text_of(content: object) -> str:
    """The text of a message's content, be it a string or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join([text for text in texts if isinstance(text, str)])


def transcript(audio: object) -> str:
    """What is said in a message's audio."""
    said = audio.get("transcript") if isinstance(audio, dict) else None
    return said if isinstance(said, str) else ""


class _Pieces:
    """A text that comes in several chunks: joined once, when it is asked for."""

    __slots__ = ("texts",)

    def __init__(self, text: str) -> None:
        self.texts = [text]


def _merged(so_far: Any, value: Any) -> Any:
    """A member that comes in several chunks: lists grow, objects are merged, the texts in them joined.

    What there is already is extended in place; the chunks that it came from belong to nobody else.
    """
    if value is None:
        return so_far
    if isinstance(so_far, list) and isinstance(value, list):
        so_far.extend(value)
        return so_far
    if not (isinstance(so_far, dict) and isinstance(value, dict)):
        return value
    for name, member in value.items():
        if name in _JOINED_STRINGS and isinstance(member, str):
            _join(so_far, name, member)
        else:
            so_far[name] = _merged(so_far.get(name), member)
    return so_far


def _join(owner: dict[str, Any], name: str, text: str) -> None:
    known = owner.get(name)
    if isinstance(known, str):
        known = owner[name] = _Pieces(known)
    if isinstance(known, _Pieces):
        known.texts.append(text)
    else:
        owner[name] = text


def _finished(value: Any) -> Any:
    """A copy of what was merged, with its texts joined. (The elements of a list are never merged with anything.)"""
    if isinstance(value, dict):
        return {name: _finished(member) for name, member in value.items()}
    if isinstance(value, list):
        return list(value)
    return "".join(value.texts) if isinstance(value, _Pieces) else value


# --- a stream made of a complete answer


def replay(answer: Mapping[str, Any], form: Form, *, usage_wanted: bool) -> bytes:
    """A complete answer as the frames of a stream, `[DONE]` included."""
    frames = [b"data: " + dump(chunk) for chunk in chunks_of(answer, form, usage_wanted)]
    return b"\n\n".join([*frames, DONE])


def chunks_of(
    answer: Mapping[str, Any], form: Form, usage_wanted: bool
) -> Iterator[dict[str, Any]]:
    head = {n: v for n, v in answer.items() if n not in ("choices", "usage")}
    head["object"] = form.chunk_object
    choices = answer.get("choices")
    for position, choice in enumerate(choices if isinstance(choices, list) else []):
        if isinstance(choice, dict):
            parts = _chat_parts(choice) if form.has_messages else iter([choice])
            for part in parts:
                yield {**head, "choices": [{"index": position, **part}]}
    if usage_wanted and answer.get("usage"):
        yield {**head, "choices": [], "usage": answer["usage"]}


def _chat_parts(choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    message = choice.get("message")
    members = dict(message) if isinstance(message, dict) else {}
    index = {"index": choice["index"]} if "index" in choice else {}
    role = members.pop("role", None) or "assistant"
    yield {**index, "delta": {"role": role, "content": ""}, "finish_reason": None}
    delta = {name: value for name, value in members.items() if value}
    if isinstance(delta.get("tool_calls"), list):
        calls = [call for call in delta["tool_calls"] if isinstance(call, dict)]
        delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls)]
    if delta:
        logprobs = {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}
        yield {**index, "delta": delta, **logprobs, "finish_reason": None}
    yield {**index, "delta": {}, "finish_reason": choice.get("finish_reason") or "stop"}
