"""Output items of a Response while a stream writes them: each knows what has come for it, and the events that say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from dwctl.protocols.openresponses import custom_tools, items, resource
from dwctl.protocols.openresponses.custom_tools import InputText
from dwctl.protocols.openresponses.events import (
    ARGUMENTS_DELTA,
    INPUT_DELTA,
    REASONING_DELTA,
    REFUSAL_DELTA,
    SUMMARY_DELTA,
    TEXT_DELTA,
    Events,
    Place,
    delta_prefix,
)
from dwctl.protocols.openresponses.items import Item, item_id
from dwctl.protocols.openresponses.namespaces import Called
from dwctl.protocols.usage import length


class OpenItem:
    """An output item while it is being written. Until it is open it collects; then its events go out."""

    kind = ""
    is_ready = True  # all is known that the event needs which adds it
    may_end = True  # another item may follow: nothing is lost by that

    def __init__(self, events: Events, index: int, response_id: str) -> None:
        self.chars = 0
        self.ending: str | None = None  # the status with which it ends; None while more may come
        self.out_is_open = False
        self._id = item_id(response_id, self.kind, index)
        self._item: Item = {}  # as in the last event about it
        self._ended = False
        self._events = events
        self._out: list[bytes] = []
        self._index = index
        self._place: Place = {"item_id": self._id, "output_index": index}

    def open(self, out: list[bytes]) -> None:
        """Write the events that add it, and all that was collected."""
        self.out_is_open = True
        out.append(self._events.item_added(self._index, self._made("in_progress")))
        self._opened()

    def close(self, out: list[bytes]) -> None:
        """Write the events that end it; a call that was cut has none."""
        self._ended = True
        self._item = self._made(self.ending or "completed")
        if not items.is_cut_call(self._item):
            self._end(out)
            out.append(self._events.item_done(self._index, self._item))

    def take_events(self) -> list[bytes]:
        """The events since the last time."""
        out, self._out = self._out, []
        return out

    def so_far(self) -> Item:
        """The item as it would be if it ended now; once it has ended, as it is."""
        return self._item if self._ended else self._made(self.ending or "incomplete")

    def _made(self, status: str) -> Item:
        """The item; with status `in_progress`, as it was before anything was in it."""
        raise NotImplementedError

    def _opened(self) -> None:
        """Write what was collected."""

    def _end(self, out: list[bytes]) -> None:
        """What precedes the event that ends the item."""


AnyItem = TypeVar("AnyItem", bound=OpenItem)


class Reasoning(OpenItem):
    kind = "reasoning"

    def __init__(self, events: Events, index: int, response_id: str) -> None:
        super().__init__(events, index, response_id)
        self._content: list[str] = []
        self._summary: list[str] = []
        self._content_prefix = self._summary_prefix = b""

    def add(self, content: str, summary: str) -> None:
        self.chars += length(content) + length(summary)
        if content:
            self._content.append(content)
        if summary:
            self._summary.append(summary)
        if self.out_is_open:
            self._write(content, summary)

    def _write(self, content: str, summary: str) -> None:
        if summary:
            if not self._summary_prefix:
                self._out.append(self._events.summary_added(self._summary_place))
                self._summary_prefix = delta_prefix(SUMMARY_DELTA, self._summary_place)
            self._out.append(self._events.delta(self._summary_prefix, summary))
        if content:
            if not self._content_prefix:
                self._out.append(
                    self._events.part_added(self._content_place, items.reasoning_text(""))
                )
                self._content_prefix = delta_prefix(REASONING_DELTA, self._content_place)
            self._out.append(self._events.delta(self._content_prefix, content))

    @property
    def _content_place(self) -> Place:
        return {**self._place, "content_index": 0}

    @property
    def _summary_place(self) -> Place:
        return {**self._place, "summary_index": 0}

    def _opened(self) -> None:
        self._write("".join(self._content), "".join(self._summary))

    def _made(self, status: str) -> Item:
        if status == "in_progress":
            return items.reasoning(self._id, status=status)
        content, summary = "".join(self._content), "".join(self._summary)
        return items.reasoning(self._id, content, summary, status)

    def _end(self, out: list[bytes]) -> None:
        if self._summary_prefix:
            out.append(self._events.summary_done(self._summary_place, "".join(self._summary)))
        if self._content_prefix:
            text = "".join(self._content)
            out.append(self._events.reasoning_done(self._content_place, text))


class Message(OpenItem):
    """A message: its parts one after the other, of which the last is open."""

    kind = "message"

    def __init__(self, events: Events, index: int, response_id: str) -> None:
        super().__init__(events, index, response_id)
        self._parts: list[_Part] = []
        self._text: _Part | None = None  # the open part, if it is one of text
        self._refusal: _Part | None = None  # the same of refusals

    def text(self, text: str, logprobs: list[Item] | None) -> None:
        part = self._text_part()
        part.texts.append(text)
        self.chars += length(text)
        if logprobs:
            part.logprobs += logprobs
        if self.out_is_open:
            self._out.append(self._events.text_delta(part.prefix, text, logprobs))

    def cite(self, citations: list[Item]) -> None:
        part = self._text_part()
        if self.out_is_open:
            self._write_citations(part, citations, len(part.citations))
        part.citations += citations

    def refuse(self, text: str) -> None:
        if self._refusal is None:
            self._refusal, self._text = self._new_part(REFUSAL_DELTA), None
        self._refusal.texts.append(text)
        self.chars += length(text)
        if self.out_is_open:
            self._out.append(self._events.delta(self._refusal.prefix, text))

    def _text_part(self) -> _Part:
        if self._text is None:
            self._text, self._refusal = self._new_part(TEXT_DELTA), None
        return self._text

    def _new_part(self, kind: str) -> _Part:
        part = _Part(kind, {**self._place, "content_index": len(self._parts)})
        if self.out_is_open:
            self._end(self._out)
        self._parts.append(part)
        if self.out_is_open:
            self._out.append(self._events.part_added(part.place, part.empty()))
        return part

    def _opened(self) -> None:
        for part in self._parts:
            self._out.append(self._events.part_added(part.place, part.empty()))
            text = "".join(part.texts)
            if part.is_refusal:
                self._out.append(self._events.delta(part.prefix, text))
            elif text:
                self._out.append(self._events.text_delta(part.prefix, text, part.logprobs))
            self._write_citations(part, part.citations, 0)
            if part is not self._parts[-1]:
                self._close(part, self._out)

    def _write_citations(self, part: _Part, citations: list[Item], first: int) -> None:
        for number, citation in enumerate(citations, first):
            self._out.append(self._events.annotation_added(part.place, number, citation))

    def _made(self, status: str) -> Item:
        parts = [] if status == "in_progress" else [part.part() for part in self._parts]
        return items.message(self._id, parts, status)

    def _end(self, out: list[bytes]) -> None:
        for part in self._parts[-1:]:
            self._close(part, out)

    def _close(self, part: _Part, out: list[bytes]) -> None:
        whole = part.part()
        if part.is_refusal:
            out.append(self._events.refusal_done(part.place, whole["refusal"]))
        else:
            out.append(self._events.text_done(part.place, whole))
        out.append(self._events.part_done(part.place, whole))


class _Part:
    """One content part of a message."""

    def __init__(self, kind: str, place: Place) -> None:
        self.place = place
        self.prefix = delta_prefix(kind, place)
        self.texts: list[str] = []
        self.logprobs: list[Item] = []
        self.citations: list[Item] = []
        self.is_refusal = kind == REFUSAL_DELTA

    def part(self) -> Item:
        text = "".join(self.texts)
        if self.is_refusal:
            return items.refusal(text)
        return items.output_text(text, self.citations, self.logprobs)

    def empty(self) -> Item:
        return items.refusal("") if self.is_refusal else items.output_text("")


class Call(OpenItem):
    """A call of a function or a custom tool. It is added once its id and name are known; what came before then follows at once."""

    kind = "function_call"

    def __init__(self, events: Events, index: int, response_id: str) -> None:
        super().__init__(events, index, response_id)
        self._call_id = self._name = ""
        self._namespace: str | None = None
        self._response_id = response_id
        self._arguments: list[str] = []
        self._input: InputText | None = None  # of a custom tool's call
        self._is_plain = False  # its arguments are the input itself
        self._prefix = b""

    @property
    def is_ready(self) -> bool:  # type: ignore[override]
        return bool(self._call_id and self._name)

    @property
    def may_end(self) -> bool:  # type: ignore[override]
        """Its arguments are a whole object: servers that write several calls by turns would lose the rest otherwise."""
        return not self._is_plain and items.is_object("".join(self._arguments))

    @property
    def has_just_ended(self) -> bool:
        """The same, looked at only where the last fragment may have been the last."""
        return (
            self._arguments[-1:] != [] and self._arguments[-1].rstrip()[-1:] == "}" and self.may_end
        )

    def take(self, part: dict[str, Any], names: Mapping[str, Called]) -> None:
        """What a part of the call says. After its end nothing is expected, and nothing taken."""
        function = part.get("function") or part.get("custom")
        function = function if isinstance(function, dict) else {}
        self._call_id = self._call_id or str(part.get("id") or "")
        if not self._name and function.get("name"):
            said = str(function["name"])
            self._name, self._namespace, _ = names.get(said) or Called(said)
            if resource.is_custom(part, names):
                self._become_custom(plain="custom" in part)
        fragment = items.arguments(function)
        if not fragment or self.ending is not None:
            return
        self._arguments.append(fragment)
        self.chars += length(fragment)
        if self.out_is_open:
            self._write(fragment)

    def take_unnamed(self, function: dict[str, Any], names: Mapping[str, Called]) -> None:
        """The same for a function call of the older form: there is one at most, and it has no id."""
        self._call_id = items.minted_call_id(self._id)
        self.take({"function": function}, names)

    def close(self, out: list[bytes]) -> None:
        if self._input is not None and (rest := self._input.end()):
            out.append(self._events.delta(self._prefix, rest))
        super().close(out)

    def _become_custom(self, *, plain: bool) -> None:
        self.kind = "custom_tool_call"
        self._id = item_id(self._response_id, self.kind, self._index)
        self._place = {**self._place, "item_id": self._id}
        self._is_plain = plain
        self._input = InputText(plain=plain)

    def _write(self, fragment: str) -> None:
        said = fragment if self._input is None else self._input.add(fragment)
        if said:
            self._out.append(self._events.delta(self._prefix, said))

    def _made(self, status: str) -> Item:
        named: dict[str, Any] = {
            "call_id": self._call_id or items.minted_call_id(self._id),
            "name": self._name,
            "namespace": self._namespace,
        }
        given = "" if status == "in_progress" else "".join(self._arguments)
        if self._input is not None:
            input = custom_tools.input_of(given, plain=self._is_plain)
            return items.custom_tool_call(self._id, input=input, status=status, **named)
        return items.function_call(self._id, arguments=given, status=status, **named)

    def _opened(self) -> None:
        kind = ARGUMENTS_DELTA if self._input is None else INPUT_DELTA
        self._prefix = delta_prefix(kind, self._place)
        if self._arguments:
            self._write("".join(self._arguments))

    def _end(self, out: list[bytes]) -> None:
        if self._input is not None:
            out.append(self._events.input_done(self._place, self._item["input"]))
        else:
            out.append(
                self._events.arguments_done(self._place, self._name, self._item["arguments"])
            )
