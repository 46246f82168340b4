"""Streams of chat/completions and completions: an upstream's bytes in, the caller's bytes out.

How to drive it: pass on what `feed` returns; stop reading when `done`; then put down what is to be recorded (`settle()`,
`assembled()`, `error`) and send what `finish` returns. `feed` never sends the closing `[DONE]`, so that everything can be
recorded before the caller's stream ends.

    stream = ChatStream(form=forms.CHAT, response_id="resp_...", alias="gpt-4o", disclosure=Disclosure(strict=True))
    for chunk in upstream:
        yield stream.feed(chunk)
        if stream.done:
            break
    closing = stream.finish()        # or stream.fail("...", "...") when the connection broke
    ...record...
    yield closing
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from dwctl.protocols import forms
from dwctl.protocols.answers import (
    BROKE_OFF,
    FAILED,
    error_in,
    failure_in,
    new_id,
    sanitised,
    sanitised_usage,
)
from dwctl.protocols.assembly import Assembler
from dwctl.protocols.dialects import Chunks
from dwctl.protocols.disclosure import Disclosure, disclose
from dwctl.protocols.forms import Form
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.numbered import DONE
from dwctl.protocols.parts import TooMuch
from dwctl.protocols.splice import replace_members
from dwctl.protocols.streaming import (
    ERROR_EVENT,
    KEPT_ALIVE,
    LOGGED_BYTES,
    MAX_STREAM_BYTES,
    TOO_LARGE,
    UNREADABLE,
    UpstreamStream,
    is_broken,
    is_done,
    is_keep_alive,
    says_error,
    spoken,
    without_data,
)
from dwctl.protocols.usage import merged, raw_chars
from dwctl.upstream.sse import MAX_EVENT_BYTES, SseEvent
from dwctl.web.envelope import error_object, wrap

_BEGINNING = re.compile(rb'\{"id": ?"[^"\\]*"')
_OPEN = Disclosure()
_NOTHING_YET = b"\n"  # no event's data begins with it


class ChatStream(UpstreamStream):
    """Treats one stream as `answers.finish_body` treats a complete body. One for each call."""

    def __init__(
        self,
        *,
        response_id: str | None,
        alias: str,
        form: Form = forms.CHAT,
        disclosure: Disclosure = _OPEN,
        request: Mapping[str, Any] | None = None,
        usage_wanted: bool = True,
        service_tier: str | None = None,
        max_bytes: int = MAX_STREAM_BYTES,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        """response_id: the identifier in each chunk of a chat stream; None leaves the upstream's.
        usage_wanted: the caller asked for the usage chunk itself; otherwise that chunk is taken out.
        service_tier: the tier that each chunk and the complete answer name; None for what the upstream says.
        """
        super().__init__(disclosure, request, max_bytes, max_event_bytes)
        self._form = form
        self._response_id = response_id if form.has_our_id else None
        self._alias = alias
        self._strict = disclosure.strict
        self._sanitise = disclosure.sanitise and form.has_messages
        self._usage_wanted = usage_wanted
        self._service_tier = service_tier if form.has_messages else None
        self._id = self._response_id
        self._beginning = (_NOTHING_YET, b"")  # of a chunk as it comes, and as it goes on
        self._raw_usage: dict[str, Any] | None = None
        self._own_error: dict[str, Any] | None = None  # one that the gateway itself has to report
        self._ended_well = False
        self._closed = False
        self._unread_chars = 0  # in chunks that were passed on as they came
        self._chunks = Chunks(form, response_id)
        self._assembler = Assembler(form)

    @property
    def ended(self) -> bool:
        return self._ended_well or self._assembler.finished

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that can go to the caller now."""
        return b"" if self.done else self._treat(self._events_in(chunk))

    def finish(self) -> bytes:
        """The last frames, now that the upstream has ended: `[DONE]`, after an error frame where it ended too early."""
        if self._closed:
            return b""
        rest = b"" if self.done else self._rest() + self._held_back()
        if self.error is None and not self.ended:
            self._break_off("upstream_error", "The upstream provider ended the stream too early.")
        if self.error is None and self._assembler.is_empty and not self._unread_chars:
            self._break_off("upstream_error", "The model gave no answer.")
        self._closed = self.done = True
        return rest + self._closing()

    def fail(self, code: str, message: str) -> bytes:
        """The last frames, when something other than the upstream's own end ends the stream."""
        if self._closed:
            return b""
        self._break_off(code, message)
        self._closed = True
        return self._closing()

    def cancel(self) -> bytes:
        """The last frames of a call that its owner cancelled."""
        return self.fail("cancelled", "The request was cancelled.")

    def assembled(self) -> dict[str, Any]:
        """The complete answer that the caller could put together from its stream, up to here."""
        usage = self._raw_usage
        if usage is not None and self._sanitise:
            usage = sanitised_usage(usage)
        named = {} if self._id is None else {"id": self._id}
        if self._strict or self._sanitise:
            named["model"] = self._alias
        if self._service_tier:
            named["service_tier"] = self._service_tier
        counted = {} if usage is None else {"usage": usage}
        return self._assembler.answer(**named, **counted)

    def _written_chars(self) -> int:
        return self._assembler.text_chars + self._unread_chars + self._foreign_chars

    def _treat(self, events: list[SseEvent]) -> bytes:
        out = []
        for number, event in enumerate(events, 1):
            out.append(
                without_data(event) if event.data is None else self._treated(event, event.data)
            )
            if self.done:
                if self.error is None and self._counts is None:
                    out += self._late_usage(events[number:])
                break
        return b"".join(out)

    def _late_usage(self, events: list[SseEvent]) -> list[bytes]:
        """The usage that some servers send behind their end marker, where it came with it. Nobody waits for one that did not."""
        self.done = False
        chunks = [
            (event, event.data) for event in events if event.data and b'"usage"' in event.data
        ]
        out = [self._treated(event, data) for event, data in chunks]
        self.done = self._ended_well = True
        return out

    def _rest(self) -> bytes:
        """What the upstream left without a blank line behind it, unless it was cut in the middle."""
        rest = self._treat(self._whole_last_events())
        return rest if not rest or rest.endswith(b"\n\n") else rest.rstrip(b"\r\n") + b"\n\n"

    def _treated(self, event: SseEvent, data: bytes) -> bytes:
        chunk = parse_object(data)
        is_named = event.event == ERROR_EVENT
        is_mended = False
        if chunk is None:
            if is_done(data):
                self.done = self._ended_well = True
                return self._held_back()
            data, chunk = self._object_in(data)
            is_mended = chunk is not None
            if chunk is None and (is_named or says_error(data)):
                return self._with_error(event, spoken(data))
            if chunk is None and not is_keep_alive(event, data, chunk):
                return self._unreadable(event, data)
        error = None if chunk is None else error_in(chunk, named=is_named)
        if error is not None:
            return self._with_error(event, error, is_flat=error is chunk or is_mended)
        if chunk is None or (not chunk.get("choices") and is_keep_alive(event, data, chunk)):
            return KEPT_ALIVE if event.comment is None else event.comment + b"\n\n"
        try:
            if self._chunks.put_right(chunk) or is_mended:
                data = b""
            return self._taken_in(event, data, chunk)
        except TooMuch as error:
            self._break_off(TOO_LARGE, str(error))
            return b""

    def _taken_in(self, event: SseEvent, data: bytes, chunk: dict[str, Any]) -> bytes:
        """data: of the event; empty where the chunk is no longer as it came. Raises TooMuch."""
        self._count(chunk)
        usage = chunk.get("usage")
        choices = chunk.get("choices")
        if usage and isinstance(usage, dict):
            self._raw_usage = merged(self._raw_usage, usage)
            if not choices:
                self._ended_well = True
                return self._usage_frame(event, data, chunk)
        if choices:
            self._ended_well = False  # a usage that more follows was not the last word
        self._assembler.add(chunk)
        if self._assembler.failed and self.error is None:
            error = failure_in(chunk)
            if error is not BROKE_OFF:
                error = disclose(self._disclosure, None, error).error
            self.error = self._own_error = error
            data = b""
            for choice in choices or ():
                if choice.get("finish_reason") == FAILED:  # the protocol knows no such reason
                    choice["finish_reason"] = None
                    choice.pop("error", None)
        if choices is None:
            if self._strict or self._sanitise:
                return b"" if event.comment is None else event.comment + b"\n\n"
            self._count_foreign(data or orjson.dumps(chunk), chunk)
        return self._rewritten(event, data, chunk)

    def _held_back(self) -> bytes:
        """What was kept of tool calls until more is known of them, as one more chunk."""
        choices = self._chunks.rest(has_ended=self.ended)
        if not choices:
            return b""
        head = {n: v for n, v in self._assembler.latest.items() if n not in ("choices", "usage")}
        chunk = {**head, "choices": choices}
        self._assembler.add(chunk)
        return self._rewritten(SseEvent(None), b"", chunk)

    def _usage_frame(self, event: SseEvent, data: bytes, chunk: dict[str, Any]) -> bytes:
        if self._usage_wanted:
            return self._rewritten(event, data, chunk)
        return b"" if event.comment is None else event.comment + b"\n\n"

    def _rewritten(self, event: SseEvent, data: bytes, chunk: dict[str, Any]) -> bytes:
        if self._service_tier:
            chunk["service_tier"] = self._service_tier
        if self._strict or self._sanitise:
            return self._checked(event, chunk)
        if data and self._service_tier:
            return self._with_tier(event, data, chunk)
        if not data:
            if self._response_id and "id" in chunk:
                chunk["id"] = self._response_id
            return frame(event, orjson.dumps(chunk))
        if self._response_id and "id" in chunk:
            return self._renamed(event, data, chunk)
        return event.raw

    def _with_tier(self, event: SseEvent, data: bytes, chunk: dict[str, Any]) -> bytes:
        """A chunk that names the tier, with nothing else changed but the identifier."""
        changes = {"service_tier": b'"%s"' % (self._service_tier or "").encode()}
        if self._response_id and "id" in chunk:
            changes["id"] = b'"%s"' % self._response_id.encode()
        return frame(event, replace_members(data, changes))

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
        return frame(event, replace_members(data, {"id": named}))

    def _checked(self, event: SseEvent, chunk: dict[str, Any]) -> bytes:
        """A chunk in strict or sanitised treatment. The members that are there keep their order."""
        choices = chunk.get("choices")
        if self._id is None:
            self._id = chunk.get("id") or new_id(self._form)
        chunk["id"] = self._id
        chunk["object"] = self._form.chunk_object
        if "usage" in chunk and not chunk["usage"]:
            chunk["usage"] = None
        if chunk.get("created") is None:
            chunk["created"] = 0
        chunk["model"] = self._alias
        if self._sanitise:
            chunk = sanitised(chunk, self._alias)
        if not chunk.keys() <= self._form.members:
            chunk = {name: value for name, value in chunk.items() if name in self._form.members}
        for index, choice in enumerate(choices or ()):
            if choice.get("index") is None:
                choice["index"] = index
        return frame(event, orjson.dumps(chunk))

    def _unreadable(self, event: SseEvent, data: bytes) -> bytes:
        """An event that is no chunk to us. Open mode passes on what the caller may read; what nobody can would be missing in the answer."""
        if self._strict or self._sanitise or is_broken(data):
            self.upstream_error = data[:LOGGED_BYTES]
            self._break_off("upstream_error", UNREADABLE)
            return b""
        self._unread_chars += raw_chars(data)
        return event.raw

    def _with_error(self, event: SseEvent, error: object, *, is_flat: bool = False) -> bytes:
        """An error inside the stream: an untrusted upstream's is replaced, a flat one (see `error_in`) put where callers look."""
        self.upstream_error = (event.data or b"")[:LOGGED_BYTES]
        shown = disclose(self._disclosure, None, error)
        self.done = True
        self.error = shown.error
        return event.raw if shown.as_it_came and not is_flat else frame(event, shown.body)

    def _break_off(self, code: str, message: str) -> None:
        self.done = True
        self.error = self._own_error = error_object(message, "api_error", code)

    def _closing(self) -> bytes:
        if self._own_error is None:
            return DONE
        return b"data: " + wrap(self._own_error) + b"\n\n" + DONE


def frame(event: SseEvent, data: bytes) -> bytes:
    """An event with other data; its name and comments are kept."""
    if b"\n" in data:
        data = data.replace(b"\n", b"\ndata: ")
    frame = b"data: " + data + b"\n\n"
    if event.event is not None:
        frame = b"event: " + event.event + b"\n" + frame
    return frame if event.comment is None else event.comment + b"\n" + frame


def _is_plain(event: SseEvent) -> bool:
    return event.event is None and event.comment is None and event.raw.count(b"\n") == 2
