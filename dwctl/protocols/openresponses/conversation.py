"""The items of a conversation as the messages of a chat completion. Pure.

Chat servers are strict where the Responses API is not: what the system says stands in one message at the beginning (templates of Qwen's
models refuse a conversation that has it elsewhere), and a message with tool calls is followed by the result of each, in their order (some
templates tell results by their place alone). So everything is put there: a text of the assistant's between calls and results joins the message
with the calls, and calls that the user has said something behind go down to their results.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import orjson

from dwctl.protocols.assembly import text_of
from dwctl.protocols.openresponses import custom_tools, namespaces
from dwctl.protocols.openresponses.items import Item, is_object

Message = dict[str, Any]

_CALLS = ("function_call", "custom_tool_call")
_RESULTS = ("function_call_output", "custom_tool_call_output")
_SYSTEM = ("system", "developer")


def messages(
    instructions: str | None, items: Iterable[Item], reasoning_input: str | None = None
) -> list[Message]:
    """The conversation. Items of earlier turns may be anything that was stored, so nothing is taken for granted.

    reasoning_input: the member in which the assistant's messages say what it had thought; None leaves that out. Where it is wanted, each message
    with calls has it, be it empty: servers refuse one without (QuantumNous/new-api#4806, Kilo-Org/kilocode#9501).
    """
    system: list[str | list[Message]] = [] if instructions is None else [instructions]
    said = _Said(reasoning_input)
    for item in items:
        kind = item.get("type") or "message"
        if kind in _RESULTS:
            said.result(item)
        elif kind in _CALLS:
            said.call(item, kind)
        elif kind == "reasoning":
            said.think(item)
        elif kind == "message":
            role, content = item.get("role") or "assistant", _content(item.get("content"))
            if role in _SYSTEM:
                system.append(content)
            else:
                said.message(role, content)
    return _of_the_system(system) + said.messages()


def _of_the_system(contents: list[str | list[Message]]) -> list[Message]:
    """`developer` is the newer name of `system`, which every server knows; most others refuse it, or drop what it says."""
    if not contents:
        return []
    texts = [content for content in contents if isinstance(content, str)]
    if len(texts) == len(contents):
        content = texts[0] if len(texts) == 1 else "\n\n".join(filter(None, texts))
        return [{"role": "system", "content": content}]
    parts = (_parts_of(content) for content in contents)
    return [{"role": "system", "content": [part for listed in parts for part in listed]}]


class _Said:
    """What was said by the user and the assistant, and came from tools."""

    def __init__(self, reasoning_input: str | None) -> None:
        self._reasoning_input = reasoning_input
        self._thought: list[str] = []  # of the message that comes next
        self._turns: list[_Turn | None] = []  # none where one was moved
        self._last_of_user: _Turn | None = None
        self._open: OrderedDict[str | None, _Turn] = OrderedDict()  # of the calls without a result

    def messages(self) -> list[Message]:
        return [message for turn in self._turns if turn for message in turn.messages()]

    @property
    def _latest(self) -> _Turn | None:
        return self._turns[-1] if self._turns else None

    def _append(self, turn: _Turn) -> _Turn:
        turn.place = len(self._turns)
        self._turns.append(turn)
        return turn

    def message(self, role: str, content: str | list[Message]) -> None:
        """Text that the assistant puts behind its calls is part of the message that has them."""
        latest = self._latest
        if role == "assistant" and latest is not None and latest.waits and latest.takes(content):
            self._add_thought(latest)
            return
        turn = self._append(_Turn(role, content, behind=self._last_of_user))
        if role == "assistant":
            self._add_thought(turn)
        else:
            self._last_of_user = turn
        self._thought = []

    def think(self, item: Item) -> None:
        """Reasoning belongs to what the assistant says or calls next."""
        if self._reasoning_input is not None:
            text = text_of(item.get("content")) or text_of(item.get("summary"))
            self._thought += [text] if text else []

    def _add_thought(self, turn: _Turn, *, may_be_empty: bool = False) -> None:
        if self._reasoning_input is not None and (self._thought or may_be_empty):
            turn.think(self._reasoning_input, self._thought)
        self._thought = []

    def call(self, item: Item, kind: str) -> None:
        """A call belongs to the assistant's message right before it, or to one of its own."""
        turn = self._latest
        if turn is None or not turn.may_call:
            turn = self._new_turn()
        id = _call_id(item)
        turn.add_call(id, _call(item, kind))
        self._add_thought(turn, may_be_empty=True)
        self._open[id] = turn

    def _new_turn(self) -> _Turn:
        return self._append(_Turn("assistant", behind=self._last_of_user))

    def _moved(self, turn: _Turn, id: str | None) -> _Turn:
        """A call that the user has said something behind goes down to its result: what the model reads last is what came last."""
        if turn.behind is self._last_of_user:
            return turn
        if turn.only_waits:
            self._turns[turn.place] = None
            turn.behind = self._last_of_user
            return self._append(turn)
        moved = self._new_turn()
        moved.add_call(id, turn.take_call(id))
        self._add_thought(moved, may_be_empty=True)
        return moved

    def result(self, item: Item) -> None:
        """One that names no call belongs to the first call that has no result; where there is none, it is left out: no server would take it.
        One that names a call which is not there, or has a result, stays where it is, and the server says what it thinks of it. (Some
        servers give the same identifiers in each turn, and agents leave out the call that they think they have seen.)
        """
        id = _call_id(item)
        if id is None:
            if not self._open:
                return
            id = next(iter(self._open))
        turn = self._open.pop(id, None)
        message, shown = _result(item, id)
        turn = self._append(_Turn(None)) if turn is None else self._moved(turn, id)
        turn.add_result(id, message, shown)


class _Turn:
    """One message, with the results of the calls in it; or the result of a call that is nowhere.

    What comes in pieces is put together once, in the end: there may be very many.
    """

    def __init__(
        self,
        role: str | None,
        content: str | list[Message] | None = None,
        *,
        behind: _Turn | None = None,
    ) -> None:
        """role: None where there is no message. behind: the user's latest message when it began."""
        self.place = 0  # among all
        self.behind = behind
        self._role = role
        self._content = content
        self._more: list[str] = []  # texts that belong to the content
        self._thought: list[str] = []
        self._thinks_in: str | None = None
        self._calls: dict[int, tuple[str | None, Message]] = {}  # by their numbers
        self._number_of: dict[str | None, int] = {}  # of the latest call under each identifier
        self._begun = 0
        self._results: list[tuple[str | None, Message]] = []
        self._shown: list[Message] = []  # what tools gave out that no tool's message can hold

    @property
    def waits(self) -> bool:
        """It has calls, and nothing has come of them."""
        return bool(self._calls) and not self._results

    @property
    def only_waits(self) -> bool:
        """It has calls, and nothing else."""
        return self.waits and self._content is None

    @property
    def may_call(self) -> bool:
        return self._role == "assistant" and not self._results

    def takes(self, content: str | list[Message]) -> bool:
        """Whether more of a text can be put into the message."""
        if not isinstance(content, str) or isinstance(self._content, list):
            return False
        self._content = self._content or ""
        self._more.append(content)
        return True

    def think(self, name: str, thought: list[str]) -> None:
        """More of what it had thought, in the member of that name."""
        self._thinks_in = name
        self._thought += thought

    def add_call(self, id: str | None, call: Message) -> None:
        self._calls[self._begun] = id, call
        self._number_of[id] = self._begun
        self._begun += 1

    def take_call(self, id: str | None) -> Message:
        """The call, which is then no part of it any more."""
        _, call = self._calls.pop(self._number_of.pop(id))
        return call

    def add_result(self, id: str | None, message: Message, shown: list[Message]) -> None:
        self._results.append((id, message))
        self._shown += shown

    def messages(self) -> list[Message]:
        calls = self._calls.values()
        places = {id: place for place, (id, _) in reversed(list(enumerate(calls)))}
        results = sorted(self._results, key=lambda result: places.get(result[0], 0))
        own = [] if self._role is None else [self._own()]
        return [*own, *(message for _, message in results), *self._shown]

    def _own(self) -> Message:
        message: Message = {"role": self._role}
        if isinstance(self._content, str):
            message["content"] = "\n\n".join(filter(None, [self._content, *self._more]))
        elif self._content is not None:
            message["content"] = self._content
        if self._calls:
            message["tool_calls"] = [call for _, call in self._calls.values()]
        if self._thinks_in is not None:
            message[self._thinks_in] = "\n\n".join(self._thought)
        return message


def _call(item: Item, kind: str) -> Message:
    if kind == "function_call":
        arguments = _arguments(item.get("arguments"))
    else:
        arguments = custom_tools.arguments_of(text_of(item.get("input")))
    function = {"name": namespaces.flat_name(item), "arguments": arguments}
    return {"id": item.get("call_id"), "type": "function", "function": function}


def _arguments(given: object) -> str:
    """A call's arguments as a JSON object, whatever was said: agents send on a call that was cut half-way, and many a server reads the
    arguments of calls that are over and refuses the whole conversation for such a one.
    """
    text = given if isinstance(given, str) else ""
    if not text.strip():
        return "{}"
    return text if is_object(text) else orjson.dumps({"unreadable": text}).decode()


def _call_id(item: Item) -> str | None:
    id = item.get("call_id")
    return id if isinstance(id, str) else None


def _result(item: Item, call_id: object) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A tool's output as its message, and as what the user shows: the images, files and sounds in it.

    Servers take text from tools only. The user's message has to wait until all tools have answered, so it says whose output it is.
    """
    content = _content(item.get("output"))
    message = {"role": "tool", "tool_call_id": call_id, "content": content}
    if isinstance(content, str):
        return message, []
    texts = [part for part in content if part.get("type") == "text"]
    others = [part for part in content if part.get("type") != "text"]
    if not others:
        return message, []
    message["content"] = text_of(texts) or "The output is in the user's next message."
    said = {"type": "text", "text": f"This is from the output of the tool call {call_id}:"}
    return message, [{"role": "user", "content": [said, *others]}]


def _content(content: object) -> str | list[dict[str, Any]]:
    """A message's content. One text is sent as such: every server understands that."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    parts = [_part(part) for part in content if isinstance(part, dict)]
    if not parts or (len(parts) == 1 and parts[0].get("type") == "text"):
        return text_of(parts)
    return parts


def _part(part: Item) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "input_image":
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part.get("image_url"), **detail}}
    if kind == "input_file":
        return {"type": "file", "file": _file_of(part)}
    if kind == "input_video":
        return {"type": "video_url", "video_url": {"url": part.get("video_url")}}
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    if isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    return part  # a part of a chat message already, such as audio


def _file_of(part: Item) -> dict[str, Any]:
    data = part.get("file_data") or part.get("file_url")
    given = {"filename": part.get("filename"), "file_data": data, "file_id": part.get("file_id")}
    return {name: value for name, value in given.items() if value is not None}


def _parts_of(content: str | list[Message]) -> list[Message]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content
