"""A chat stream turned into a Response's events, chunk by chunk.

It is driven as `chat_stream.ChatStream` is: pass on what `feed` returns, stop when `done`, then record `final` and send what
`finish` returns. The event that says how the response ended, and `[DONE]`, only ever come from there.

Order: created, in_progress, then each item (added, its part added, deltas) as it appears, each closed when its choice has ended,
in the order in which they began; then exactly one of completed, incomplete and failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from dwctl.protocols.assembly import FAILED, CallKeys, PartsBudget, TooMuch, is_end, text_of
from dwctl.protocols.disclosure import Disclosure, disclose
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.openresponses import items, resource
from dwctl.protocols.openresponses.events import (
    ARGUMENTS_DELTA,
    REFUSAL_DELTA,
    SUMMARY_DELTA,
    TEXT_DELTA,
    Events,
    Place,
    delta_prefix,
)
from dwctl.protocols.openresponses.items import Item, item_id
from dwctl.protocols.openresponses.resource import Response
from dwctl.protocols.streaming import (
    LOGGED_BYTES,
    MAX_STREAM_BYTES,
    TOO_LARGE,
    UpstreamStream,
)
from dwctl.upstream.sse import MAX_EVENT_BYTES, SseEvent

_OPEN = Disclosure()


class ResponsesStream(UpstreamStream):
    """One call's stream."""

    def __init__(
        self,
        skeleton: Response,
        *,
        now: Callable[[], int],
        disclosure: Disclosure = _OPEN,
        request: Mapping[str, Any] | None = None,
        max_bytes: int = MAX_STREAM_BYTES,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        """now: the clock, in whole seconds."""
        super().__init__(disclosure, request, max_bytes, max_event_bytes)
        self.final: Response = resource.in_progress(skeleton)
        """After finish(): as in the last event."""
        self._skeleton = skeleton
        self._now = now
        self._events = Events()
        self._choices: dict[int, _Choice] = {}
        self._output: list[_OpenItem] = []
        self._budget = PartsBudget()
        self._raw_usage: object = None
        self._started = self._ended_well = self._closed = False

    @property
    def ended(self) -> bool:
        choices = self._choices.values()
        finished = bool(choices) and all(is_end(choice.finish_reason) for choice in choices)
        return self._ended_well or finished

    def start(self) -> bytes:
        """created and in_progress. Where this is not called, the first chunk brings them."""
        self._started = True
        return self._events.created(self._skeleton) + self._events.in_progress(self._skeleton)

    def feed(self, chunk: bytes) -> bytes:
        """The events that can go to the caller now."""
        if self.done:
            return b""
        begun = b"" if self._started else self.start()
        return begun + self._treat(self._events_in(chunk))

    def _treat(self, events: list[SseEvent]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if event.comment is not None:
                out.append(event.comment + b"\n\n")
            if event.data is not None:
                self._read(event.data, out)
            if self.done:
                break
        return b"".join(out)

    def _read(self, data: bytes, out: list[bytes]) -> None:
        if data.startswith(b"[DONE]"):
            self.done = self._ended_well = True
            return
        chunk = parse_object(data)
        if chunk is None:
            return
        self._count(chunk)
        if chunk.get("error"):
            self._fail_as(chunk["error"], data)
            return
        usage = chunk.get("usage")
        choices = chunk.get("choices")
        if usage and isinstance(usage, dict):
            self._raw_usage = usage
            self._ended_well = self._ended_well or not choices
        if isinstance(choices, list):
            try:
                self._read_choices(choices, out)
            except TooMuch as error:
                self._break_off(TOO_LARGE, str(error))

    def _read_choices(self, choices: list[Any], out: list[bytes]) -> None:
        for position, part in enumerate(choices):
            if isinstance(part, dict):
                choice = self._choice(part.get("index"), position)
                choice.read(part, out)
                if choice.finish_reason == FAILED and self.error is None:
                    self._fail("upstream_error", "The upstream provider failed while it answered.")

    def _choice(self, index: object, position: int) -> _Choice:
        key = index if isinstance(index, int) else position
        found = self._choices.get(key)
        if found is None:
            self._budget.spend()
            id = self._skeleton["id"]
            found = self._choices[key] = _Choice(self._events, self._output, id, self._budget)
        return found

    # --- the end

    def finish(self) -> bytes:
        """The last events, now that the upstream has ended; `final` is then the object as in the last one."""
        if self._closed:
            return b""
        out = [b"" if self._started else self.start()]
        if not self.done:
            out.append(self._treat(self._last_events()))
        if self.error is None and not self.ended:
            self._fail("server_error", "The upstream provider ended the stream too early.")
        if self.error is None and not self._choices:
            self._fail("server_error", "The model gave no answer.")
        return b"".join([*out, *self._closing()])

    def fail(self, code: str, message: str) -> bytes:
        """The last events, when something other than the upstream's own end ends the stream."""
        if self._closed:
            return b""
        begun = b"" if self._started else self.start()
        self._break_off(code, message)
        return b"".join([begun, *self._closing()])

    def cancel(self) -> bytes:
        """The last events of a response that its owner cancelled."""
        if self._closed:
            return b""
        begun = b"" if self._started else self.start()
        frames = self._close_items("incomplete")
        return b"".join([begun, *frames, self._end(resource.cancelled(self._so_far()))])

    def assembled(self) -> Response:
        """The object up to here: `final` once the stream is closed, before that with the items as far as they are."""
        return self.final if self._closed else self._so_far()

    def _written_chars(self) -> int:
        return sum(item.chars for item in self._output)

    def _break_off(self, code: str, message: str) -> None:
        self.done = True
        self._fail(code, message)

    def _fail(self, code: str, message: str, type: str = "server_error") -> None:
        self.error = {"code": code, "message": message, "type": type}

    def _fail_as(self, error: object, data: bytes) -> None:
        """The upstream says in its stream that it failed."""
        self.upstream_error = data[:LOGGED_BYTES]
        self.done = True
        self._fail(**disclose(self._disclosure, None, error).response_error)

    def _closing(self) -> list[bytes]:
        if self.error is not None:
            frames = self._close_items("incomplete")
            return [*frames, self._end(resource.failed(self._so_far(), **self.error))]
        frames = self._close_items("completed")
        first = self._choices[min(self._choices)]
        return [
            *frames,
            self._end(
                resource.concluded(
                    self._skeleton,
                    output=self._items(),
                    finish_reason=first.finish_reason,
                    usage=resource.usage(self._raw_usage),
                    completed_at=self._now(),
                )
            ),
        ]

    def _close_items(self, last_status: str) -> list[bytes]:
        """Close what no finish_reason has closed."""
        return [frame for c in self._choices.values() for frame in c.close(last_status)]

    def _items(self) -> list[Item]:
        return [item.so_far() for item in self._output]

    def _so_far(self) -> Response:
        usage = resource.usage(self._raw_usage)
        return {**self._skeleton, "output": self._items(), "usage": usage}

    def _end(self, response: Response) -> bytes:
        self._closed = self.done = True
        self.final = response
        return self._events.ended(response)


class _Choice:
    """One choice of the chat stream, as the items that it becomes."""

    def __init__(
        self, events: Events, output: list[_OpenItem], response_id: str, budget: PartsBudget
    ) -> None:
        self.finish_reason: object = None
        self._events = events
        self._output = output  # of all choices
        self._response_id = response_id
        self._budget = budget
        self._open: list[_OpenItem] = []
        self._reasoning: _Reasoning | None = None
        self._message: _Message | None = None
        self._calls: dict[int, _Call] = {}
        self._call_keys = CallKeys()

    def read(self, part: dict[str, Any], out: list[bytes]) -> None:
        delta = part.get("delta")
        if delta and isinstance(delta, dict):
            content = delta.get("content")
            if len(delta) > 1 or content is None:
                self._read_others(delta, out)
            if content:
                text = content if isinstance(content, str) else text_of(content)
                if text:
                    logprobs = items.logprobs(part["logprobs"]) if part.get("logprobs") else None
                    self._message_item(out).text(text, logprobs, out)
            if len(delta) > 1 or content is None:
                self._read_calls(delta, out)
        reason = part.get("finish_reason")
        if reason is not None:
            self.finish_reason = reason
            out += self.close(resource.item_status(reason))

    def close(self, last_status: str) -> list[bytes]:
        """End all items; the last of them has the status with which the choice ended."""
        out: list[bytes] = []
        for call in self._calls.values():
            if not call.is_added:
                self._add(call, out)
        for item in self._open:
            item.close(last_status if item is self._open[-1] else "completed", out)
        self._open = []
        self._reasoning = self._message = None
        self._calls = {}
        return out

    def _read_others(self, delta: dict[str, Any], out: list[bytes]) -> None:
        thought = resource.reasoning_text(delta)
        if thought:
            if self._reasoning is None:
                self._budget.spend()
                self._reasoning = self._add(_Reasoning(self._events), out)
            self._reasoning.text(thought, out)

    def _read_calls(self, delta: dict[str, Any], out: list[bytes]) -> None:
        refused = delta.get("refusal")
        if refused and isinstance(refused, str):
            self._message_item(out).refuse(refused, out)
        if delta.get("annotations"):
            self._message_item(out).cite(items.citations(delta["annotations"]), out)
        calls = delta.get("tool_calls")
        for part in calls if isinstance(calls, list) else ():
            if isinstance(part, dict):
                self._read_call(part, out)

    def _read_call(self, part: dict[str, Any], out: list[bytes]) -> None:
        key = self._call_keys.of(part)
        call = self._calls.get(key)
        if call is None:
            self._budget.spend()
            call = self._calls[key] = _Call(self._events)
        fragment = call.take(part)
        if call.is_added:
            call.arguments(fragment, out)
        elif call.is_known:
            self._add(call, out)

    def _message_item(self, out: list[bytes]) -> _Message:
        if self._message is None:
            self._budget.spend()
            self._message = self._add(_Message(self._events), out)
        return self._message

    def _add(self, item: _AnyItem, out: list[bytes]) -> _AnyItem:
        item.add(len(self._output), self._response_id, out)
        self._output.append(item)
        self._open.append(item)
        return item


class _OpenItem:
    """An output item while it is being written."""

    kind = ""

    def __init__(self, events: Events) -> None:
        self.chars = 0
        self.item: Item = {}  # as in the last event about it
        self._ended = False
        self._events = events
        self._index = -1
        self._place: Place = {}

    @property
    def is_added(self) -> bool:
        return self._index >= 0

    def add(self, index: int, response_id: str, out: list[bytes]) -> None:
        self._index = index
        id = item_id(response_id, self.kind, index)
        self._place = {"item_id": id, "output_index": index}
        self.item = self._made(id, "in_progress")
        out.append(self._events.item_added(index, self.item))
        self._added(out)

    def close(self, status: str, out: list[bytes]) -> None:
        self._end(out)
        self._ended = True
        self.item = self._made(self._place["item_id"], status)
        out.append(self._events.item_done(self._index, self.item))

    def so_far(self) -> Item:
        """The item as it would be if it ended now; once it has ended, as it is."""
        return self.item if self._ended else self._made(self._place["item_id"], "incomplete")

    def _made(self, id: str, status: str) -> Item:
        raise NotImplementedError

    def _added(self, out: list[bytes]) -> None:
        """What follows the event that adds the item."""

    def _end(self, out: list[bytes]) -> None:
        """What precedes the event that ends the item."""


_AnyItem = TypeVar("_AnyItem", bound=_OpenItem)


class _Reasoning(_OpenItem):
    kind = "reasoning"

    def __init__(self, events: Events) -> None:
        super().__init__(events)
        self._texts: list[str] = []
        self._prefix = b""

    def _made(self, id: str, status: str) -> Item:
        if status == "in_progress":
            return {"type": "reasoning", "id": id, "status": status, "summary": []}
        return items.reasoning(id, "".join(self._texts), status)

    def _added(self, out: list[bytes]) -> None:
        self._place["summary_index"] = 0
        self._prefix = delta_prefix(SUMMARY_DELTA, self._place)
        out.append(self._events.summary_added(self._place))

    def text(self, text: str, out: list[bytes]) -> None:
        self._texts.append(text)
        self.chars += len(text)
        out.append(self._events.delta(self._prefix, text))

    def _end(self, out: list[bytes]) -> None:
        out.append(self._events.summary_done(self._place, "".join(self._texts)))


class _Message(_OpenItem):
    kind = "message"

    def __init__(self, events: Events) -> None:
        super().__init__(events)
        self._parts: list[_Part] = []
        self._text: _Part | None = None
        self._refusal: _Part | None = None

    def _made(self, id: str, status: str) -> Item:
        return items.message(id, [part.part() for part in self._parts], status)

    def text(self, text: str, logprobs: list[Item] | None, out: list[bytes]) -> None:
        part = self._text_part(out)
        part.texts.append(text)
        self.chars += len(text)
        if logprobs:
            part.logprobs += logprobs
        out.append(self._events.text_delta(part.prefix, text, logprobs))

    def cite(self, citations: list[Item], out: list[bytes]) -> None:
        part = self._text_part(out)
        for citation in citations:
            number = len(part.citations)
            part.citations.append(citation)
            out.append(self._events.annotation_added(part.place, number, citation))

    def refuse(self, text: str, out: list[bytes]) -> None:
        if self._refusal is None:
            self._refusal = self._new_part(REFUSAL_DELTA, out)
        self._refusal.texts.append(text)
        self.chars += len(text)
        out.append(self._events.delta(self._refusal.prefix, text))

    def _text_part(self, out: list[bytes]) -> _Part:
        if self._text is None:
            self._text = self._new_part(TEXT_DELTA, out)
        return self._text

    def _new_part(self, kind: str, out: list[bytes]) -> _Part:
        part = _Part(kind, {**self._place, "content_index": len(self._parts)})
        self._parts.append(part)
        out.append(self._events.part_added(part.place, part.part()))
        return part

    def _end(self, out: list[bytes]) -> None:
        for part in self._parts:
            whole = part.part()
            if part is self._refusal:
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
        self._kind = kind

    def part(self) -> Item:
        text = "".join(self.texts)
        if self._kind == REFUSAL_DELTA:
            return items.refusal(text)
        return items.output_text(text, self.citations, self.logprobs)


class _Call(_OpenItem):
    """A function call. It is added once its id and name are known; what came before then follows at once."""

    kind = "function_call"

    def __init__(self, events: Events) -> None:
        super().__init__(events)
        self._id = self._name = ""
        self._arguments: list[str] = []
        self._prefix = b""

    @property
    def is_known(self) -> bool:
        return bool(self._id and self._name)

    def take(self, part: dict[str, Any]) -> str:
        """Remember what a part says; return its fragment of the arguments."""
        function = part.get("function") or part.get("custom")
        function = function if isinstance(function, dict) else {}
        self._id = self._id or str(part.get("id") or "")
        self._name = self._name or str(function.get("name") or "")
        fragment = function.get("arguments", function.get("input"))
        if not fragment or not isinstance(fragment, str):
            return ""
        self._arguments.append(fragment)
        self.chars += len(fragment)
        return fragment

    def arguments(self, fragment: str, out: list[bytes]) -> None:
        if fragment:
            out.append(self._events.delta(self._prefix, fragment))

    def _made(self, id: str, status: str) -> Item:
        return items.function_call(
            id,
            call_id=self._id or id.replace("fc_", "call_", 1),
            name=self._name,
            arguments="" if status == "in_progress" else "".join(self._arguments),
            status=status,
        )

    def _added(self, out: list[bytes]) -> None:
        self._prefix = delta_prefix(ARGUMENTS_DELTA, self._place)
        self.arguments("".join(self._arguments), out)

    def _end(self, out: list[bytes]) -> None:
        out.append(self._events.arguments_done(self._place, "".join(self._arguments)))
