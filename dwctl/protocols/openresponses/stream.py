"""A chat stream turned into a Response's events, chunk by chunk.

It is driven as `chat_stream.ChatStream` is: pass on what `feed` returns, stop when `done`, then record `final` and send what
`finish` returns. The event that says how the response ended, and `[DONE]`, only ever come from there.

Order: created, in_progress, then the items one after the other (added, its parts added, deltas, done), in the order in which they
began; then exactly one of completed, incomplete and failed. One item is open at a time: what comes for another waits (see `_Line`). Of a
call that broke off nothing is said to be done (`items.is_cut_call`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dwctl.protocols import forms
from dwctl.protocols.answers import BROKE_OFF, FAILED, error_in
from dwctl.protocols.assembly import CallKey, CallKeys, is_end, text_of, transcript
from dwctl.protocols.dialects import Chunks
from dwctl.protocols.disclosure import Disclosure, disclose
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.openresponses import items, namespaces, resource
from dwctl.protocols.openresponses.events import Events
from dwctl.protocols.openresponses.items import Item
from dwctl.protocols.openresponses.namespaces import Called
from dwctl.protocols.openresponses.open_items import AnyItem, Call, Message, OpenItem, Reasoning
from dwctl.protocols.openresponses.resource import Response
from dwctl.protocols.parts import PartsBudget, TooMuch
from dwctl.protocols.streaming import (
    ERROR_EVENT,
    KEPT_ALIVE,
    LOGGED_BYTES,
    MAX_STREAM_BYTES,
    TOO_LARGE,
    UNREADABLE,
    UpstreamStream,
    is_done,
    is_keep_alive,
    is_piece,
    says_error,
    spoken,
)
from dwctl.protocols.usage import merged
from dwctl.upstream.sse import MAX_EVENT_BYTES, SseEvent

_OPEN = Disclosure()
_UNNAMED: CallKey = (-1, 0)
"""Of a function call of the older form: no tool call has it."""


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
        queued: bool = False,
    ) -> None:
        """now: the clock, in whole seconds. queued: it waited for a worker, which its first events say."""
        super().__init__(disclosure, request, max_bytes, max_event_bytes)
        self.final: Response = resource.in_progress(skeleton)
        """After finish(): as in the last event."""
        self._skeleton = skeleton
        self._now = now
        self._queued = queued
        self._events = Events()
        self._choices: dict[int, _Choice] = {}
        self._budget = PartsBudget()
        self._line = _Line(self._events, str(skeleton["id"]), self._budget)
        self._names = namespaces.by_flat_name(skeleton["tools"])
        self._raw_usage: dict[str, Any] | None = None
        self._chunks = Chunks(forms.CHAT, str(skeleton["id"]))
        self._started = self._ended_well = self._closed = False

    @property
    def ended(self) -> bool:
        choices = self._choices.values()
        finished = bool(choices) and all(is_end(choice.finish_reason) for choice in choices)
        return self._ended_well or finished

    def start(self) -> bytes:
        """created and in_progress. Where this is not called, the first chunk brings them; comments and pings that come before it do not."""
        self._started = True
        skeleton, events = self._skeleton, self._events
        begun = events.began_queued(skeleton) if self._queued else events.created(skeleton)
        return begun + events.in_progress(skeleton)

    def feed(self, chunk: bytes) -> bytes:
        """The events that can go to the caller now."""
        if self.done:
            return b""
        return self._treat(self._events_in(chunk))

    def _treat(self, events: list[SseEvent]) -> bytes:
        out: list[bytes] = []
        for number, event in enumerate(events, 1):
            if event.comment is not None:
                out.append(event.comment + b"\n\n")
            if event.data is not None:
                self._read(event, event.data, out)
            if self.done:
                if self.error is None and self._counts is None:
                    self._late_usage(events[number:])
                break
        return b"".join(out)

    def _read(self, event: SseEvent, data: bytes, out: list[bytes]) -> None:
        chunk = parse_object(data)
        is_named = event.event == ERROR_EVENT
        if chunk is None:
            if is_done(data):
                self.done = self._ended_well = True
                return
            data, chunk = self._object_in(data)
            if chunk is None:
                if is_named or says_error(data):
                    self._fail_as(spoken(data), data)
                elif is_piece(data):
                    self.upstream_error = data[:LOGGED_BYTES]
                    self._break_off("upstream_error", UNREADABLE)
                elif event.comment is None and is_keep_alive(event, data, chunk):
                    out.append(KEPT_ALIVE)
                return
        error = error_in(chunk, named=is_named)
        if error is not None:
            self._count(chunk)
            self._fail_as(error, data)
            return
        if is_keep_alive(event, data, chunk):
            out.append(KEPT_ALIVE)
            return
        if not self._started:
            out.append(self.start())
        try:
            self._chunks.put_right(chunk)
            self._count(chunk)
            usage = chunk.get("usage")
            choices = chunk.get("choices")
            if usage and isinstance(usage, dict):
                self._raw_usage = merged(self._raw_usage, usage)
                self._ended_well = self._ended_well or not choices
            if choices:
                self._ended_well = False  # a usage that more follows was not the last word
                self._read_choices(choices, out)
        except TooMuch as error:
            self._break_off(TOO_LARGE, str(error))

    def _late_usage(self, events: list[SseEvent]) -> None:
        """See `ChatStream`."""
        for event in events:
            chunk = parse_object(event.data) if event.data and b'"usage"' in event.data else None
            if chunk is not None and isinstance(chunk.get("usage"), dict):
                self._count(chunk)
                self._raw_usage = merged(self._raw_usage, chunk["usage"])

    def _read_choices(self, choices: list[dict[str, Any]], out: list[bytes]) -> None:
        for part in choices:
            choice = self._choice(part["index"])
            choice.read(part)
            self._line.advance(out)
            if choice.finish_reason == FAILED and self.error is None:
                self._fail_for(part.get("error"))

    def _fail_for(self, error: object) -> None:
        """A choice has failed, with an error of its own or without a word."""
        if error:
            self._fail(**disclose(self._disclosure, None, error).response_error)
        else:
            self._fail("upstream_error", BROKE_OFF["message"])

    def _choice(self, index: int) -> _Choice:
        found = self._choices.get(index)
        if found is None:
            self._budget.spend()
            found = self._choices[index] = _Choice(self._line, self._names)
        return found

    def _read_held(self, out: list[bytes]) -> None:
        """What was kept of tool calls until more is known of them."""
        try:
            has_ended = self.ended and self.error is None
            self._read_choices(self._chunks.rest(has_ended=has_ended), out)
        except TooMuch as error:
            self._break_off(TOO_LARGE, str(error))

    # --- the end

    def finish(self) -> bytes:
        """The last events, now that the upstream has ended; `final` is then the object as in the last one."""
        if self._closed:
            return b""
        out = [b"" if self._started else self.start()]
        if not self.done:
            out.append(self._treat(self._whole_last_events()))
        self._read_held(out)
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
        return sum(item.chars for item in self._line.items)

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
                    usage=resource.usage(self._raw_usage, self.settle),
                    completed_at=self._now(),
                )
            ),
        ]

    def _close_items(self, last_status: str) -> list[bytes]:
        """Close what no finish_reason has closed."""
        out: list[bytes] = []
        for choice in self._choices.values():
            choice.close(last_status)
        self._line.advance(out)
        return out

    def _items(self) -> list[Item]:
        return [item.so_far() for item in self._line.items]

    def _so_far(self) -> Response:
        usage = resource.usage(self._raw_usage, self.settle)
        return {**self._skeleton, "output": self._items(), "usage": usage}

    def _end(self, response: Response) -> bytes:
        self._closed = self.done = True
        self.final = response
        return self._events.ended(response)


class _Line:
    """The output items of all choices, in the order in which they began; the events of one at a time.

    The item whose turn it is writes its events as they come. The others collect, and write all of it when their turn comes.
    """

    def __init__(self, events: Events, response_id: str, budget: PartsBudget) -> None:
        self.items: list[OpenItem] = []
        self._events = events
        self._response_id = response_id
        self._budget = budget
        self._turn = 0  # the index of the item that may write

    def begin(self, kind: type[AnyItem]) -> AnyItem:
        """A new item at the end of the line. Raises TooMuch."""
        self._budget.spend()
        item = kind(self._events, len(self.items), self._response_id)
        self.items.append(item)
        return item

    def advance(self, out: list[bytes]) -> None:
        """Close what has ended, and give the turn to the next."""
        while self._turn < len(self.items):
            item = self.items[self._turn]
            if not item.out_is_open and (item.is_ready or item.ending):
                item.open(out)
            out += item.take_events()
            if item.ending is None:
                return
            item.close(out)
            self._turn += 1


class _Choice:
    """One choice of the chat stream, as the items that it becomes."""

    def __init__(self, line: _Line, names: Mapping[str, Called]) -> None:
        self.finish_reason: object = None
        self._line = line
        self._names = names
        self._open: list[OpenItem] = []  # begun, and not ended
        self._reasoning: Reasoning | None = None
        self._message: Message | None = None
        self._calls: dict[CallKey, Call] = {}
        self._call_keys = CallKeys()
        self._has_text = False

    def read(self, part: dict[str, Any]) -> None:
        delta = part.get("delta")
        if delta and isinstance(delta, dict):
            content = delta.get("content")
            has_more = len(delta) > 1 or content is None
            if has_more:
                self._read_reasoning(delta)
            if content:
                text = content if isinstance(content, str) else text_of(content)
                if text:
                    self._has_text = True
                    logprobs = items.logprobs(part["logprobs"]) if part.get("logprobs") else None
                    self._message_item().text(text, logprobs)
            if has_more:
                self._read_others(delta)
        reason = part.get("finish_reason")
        if reason is not None and is_end(reason):
            self.finish_reason = reason
            self.close(resource.item_status(reason))

    def close(self, last_status: str) -> None:
        """End all items; the last of them, and calls that are not whole, have the status with which the choice ended."""
        for item in self._open:
            is_whole = item is not self._open[-1] and item.may_end
            item.ending = "completed" if is_whole else last_status
        self._open = []
        self._reasoning = self._message = None
        self._calls = {}

    def _read_reasoning(self, delta: dict[str, Any]) -> None:
        content, summary = resource.reasoning_texts(delta)
        if content or summary:
            if self._reasoning is None:
                self._reasoning = self._begin(Reasoning)
            self._reasoning.add(content, summary)

    def _read_others(self, delta: dict[str, Any]) -> None:
        refused = delta.get("refusal")
        if refused and isinstance(refused, str):
            self._message_item().refuse(refused)
        if delta.get("audio") and not self._has_text and (spoken := transcript(delta["audio"])):
            self._message_item().text(spoken, None)
        if delta.get("annotations"):
            self._message_item().cite(items.citations(delta["annotations"]))
        calls = delta.get("tool_calls")
        for part in calls if isinstance(calls, list) else ():
            if isinstance(part, dict):
                self._read_call(part)
        legacy = delta.get("function_call")
        if legacy and isinstance(legacy, dict) and not calls:
            self._read_unnamed_call(legacy)

    def _read_call(self, part: dict[str, Any]) -> None:
        key = self._call_keys.of(part)
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = self._begin(Call)
        call.take(part, self._names)
        if call is not self._open[-1] and call.ending is None and call.has_just_ended:
            self._open.remove(call)
            call.ending = "completed"

    def _read_unnamed_call(self, function: dict[str, Any]) -> None:
        """There is one at most; a server that has said it as a tool call says it for the second time."""
        call = self._calls.get(_UNNAMED)
        if call is None:
            if self._calls:
                return
            call = self._calls[_UNNAMED] = self._begin(Call)
        call.take_unnamed(function, self._names)

    def _message_item(self) -> Message:
        if self._message is None:
            self._message = self._begin(Message)
        return self._message

    def _begin(self, kind: type[AnyItem]) -> AnyItem:
        """A new item, which ends the one before it: but not a call whose arguments are still to come."""
        if self._open and self._open[-1].may_end:
            self._open.pop().ending = "completed"
        self._reasoning = self._message = None
        begun = self._line.begin(kind)
        self._open.append(begun)
        return begun
