"""What all treatments of streams share: events from bytes within limits, and the usage that is settled at the end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.odd_json import Mender, mended
from dwctl.protocols.usage import (
    Counts,
    TokenUsage,
    continued,
    length,
    prompt_estimate,
    raw_chars,
    read_counts,
    settled,
)
from dwctl.upstream.sse import MAX_EVENT_BYTES, EventTooLarge, SseEvent, SseParser

MAX_STREAM_BYTES = 64 * 1024 * 1024
LOGGED_BYTES = 65_536
ERROR_EVENT = b"error"
"""The name of events that say that the upstream has failed, whatever form their data have."""
KEPT_ALIVE = b": keep-alive\n\n"
"""What stands for an upstream's event that says no more."""
TOO_LARGE = "upstream_response_too_large"
UNREADABLE = "The upstream provider sent data that cannot be read."
_SAYS_ERROR = re.compile(
    rb'\s*\{\s*(?:"(?:type|object)"\s*:\s*"error"|"error"\s*:\s*[^\sn])'
)  # not null
_TOO_LARGE_TEXT = "The upstream provider sent more than is allowed."


def says_error(data: bytes) -> bool:
    """Whether data that cannot be parsed begin as an error does."""
    return _SAYS_ERROR.match(data) is not None


def is_piece(data: bytes) -> bool:
    """Whether data begin as an object does, as all do that hold a part of an answer. Words that are no JSON hold none."""
    return data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"


def is_broken(data: bytes) -> bool:
    """Whether a part of the answer was in data that no reader of JSON takes. One that is nested too deep for us is none of these."""
    if not is_piece(data):
        return False
    try:
        json.loads(data)
    except RecursionError:
        return False
    except ValueError:
        return True
    return False


def is_done(data: bytes) -> bool:
    """Whether data are the end marker, in quotes or not."""
    return data[:1] != b"{" and data.strip(b" \t\"'").upper() in (b"[DONE]", b"DONE")


def is_keep_alive(event: SseEvent, data: bytes, content: Mapping[str, Any] | None) -> bool:
    """Whether an event says nothing but that the connection lives: no data, a value that is no object, a ping."""
    is_ping = event.event is not None and event.event.lower() in _PINGS
    if content is None:
        return is_ping or not data.strip() or data.strip() in _NOTHING
    if is_ping or content.get("type") == "ping":
        return not content.get("choices")
    return not content


def without_data(event: SseEvent) -> bytes:
    """What a caller gets of an event that has no data. A name alone would be an event to OpenAI's clients, whose data they cannot read."""
    if event.comment is None:
        return KEPT_ALIVE if event.raw.strip() else b""
    return event.raw if event.event is None else event.comment + b"\n\n"


_NOTHING = frozenset([b"null", b"[]", b'""', b"{}"])
_PINGS = frozenset([b"ping", b"heartbeat", b"keepalive", b"keep-alive"])


def delta_of(body: Mapping[str, Any]) -> int | None:
    """The length of what an event of the Responses API adds to the answer; None for one of another protocol."""
    type, delta = body.get("type"), body.get("delta")
    if not (isinstance(type, str) and type.startswith("response.")):
        return None
    return length(delta) if isinstance(delta, str) else 0


def spoken(data: bytes) -> str:
    """What an error that is no object says."""
    return data[:LOGGED_BYTES].decode("utf-8", "replace")


class UpstreamStream:
    """One stream as it comes. Subclasses say what the caller gets of it; they break off with `_break_off`."""

    def __init__(
        self,
        disclosure: Disclosure,
        request: Mapping[str, Any] | None,
        max_bytes: int,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        """request: what was asked for, to estimate the prompt where nobody reports it.

        max_bytes: of the whole stream; beyond it, it fails with the code `upstream_response_too_large`.
        """
        self.done = False
        """Nothing that the upstream may still send matters."""
        self.error: dict[str, Any] | None = None
        """The error object that the caller gets to see."""
        self.upstream_error: bytes | None = None
        """The upstream's own, for the log."""
        self._disclosure = disclosure
        self._request = request or {}
        self._left = max_bytes
        self._parser = SseParser(min(max_event_bytes, max_bytes))
        self._mender = Mender()
        self._foreign_chars = 0  # in events of other protocols that were passed on as they came
        self._counts: Counts | None = None
        self._counted_chars: int | None = (
            0  # written up to the latest counts; None until the chunk with them is read
        )

    @property
    def ended(self) -> bool:
        """The upstream has said why it ended. What may still come is its usage."""
        raise NotImplementedError

    def settle(self) -> TokenUsage | None:
        """What the call has used up to here; None only where nothing was produced and nothing reported."""
        counts = self._counts
        if counts is not None and counts.completion and not self.ended:
            since = self._written_chars() - self._counted_up_to()
            if since > 0:
                return continued(
                    counts,
                    written_since=since,
                    prompt_tokens=lambda: prompt_estimate(self._request),
                )
        return settled(
            counts,
            written_chars=self._written_chars,
            prompt_tokens=lambda: self._prompt_tokens,
            ended=self.ended,
        )

    @cached_property
    def _prompt_tokens(self) -> int:
        """Once for a stream: it takes some 50 ms for each megabyte, and a stream that lasts is settled again and again."""
        return prompt_estimate(self._request)

    def _written_chars(self) -> int:
        raise NotImplementedError

    def _break_off(self, code: str, message: str) -> None:
        raise NotImplementedError

    def _object_in(self, data: bytes) -> tuple[bytes, dict[str, Any] | None]:
        """The object that an event's data are, and their bytes as they may go on; None where they are none, or a part of one."""
        content = parse_object(data)
        if content is None and (readable := self._mender.mended(data)) is not None:
            return readable, parse_object(readable)
        return data, content

    def _events_in(self, chunk: bytes) -> list[SseEvent]:
        """The events that a piece of the stream completes; none, and broken off, where a limit is passed."""
        self._left -= len(chunk)
        if self._left < 0:
            self._break_off(TOO_LARGE, _TOO_LARGE_TEXT)
            return []
        return self._within_limits(lambda: self._parser.feed(chunk))

    def _whole_last_events(self) -> list[SseEvent]:
        """What the upstream left without a blank line behind it, unless it was cut in the middle."""
        events = self._within_limits(self._parser.close)
        return [event for event in events if event.event == ERROR_EVENT or _is_whole(event.data)]

    def _within_limits(self, events: Callable[[], list[SseEvent]]) -> list[SseEvent]:
        try:
            return events()
        except EventTooLarge:
            self._break_off(TOO_LARGE, _TOO_LARGE_TEXT)
            return []

    def _counted_up_to(self) -> int:
        if self._counted_chars is None:
            self._counted_chars = self._written_chars()
        return self._counted_chars

    def _count_foreign(self, data: bytes, content: Mapping[str, Any]) -> None:
        """An event of another protocol that is passed on: whoever gets it pays for what it says."""
        for holder in (content, content.get("response"), content.get("message")):
            if isinstance(holder, dict):
                self._count(holder)
        written = delta_of(content)
        self._foreign_chars += raw_chars(data) if written is None else written

    def _count(self, content: Mapping[str, Any]) -> None:
        """Read a chunk's usage, if it has one. To be called before the chunk's text is taken in, which its counts include."""
        if self._counted_chars is None:
            self._counted_chars = self._written_chars()
        usage = content.get("usage")
        counts = None if usage is None else read_counts(usage)
        if counts is not None:
            self._counted_chars = None
            self._counts = counts if self._counts is None else self._counts.followed_by(counts)


def _is_whole(data: bytes | None) -> bool:
    if data is None:
        return False
    return is_done(data) or parse_object(data) is not None or mended(data) is not None
