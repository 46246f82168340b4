"""Answers of upstream servers that speak the Responses API themselves: our identifier, the alias, and a proper end.

Driven as `chat_stream.ChatStream` is. The upstream's own events, items and their identifiers stay; in strict mode its Response
objects get the members that they lack, our times, and no unknown members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from dwctl.protocols import answers, errors
from dwctl.protocols.answers import Finished, parse_object
from dwctl.protocols.chat import Endpoint
from dwctl.protocols.chat_stream import CHARS_PER_TOKEN, LOGGED_BYTES, frame, status_of
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.openresponses import resource
from dwctl.protocols.openresponses.events import DONE, Events
from dwctl.protocols.openresponses.items import Item
from dwctl.protocols.openresponses.resource import Response
from dwctl.protocols.usage import TokenUsage, usage_of
from dwctl.upstream.sse import MAX_EVENT_BYTES, EventTooLarge, SseEvent, SseParser

_KNOWN = resource.REQUIRED | {"user", "instructions", "prompt", "conversation"}
_LAST = frozenset(["response.completed", "response.failed", "response.incomplete"])


def finish_body(raw: bytes, *, skeleton: Response, strict: bool, completed_at: int) -> Finished:
    """What the caller gets for a complete 2xx body. Raises BadUpstreamBody in strict mode where it is no Response."""
    if not strict:
        return answers.finish_body(
            raw,
            endpoint=Endpoint.RESPONSES,
            response_id=skeleton["id"],
            alias=skeleton["model"],
            strict=False,
        )
    content = parse_object(raw)
    if content is None or not isinstance(content.get("output"), list):
        raise BadUpstreamBody("no object with a list of output items")
    whole = _completed(content, skeleton, completed_at)
    return Finished(orjson.dumps(whole), usage_of(whole), whole)


def _completed(content: Mapping[str, Any], skeleton: Response, completed_at: int) -> Response:
    """An upstream's Response with what it lacks. Its status is taken on trust, where it has one."""
    given = {n: v for n, v in content.items() if n in _KNOWN}
    whole = {**skeleton, "status": "completed", "output": [], **given}
    for name in ("id", "created_at", "model", "background", "service_tier", "store"):
        whole[name] = skeleton[name]
    whole["completed_at"] = completed_at if whole["status"] == "completed" else None
    return whole


class ResponsesRelay:
    """One call's stream."""

    def __init__(
        self,
        skeleton: Response,
        *,
        now: Callable[[], int],
        strict: bool = True,
        trusted: bool = False,
        sanitise: bool = False,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self.usage: TokenUsage | None = None
        self.done = False  # nothing that the upstream may still send matters
        self.error: dict[str, Any] | None = None  # the error object of a response that failed
        self.upstream_error: bytes | None = None  # the upstream's own, for the log
        self.final: Response = resource.in_progress(skeleton)  # the object as in the last event
        self._skeleton = skeleton
        self._now = now
        self._strict = strict
        self._hides_errors = sanitise or (strict and not trusted)
        self._parser = SseParser(max_event_bytes)
        self._events = Events()
        self._items: list[Item] = []
        self._chars = 0
        self._last_frame = b""
        self._closed = False

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that can go to the caller now; the event that ends the response waits for `finish`."""
        if self.done:
            return b""
        try:
            return self._treat(self._parser.feed(chunk))
        except EventTooLarge:
            self._fail("server_error", "The upstream provider sent an event that is too large.")
            return b""

    def finish(self) -> bytes:
        if self._closed:
            return b""
        rest = b""
        if not self.done:
            try:
                rest = self._treat(self._parser.close())
            except EventTooLarge:
                self._fail("server_error", "The upstream provider sent an event that is too large.")
        if not self._last_frame and self.error is None:
            self._fail("server_error", "The upstream provider ended the stream too early.")
        return rest + self._closing()

    def fail(self, code: str, message: str, *, type: str = "server_error") -> bytes:
        """The last events, when something other than the upstream's own end ends the stream."""
        if self._closed:
            return b""
        self._last_frame = b""
        self._fail(code, message, type)
        return self._closing()

    def cancel(self) -> bytes:
        """The last events of a response that its owner cancelled."""
        if self._closed:
            return b""
        if self._last_frame:  # too late: it has ended already
            return self._closing()
        self.final = resource.cancelled(self.assembled())
        self._closed = self.done = True
        return self._events.ended(self.final)

    def assembled(self) -> Response:
        """The object up to here: `final` once the stream is closed, before that with the items that are done."""
        if self._closed or self._last_frame:
            return self.final
        return {**self._skeleton, **self.final, "output": self._items}

    @property
    def estimated_completion_tokens(self) -> int:
        return -(-self._chars // CHARS_PER_TOKEN)

    def _treat(self, events: list[SseEvent]) -> bytes:
        out = []
        for event in events:
            out.append(event.raw if event.data is None else self._treated(event, event.data))
            if self.done:
                break
        return b"".join(out)

    def _treated(self, event: SseEvent, data: bytes) -> bytes:
        if data.startswith(b"[DONE]"):
            self.done = True
            return b""
        body = parse_object(data)
        if body is None:
            return b"" if self._strict else event.raw
        self._count(body)
        if isinstance(body.get("response"), dict):
            return self._with_response(event, body)
        if body.get("type") == "error" or body.get("error"):
            return self._with_error(event, body)
        return event.raw if event.raw.endswith(b"\n\n") else frame(event, data)

    def _count(self, body: Mapping[str, Any]) -> None:
        number = body.get("sequence_number")
        if isinstance(number, int):
            self._events.sequence_number = number + 1
        delta = body.get("delta")
        if isinstance(delta, str):
            self._chars += len(delta)
        if body.get("type") == "response.output_item.done" and isinstance(body.get("item"), dict):
            self._items.append(body["item"])

    def _with_response(self, event: SseEvent, body: dict[str, Any]) -> bytes:
        """An event that holds the object. The last one is kept back."""
        given = body["response"]
        self.usage = usage_of(given) or self.usage
        body["response"] = self.final = self._ours(given)
        written = frame(event, orjson.dumps(body))
        if body.get("type") not in _LAST:
            return written
        self.done = True
        self._last_frame = written
        error = self.final.get("error")
        self.error = error if isinstance(error, dict) else None
        return b""

    def _ours(self, given: dict[str, Any]) -> Response:
        if given.get("error") and self._hides_errors:
            self.upstream_error = orjson.dumps(given["error"])[:LOGGED_BYTES]
            given = {**given, "error": _response_error(errors.sanitised_strict(500))}
        if not self._strict:
            return {**given, "id": self._skeleton["id"]}
        return _completed(given, self._skeleton, self._now())

    def _with_error(self, event: SseEvent, body: dict[str, Any]) -> bytes:
        """An error of the upstream's: the caller learns of it in the event that ends the response."""
        self.upstream_error = (event.data or b"")[:LOGGED_BYTES]
        given = body.get("error")
        shown = given if isinstance(given, dict) else body
        if self._hides_errors:
            shown = errors.sanitised_strict(errors.client_status(status_of(shown)))
        self._fail(**_response_error(shown))
        return b""

    def _fail(self, code: str, message: str, type: str = "server_error") -> None:
        self.done = True
        self.error = {"code": code, "message": message, "type": type}

    def _closing(self) -> bytes:
        if not self._last_frame:
            self.final = resource.failed(self.assembled(), **(self.error or {}))
        self._closed = self.done = True
        if self._last_frame:
            return self._last_frame + DONE
        return self._events.ended(self.final)


def _response_error(error: Mapping[str, Any]) -> dict[str, str]:
    return {
        "code": str(error.get("code") or "server_error"),
        "message": str(error.get("message") or "The upstream provider failed."),
        "type": str(error.get("type") or "server_error"),
    }
