"""Streams of chat/completions and completions: an upstream's bytes in, the caller's bytes out.

How to drive it: pass on what `feed` returns; stop reading when `done`; then put down what is to be recorded (`usage`,
`assembled()`, `error`) and send what `finish` returns. `feed` never sends the closing `[DONE]`, so that everything can be
recorded before the caller's stream ends.

    stream = ChatStream(endpoint=Endpoint.CHAT, response_id="resp_...", alias="gpt-4o", strict=True)
    for chunk in upstream:
        yield stream.feed(chunk)
        if stream.done:
            break
    closing = stream.finish()        # or stream.fail("...") when the connection broke
    ...record...
    yield closing
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from dwctl.protocols import errors
from dwctl.protocols.answers import (
    STRICT_MEMBERS,
    new_id,
    parse_object,
    sanitised,
    sanitised_usage,
)
from dwctl.protocols.assembly import Assembler
from dwctl.protocols.chat import Endpoint
from dwctl.protocols.splice import replace_members
from dwctl.protocols.usage import TokenUsage, count, read_usage
from dwctl.upstream.sse import MAX_EVENT_BYTES, EventTooLarge, SseEvent, SseParser

DONE = b"data: [DONE]\n\n"
CHARS_PER_TOKEN = 4  # the usual rule of thumb, for streams whose usage never came

_OBJECT = {Endpoint.CHAT: "chat.completion.chunk", Endpoint.COMPLETIONS: "text_completion"}
_BEGINNING = re.compile(rb'\{"id": ?"[^"\\]*"')
_NOTHING_YET = b"\n"  # no event's data begins with it
LOGGED_BYTES = 65_536


class ChatStream:
    """Treats one stream as `answers.finish_body` treats a complete body. One for each call."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        response_id: str | None,
        alias: str,
        strict: bool,
        sanitise: bool = False,
        trusted: bool = False,
        usage_wanted: bool = True,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        """response_id: the identifier in each chunk of a chat stream; None leaves the upstream's.
        usage_wanted: the caller asked for the usage chunk itself; otherwise that chunk is taken out.
        """
        self.usage: TokenUsage | None = None
        self.done = False  # nothing that the upstream may still send matters
        self.error: dict[str, Any] | None = None  # the error object that the caller gets to see
        self.upstream_error: bytes | None = None  # the upstream's own, for the log
        self._endpoint = endpoint
        self._response_id = response_id if endpoint is Endpoint.CHAT else None
        self._alias = alias
        self._strict = strict
        self._sanitise = sanitise and endpoint is Endpoint.CHAT
        self._trusted = trusted
        self._usage_wanted = usage_wanted
        self._known = STRICT_MEMBERS[endpoint]
        self._id = self._response_id
        self._beginning = (_NOTHING_YET, b"")  # of a chunk as it comes, and as it goes on
        self._raw_usage: dict[str, Any] | None = None
        self._own_error: dict[str, Any] | None = None  # one that the gateway itself has to report
        self._ended_well = False
        self._closed = False
        self._parser = SseParser(max_event_bytes)
        self._assembler = Assembler(endpoint)

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that can go to the caller now."""
        if self.done:
            return b""
        try:
            events = self._parser.feed(chunk)
        except EventTooLarge:
            self._break_off("The upstream provider sent an event that is too large.")
            return b""
        return self._treat(events)

    def finish(self) -> bytes:
        """The last frames, now that the upstream has ended: `[DONE]`, after an error frame where it ended too early."""
        if self._closed:
            return b""
        rest = b"" if self.done else self._rest()
        if not self._ended_well and self.error is None and not self._assembler.finished:
            self._break_off("The upstream provider ended the stream too early.")
        self._closed = self.done = True
        return rest + self._closing()

    def fail(self, message: str, *, type: str = "api_error", code: str = "upstream_error") -> bytes:
        """The last frames, when something other than the upstream's own end ends the stream."""
        if self._closed:
            return b""
        self.error = self._own_error = errors.error_object(message, type, code)
        self._closed = self.done = True
        return self._closing()

    def cancel(self) -> bytes:
        """The last frames of a call that its owner cancelled."""
        return self.fail("The request was cancelled.", code="cancelled")

    def assembled(self) -> dict[str, Any]:
        """The complete answer that the caller could put together from its stream, up to here."""
        usage = self._raw_usage
        if usage is not None and self._sanitise:
            usage = sanitised_usage(usage)
        named = {} if self._id is None else {"id": self._id}
        if self._strict or self._sanitise:
            named["model"] = self._alias
        counted = {} if usage is None else {"usage": usage}
        return self._assembler.answer(**named, **counted)

    @property
    def estimated_completion_tokens(self) -> int:
        """How many tokens the text delivered so far is likely to be."""
        return -(-self._assembler.text_chars // CHARS_PER_TOKEN)

    def _treat(self, events: list[SseEvent]) -> bytes:
        out = []
        for event in events:
            out.append(event.raw if event.data is None else self._treated(event, event.data))
            if self.done:
                break
        return b"".join(out)

    def _rest(self) -> bytes:
        """What the upstream left without a blank line behind it, unless it was cut in the middle."""
        try:
            events = self._parser.close()
        except EventTooLarge:
            self._break_off("The upstream provider sent an event that is too large.")
            return b""
        rest = self._treat([event for event in events if _is_whole(event.data)])
        return rest if not rest or rest.endswith(b"\n\n") else rest.rstrip(b"\r\n") + b"\n\n"

    def _treated(self, event: SseEvent, data: bytes) -> bytes:
        if data.startswith(b"[DONE]"):
            self.done = self._ended_well = True
            return b""
        chunk = parse_object(data)
        if chunk is None:
            return self._unreadable(event)
        if chunk.get("error"):
            return self._with_error(event, chunk["error"])
        usage = chunk.get("usage")
        if usage and isinstance(usage, dict):
            self.usage = read_usage(usage) or self.usage
            self._raw_usage = usage
            if not chunk.get("choices"):
                return self._usage_frame(event, chunk)
        self._assembler.add(chunk)
        return self._rewritten(event, data, chunk)

    def _usage_frame(self, event: SseEvent, chunk: dict[str, Any]) -> bytes:
        if self._usage_wanted:
            return self._rewritten(event, event.data or b"", chunk)
        return b"" if event.comment is None else event.comment + b"\n\n"

    def _rewritten(self, event: SseEvent, data: bytes, chunk: dict[str, Any]) -> bytes:
        if self._strict or self._sanitise:
            return self._checked(event, chunk)
        if self._response_id and "id" in chunk:
            return self._renamed(event, data, chunk)
        return event.raw

    def _renamed(self, event: SseEvent, data: bytes, chunk: dict[str, Any]) -> bytes:
        """A chunk with our identifier and nothing else changed.

        Nearly all servers begin each chunk with the same identifier: then it is enough to swap the beginning.
        """
        old, new = self._beginning
        if data.startswith(old) and b'"id"' not in data[len(old) :] and _is_plain(event):
            return new + data[len(old) :] + b"\n\n"
        named = b'"%s"' % (self._response_id or "").encode()
        found = _BEGINNING.match(data)
        if found:
            self._beginning = found[0], b'data: {"id":' + named
        return frame(event, replace_members(data, {"id": named}, parsed=chunk))

    def _checked(self, event: SseEvent, chunk: dict[str, Any]) -> bytes:
        """A chunk in strict or sanitised treatment. The members that are there keep their order."""
        choices = chunk.get("choices")
        if choices and not _are_objects(choices):
            return self._unreadable(event)
        if self._id is None:
            self._id = chunk.get("id") or new_id(self._endpoint)
        chunk["id"] = self._id
        if chunk.get("object") is None:
            chunk["object"] = _OBJECT[self._endpoint]
        if chunk.get("created") is None:
            chunk["created"] = 0
        chunk["model"] = self._alias
        if self._sanitise:
            chunk = sanitised(chunk, self._alias)
        if not chunk.keys() <= self._known:
            chunk = {name: value for name, value in chunk.items() if name in self._known}
        for index, choice in enumerate(choices or ()):
            if choice.get("index") is None:
                choice["index"] = index
        return frame(event, orjson.dumps(chunk))

    def _unreadable(self, event: SseEvent) -> bytes:
        if not self._strict:
            return event.raw
        self._break_off("The upstream provider sent data that cannot be read.")
        return b""

    def _with_error(self, event: SseEvent, error: object) -> bytes:
        """An error inside the stream: an untrusted upstream's is replaced."""
        self.upstream_error = (event.data or b"")[:LOGGED_BYTES]
        status = status_of(error)
        if self._sanitise:
            self.error = errors.sanitised_plain(status)
        elif self._strict and not self._trusted:
            self.error = errors.sanitised_strict(errors.client_status(status))
        else:
            self.error = error if isinstance(error, dict) else {"message": str(error)}
            return event.raw
        return frame(event, errors.wrap(self.error))

    def _break_off(self, message: str) -> None:
        self.done = True
        self.error = self._own_error = errors.error_object(message, "api_error", "upstream_error")

    def _closing(self) -> bytes:
        if self._own_error is None:
            return DONE
        return b"data: " + errors.wrap(self._own_error) + b"\n\n" + DONE


def frame(event: SseEvent, data: bytes) -> bytes:
    """An event with other data; its name and comments are kept."""
    if b"\n" in data:
        data = data.replace(b"\n", b"\ndata: ")
    frame = b"data: " + data + b"\n\n"
    if event.event is not None:
        frame = b"event: " + event.event + b"\n" + frame
    return frame if event.comment is None else event.comment + b"\n" + frame


def _is_whole(data: bytes | None) -> bool:
    return data is not None and (data.startswith(b"[DONE]") or parse_object(data) is not None)


def _is_plain(event: SseEvent) -> bool:
    return event.event is None and event.comment is None and event.raw.count(b"\n") == 2


def _are_objects(choices: object) -> bool:
    return isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices)


def status_of(error: object) -> int:
    code = count(error.get("code")) if isinstance(error, dict) else None
    return code if code and 400 <= code <= 599 else 500
