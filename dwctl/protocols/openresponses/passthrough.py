"""Answers of upstream servers that speak the Responses API themselves: our identifier, the alias, and a proper end.

Driven as `chat_stream.ChatStream` is. The upstream's own events, items and their identifiers stay; in strict mode its Response
objects get the members that they lack, our times, and no unknown members.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import orjson

from dwctl.protocols.answers import dump, error_in
from dwctl.protocols.chat_stream import frame
from dwctl.protocols.disclosure import Disclosure, disclose
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.numbered import DONE
from dwctl.protocols.openresponses import resource
from dwctl.protocols.openresponses.events import Events
from dwctl.protocols.openresponses.item_ids import ItemIds, with_ids
from dwctl.protocols.openresponses.items import Item
from dwctl.protocols.openresponses.resource import Response
from dwctl.protocols.splice import replace_members
from dwctl.protocols.streaming import (
    ERROR_EVENT,
    KEPT_ALIVE,
    LOGGED_BYTES,
    MAX_STREAM_BYTES,
    UNREADABLE,
    UpstreamStream,
    delta_of,
    is_broken,
    is_done,
    is_keep_alive,
    is_piece,
    says_error,
    spoken,
    without_data,
)
from dwctl.protocols.usage import TokenUsage, raw_chars, read_counts, text_chars
from dwctl.upstream.sse import MAX_EVENT_BYTES, SseEvent

Settled = Callable[[], TokenUsage | None]

_KNOWN = resource.REQUIRED | {"user", "instructions", "prompt", "conversation"}
_OPEN = Disclosure()
_MOST_EVENTS = 1_000_000_000  # `numbered` reads no more digits
_BEGINNINGS = frozenset(["response.created", "response.queued"])
_LAST = frozenset(["response.completed", "response.failed", "response.incomplete"])
# In data that cannot be parsed. Inside of a string the quotes would be escaped, so this is a member.
_SAYS_END = re.compile(rb'"type"\s*:\s*"response\.(?:completed|failed|incomplete)"')


def finish_body(
    raw: bytes,
    content: dict[str, Any] | None,
    *,
    skeleton: Response,
    disclosure: Disclosure,
    completed_at: int,
    settled: Settled = lambda: None,
) -> bytes:
    """What the caller gets for a complete 2xx body. Raises BadUpstreamBody where it is no Response.

    content: `raw` as `parse_object` reads it. A Response may be an error in form: its `error` is disclosed as any other.
    settled: what the call is charged for, which is shown where the upstream says only a part of it.
    """
    shown = _disclosed(disclosure, content) if content else None
    if content is None or not isinstance(content.get("output"), list):
        raise BadUpstreamBody("no object with a list of output items")
    if (named := with_ids(content["output"], str(skeleton["id"]))) is not None:
        content = {**content, "output": named}
        raw = replace_members(raw, {"output": dump(named)})
    if not disclosure.strict:
        changes = {"error": dump(shown)} if shown else {}
        if "id" in content:
            changes["id"] = dump(skeleton["id"])
        if (completed := _completed_usage(content.get("usage"), settled)) is not None:
            changes["usage"] = dump(completed)
        return replace_members(raw, changes) if changes else raw
    if shown:
        content = {**content, "error": shown}
    return dump(_completed(content, skeleton, completed_at, settled))


def failure_in(content: Mapping[str, Any]) -> object:
    """The error of a complete answer that is a Response only in form, or none at all. Raises BadUpstreamBody for one that has not ended."""
    status = content.get("status")
    if status in ("in_progress", "queued"):
        raise BadUpstreamBody("a Response that has not ended")
    if status in ("failed", "cancelled") or content.get("error"):
        return content.get("error") or {"message": "The upstream provider failed."}
    if isinstance(content.get("output"), list):
        return None
    return error_in(content, named=content.get("type") == "error")


def _is_number(value: object) -> TypeGuard[int]:
    """Whether it can be an event's number, and more can follow."""
    return type(value) is int and 0 <= value < _MOST_EVENTS


def _disclosed(disclosure: Disclosure, response: Mapping[str, Any]) -> dict[str, str] | None:
    """The error of a Response object as the caller may see it; None where there is none, or it stays as it is."""
    if not response.get("error"):
        return None
    shown = disclose(disclosure, None, response["error"])
    return None if shown.as_it_came else shown.response_error


def _completed(
    content: Mapping[str, Any], skeleton: Response, completed_at: int, settled: Settled
) -> Response:
    """An upstream's Response with what it lacks. Its status is taken on trust, where it has one."""
    given = {n: v for n, v in content.items() if n in _KNOWN and v is not None}
    whole = {**skeleton, "status": "completed", "output": [], **given}
    for name in ("id", "created_at", "model", "background", "service_tier", "store"):
        whole[name] = skeleton[name]
    whole["completed_at"] = completed_at if whole["status"] == "completed" else None
    whole["usage"] = _whole_usage(given.get("usage"), settled)
    return whole


def _whole_usage(given: object, settled: Settled) -> dict[str, Any] | None:
    """With all counts and details that the published schema requires; what an upstream says beyond them stays."""
    whole = resource.usage(given, settled)
    if whole is None or not isinstance(given, dict):
        return None
    for name, value in given.items():
        ours = whole.get(name)
        if isinstance(ours, dict):
            said = value if isinstance(value, dict) else {}
            whole[name] = ours | {n: v for n, v in said.items() if v is not None}
        elif ours is None:
            whole[name] = value
    return whole


def _completed_usage(given: object, settled: Settled) -> dict[str, Any] | None:
    """A usage that says only a part, or says it in a way of its own, as what is charged; None for one that may stay as it came."""
    if read_counts(given) is None or (charged := settled()) is None:
        return None
    assert isinstance(given, Mapping)
    said = [given.get(name) for name in ("input_tokens", "output_tokens", "total_tokens")]
    paid = [charged.prompt_tokens, charged.completion_tokens, charged.total_tokens]
    if said == paid and all(type(count) is int for count in said):
        return None
    return _whole_usage(given, lambda: charged)


class ResponsesRelay(UpstreamStream):
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
        """now: the clock, in whole seconds.

        queued: it waited for a worker, which its first events say; so the upstream's own beginning is left out, and all get our numbers.
        """
        super().__init__(disclosure, request, max_bytes, max_event_bytes)
        self.final: Response = resource.in_progress(skeleton)
        """After finish(): as in the last event."""
        self._skeleton = skeleton
        self._now = now
        self._strict = disclosure.strict
        self._events = Events()
        self._ids = ItemIds(str(skeleton["id"]))
        self._queued = queued
        self._begun = not queued
        self._items: list[Item] = []
        self._chars = 0
        self._shown_chars = 0  # in whole items: some servers send these without their deltas, or nothing but the object
        self._has_gaps = False
        """Events were left out that nobody can read: only the object in the last one may be whole."""
        self._last_frame = b""
        self._closed = False

    @property
    def ended(self) -> bool:
        return bool(self._last_frame)

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that can go to the caller now; the event that ends the response waits for `finish`."""
        return b"" if self.done else self._begin() + self._treat(self._events_in(chunk))

    def finish(self) -> bytes:
        if self._closed:
            return b""
        rest = self._begin()
        if not self.done:
            rest += self._treat(self._whole_last_events())
        if not self._last_frame and self.error is None:
            self._break_off("server_error", "The upstream provider ended the stream too early.")
        return rest + self._closing()

    def fail(self, code: str, message: str) -> bytes:
        """The last events, when something other than the upstream's own end ends the stream."""
        if self._closed:
            return b""
        self._last_frame = b""
        self._break_off(code, message)
        return self._begin() + self._closing()

    def cancel(self) -> bytes:
        """The last events of a response that its owner cancelled."""
        if self._closed:
            return b""
        if self._last_frame:  # too late: it has ended already
            return self._closing()
        self.final = resource.cancelled(self.assembled())
        self._closed = self.done = True
        return self._begin() + self._events.ended(self.final)

    def assembled(self) -> Response:
        """The object up to here: `final` once the stream is closed, before that with the items that are done."""
        if self._closed or self._last_frame:
            return self.final
        return {**self._skeleton, **self.final, "output": self._items}

    def _begin(self) -> bytes:
        """What is said of a response that waited for a worker, once."""
        if self._begun:
            return b""
        self._begun = True
        return self._events.began_queued(self._skeleton)

    def _written_chars(self) -> int:
        return max(self._chars, self._shown_chars) + self._foreign_chars

    def _treat(self, events: list[SseEvent]) -> bytes:
        out = []
        for event in events:
            out.append(
                without_data(event) if event.data is None else self._treated(event, event.data)
            )
            if self.done:
                break
        return b"".join(out)

    def _treated(self, event: SseEvent, data: bytes) -> bytes:
        body = parse_object(data)
        if body is None:
            if is_done(data):
                self.done = True
                return b""
            given, (data, body) = data, self._object_in(data)
            if body is None:
                return self._unreadable(event, data)
            if given is not data:
                event = event._replace(raw=frame(event, data))
        type = body.get("type")
        if event.event is not None and type is None and event.event != ERROR_EVENT:
            type = body["type"] = event.event.decode("latin-1")
        if is_keep_alive(event, data, body):
            return KEPT_ALIVE if event.comment is None else event.comment + b"\n\n"
        if body.get("object") == "response" and type is None:  # one complete answer
            type = "response.completed"
            body = {"type": type, "response": body}
            event = SseEvent(data, type.encode())
        is_named = type == "error" or event.event == ERROR_EVENT
        if self._queued and isinstance(type, str) and type in _BEGINNINGS:
            return b""
        changed = self._ids.put_right(body)
        is_numbered = _is_number(body.get("sequence_number")) and not self._queued
        if type is not None and not is_named and not is_numbered:
            body["sequence_number"] = self._events.sequence_number
            changed = True
        if changed:
            event = event._replace(raw=frame(event, orjson.dumps(body)))
        self._note(body)
        if isinstance(body.get("response"), dict):
            return self._with_response(event, body)
        if isinstance(type, str) and type in _LAST:
            return self._without_end(data)
        error = error_in(body, named=is_named) if type is None or is_named else body.get("error")
        if error:
            return self._with_error(data, error)
        if delta_of(body) is None:
            return self._foreign(event, data, body)
        return event.raw if event.raw.endswith(b"\n\n") else frame(event, data)

    def _foreign(self, event: SseEvent, data: bytes, body: dict[str, Any]) -> bytes:
        """One of another protocol, as the chunks of a chat."""
        if self._strict and not isinstance(body.get("type"), str):
            self._has_gaps = True
            return b""
        self._count_foreign(data, body)
        return event.raw if event.raw.endswith(b"\n\n") else frame(event, data)

    def _unreadable(self, event: SseEvent, data: bytes) -> bytes:
        """An event that is no object which can be written again. One that says how it ended must not go on: the end is ours to tell."""
        if event.event == ERROR_EVENT or says_error(data):
            return self._with_error(data, spoken(data))
        if is_keep_alive(event, data, None):
            return KEPT_ALIVE if event.comment is None else event.comment + b"\n\n"
        if _SAYS_END.search(data) or (event.event or b"").decode("latin-1") in _LAST:
            return self._without_end(data)
        if not self._strict and not is_broken(data):
            self._foreign_chars += raw_chars(data)
            return event.raw
        self._has_gaps = self._has_gaps or is_piece(data)
        return b""

    def _without_end(self, data: bytes) -> bytes:
        """The upstream says that it has ended, but not how."""
        self.upstream_error = data[:LOGGED_BYTES]
        self._break_off("server_error", UNREADABLE)
        return b""

    def _note(self, body: Mapping[str, Any]) -> None:
        number = body.get("sequence_number")
        if _is_number(number):
            self._events.sequence_number = number + 1
        self._chars += delta_of(body) or 0
        if body.get("type") == "response.output_item.done" and isinstance(body.get("item"), dict):
            self._items.append(body["item"])
            self._shown_chars += text_chars(body["item"])

    def _with_response(self, event: SseEvent, body: dict[str, Any]) -> bytes:
        """An event that holds the object. The last one is kept back."""
        given = body["response"]
        beside = body.pop("error", None)  # it belongs into the object, where it is disclosed
        if beside and not given.get("error"):
            given["error"] = beside
        self._count(given)
        type = body.get("type")
        is_last = isinstance(type, str) and type in _LAST
        if is_last:
            output = given.get("output")
            has_failed = bool(given.get("status") == "failed" or given.get("error"))
            if not isinstance(output, list) or not output:
                # Some servers leave out what they have sent before.
                if self._has_gaps and not has_failed:
                    return self._without_end(orjson.dumps(body))
                given["output"] = self._items
            self._ids.put_output_right(given["output"])
            self._shown_chars = max(self._shown_chars, text_chars(given["output"]))
            if has_failed:
                type = body["type"] = "response.failed"
                event = event._replace(event=b"response.failed")
        body["response"] = self.final = self._ours(given)
        written = frame(event, orjson.dumps(body))
        if not is_last:
            return written
        self.done = True
        self._last_frame = written
        error = self.final.get("error")
        if type == "response.failed" and not isinstance(error, dict):
            error = {"code": "server_error", "message": "The upstream provider failed."}
        self.error = error if isinstance(error, dict) else None
        return b""

    def _ours(self, given: dict[str, Any]) -> Response:
        shown = _disclosed(self._disclosure, given)
        if shown is not None:
            self.upstream_error = orjson.dumps(given["error"])[:LOGGED_BYTES]
            given = {**given, "error": shown}
        if self._strict:
            return _completed(given, self._skeleton, self._now(), self.settle)
        if (completed := _completed_usage(given.get("usage"), self.settle)) is not None:
            given = {**given, "usage": completed}
        return {**given, "id": self._skeleton["id"]}

    def _with_error(self, data: bytes, given: object) -> bytes:
        """An error of the upstream's: the caller learns of it in the event that ends the response."""
        self.upstream_error = data[:LOGGED_BYTES]
        self.done = True
        self.error = disclose(self._disclosure, None, given).response_error
        return b""

    def _break_off(self, code: str, message: str) -> None:
        self.done = True
        self.error = {"code": code, "message": message, "type": "server_error"}

    def _closing(self) -> bytes:
        if not self._last_frame:
            self.final = resource.failed(self.assembled(), **(self.error or {}))
        self._closed = self.done = True
        if self._last_frame:
            return self._last_frame + DONE
        return self._events.ended(self.final)
