"""What callers can speak: one Surface for each protocol. Nothing outside of `protocols/` asks which one it has before it.

A surface says what its protocol allows, checks requests, makes the treatment of a call, and renders what the gateway itself has to
say in it: what a held call gets while it waits, and how a finished row is answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from dwctl.errors import DwctlError
from dwctl.protocols import asked as reading
from dwctl.protocols import chat, forms
from dwctl.protocols.asked import Asked
from dwctl.protocols.chat import Accepted
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.failures import read_failure
from dwctl.protocols.forms import Form
from dwctl.protocols.held_streams import HeldChat, HeldResponse, HeldStream
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.modes import Mode, Tier, read_flag, read_tier, unsupported
from dwctl.protocols.openresponses import history, request, resource
from dwctl.protocols.openresponses.from_row import from_row
from dwctl.protocols.openresponses.history import Wanted
from dwctl.protocols.openresponses.replay import replay
from dwctl.protocols.openresponses.resource import Response
from dwctl.protocols.rows import Shown, StillRunning, StoredRow
from dwctl.protocols.treatments import (
    Adapted,
    PassThrough,
    Relayed,
    Treatment,
)
from dwctl.web.envelope import openai_error

_KEPT_BY_THE_PROVIDER = ("conversation", "prompt", "context_management")
"""Members of a Responses request by which its provider decides what the model is to read; a chat upstream has nothing of the kind."""


class Surface:
    """One protocol. The class says what most of them have in common.

    path: the route below /ai/v1; templates store "/v1/" and this. name: for names of functions.
    response_type: the kind of answer in log rows; a stream's has "_stream" behind it.
    queueable: `service_tier: flex` is possible. streams, takes_background: the same for `stream` and `background`.
    keeps_alive_in_json: a call that is held in one piece may send white space before its object.
    takes_files: bodies may be as large as files are. takes_text: a body is JSON, in UTF-8. is_tracked: calls have rows of their own.
    stored_as_response: what is kept of its streams are the events of a Response, which `GET /responses/{id}` can show.
    writes: a model writes its answers; those of others are numbers, and have no completion tokens. limited_by: the members that say how long one
    may become.
    """

    path: str
    name: str
    response_type: str
    queueable = True
    streams = True
    takes_background = False
    keeps_alive_in_json = False
    method = "POST"
    takes_files = False
    takes_text = True
    is_tracked = True
    stored_as_response = False
    writes = True
    limited_by: tuple[str, ...] = ("max_tokens",)

    def __repr__(self) -> str:
        return f"<{self.path}>"

    def type_of_answer(self, content: Mapping[str, Any], *, streamed: bool = False) -> str:
        """The kind of a request's answer, for the log."""
        return f"{self.response_type}_stream" if streamed else self.response_type

    def mode(self, content: Mapping[str, Any], *, tracked: bool = True) -> Mode:
        """How the request is to be run. Raises InvalidRequest for what this protocol does not know: it is never ignored.

        tracked: False where somebody else tracks the call. It has no row that a worker could find, or that could be fetched
        later, so it runs at once and in the foreground.
        """
        stream, background = read_flag(content, "stream"), read_flag(content, "background")
        tier = read_tier(content) if tracked else Tier.REALTIME
        if background and not self.takes_background:
            raise unsupported("background", "`background` is only supported on /responses.")
        if background and content.get("store") is False:
            raise unsupported(
                "store", "`background` needs `store`: what is not stored cannot be fetched later."
            )
        if tier is Tier.FLEX and not self.queueable:
            raise unsupported(
                "service_tier",
                "`service_tier` flex is not supported on this endpoint.",
                "unsupported_value",
            )
        if tier is Tier.FLEX and stream and not self.streams:
            raise unsupported("stream", f"`stream` is not supported on /{self.path}.")
        return Mode(tier, stream and self.streams, background and tracked)

    def content_of(self, body: bytes) -> dict[str, Any]:
        """What of a body the gateway reads. Raises InvalidRequest."""
        return reading.read(body)

    def check(
        self,
        content: Mapping[str, Any],
        *,
        alias: str,
        strict: bool,
        adapted: bool = False,
        refuses_unrunnable_tools: bool = False,
    ) -> None:
        """Refuse a request whose members are wrong. Raises InvalidRequest.

        strict: the gateway's mode; open mode does not look at what is passed on as it is. adapted: see `treat`.
        refuses_unrunnable_tools: so are tools that `left_out` would name otherwise.
        """
        raise NotImplementedError

    def stands_on(self, content: Mapping[str, Any]) -> Wanted | None:
        """What a request that was found to be right does not say itself, but is stored here."""
        return None

    def left_out(
        self,
        content: Mapping[str, Any],
        *,
        adapted: bool,
        strict: bool = False,
        context_length: int | None = None,
    ) -> list[str]:
        """What of a request that was found to be right does not reach the model, each as the answer's header names it.

        strict: see `check`. context_length: see `treat`.
        """
        return []

    def treat(
        self,
        asked: Asked,
        disclosure: Disclosure,
        *,
        adapted: bool = False,
        keep_service_tier: bool = False,
        context_length: int | None = None,
        reasoning_input: str | None = None,
    ) -> Treatment:
        """How this call is sent and its answer treated.

        adapted: the upstream speaks chat completions only. keep_service_tier: it is told the caller's `service_tier`.
        context_length: of its model, in tokens, where that is known. reasoning_input: the member of messages in which it wants its earlier
        reasoning back.
        """
        raise NotImplementedError

    def accepted(self, asked: Asked) -> bytes:
        """The body of the 202 that a call in the background gets."""
        return orjson.dumps(asked.skeleton())

    def answer(self, row: StoredRow) -> Shown:
        """How a held call is answered once its request is over. Raises StillRunning for one that is not."""
        if not row.is_over:
            raise StillRunning(
                f"This process is shutting down; the request goes on as {row.response_id}. Fetch it by its id."
            )
        if row.state == "canceled":
            return Shown(499, openai_error("The request was cancelled.", "cancelled", 499))
        return _failure(row) if row.state == "failed" else self._completed(row)

    def last_object(self, asked: Asked, row: StoredRow | DwctlError) -> bytes:
        """What ends a call that was kept alive with white space: its status line has left, so the object tells everything."""
        return orjson.dumps(_response(asked, row))

    def held_stream(self, asked: Asked) -> HeldStream:
        """The stream of a call that waits for a worker."""
        raise NotImplementedError

    def whole_stream(self, asked: Asked, row: StoredRow | DwctlError) -> bytes:
        """A request that is over as the stream that was asked for, from its first event to its end. Never raises."""
        raise NotImplementedError

    def _completed(self, row: StoredRow) -> Shown:
        return Shown(row.response_status or 200, (row.response_body or "").encode())


class Listing(Surface):
    """The list of models. It runs nothing, and is in the request log like a call."""

    path = "models"
    name = "models"
    response_type = "other"
    method = "GET"
    is_tracked = False


class _PassedThrough(Surface):
    """A protocol that upstream servers speak themselves."""

    def __init__(
        self,
        path: str,
        response_type: str,
        form: Form,
        accepted: Accepted,
        *,
        queueable: bool = True,
        streams: bool = True,
        limited_by: tuple[str, ...] = ("max_tokens",),
    ) -> None:
        self.path = path
        self.name = path.replace("/", "_")
        self.response_type = response_type
        self.queueable = queueable
        self.streams = streams
        self.limited_by = limited_by
        self.writes = not form.results_stay_closed
        self._form = form
        self._accepted = accepted

    def check(
        self,
        content: Mapping[str, Any],
        *,
        alias: str,
        strict: bool,
        adapted: bool = False,
        refuses_unrunnable_tools: bool = False,
    ) -> None:
        if strict:
            chat.validate(self._accepted, {**content, "model": alias})

    def type_of_answer(self, content: Mapping[str, Any], *, streamed: bool = False) -> str:
        if self._form.results_stay_closed and content.get("encoding_format") == "base64":
            return f"base64_{self.response_type}"
        return super().type_of_answer(content, streamed=streamed)

    def treat(
        self,
        asked: Asked,
        disclosure: Disclosure,
        *,
        adapted: bool = False,
        keep_service_tier: bool = False,
        context_length: int | None = None,
        reasoning_input: str | None = None,
    ) -> Treatment:
        return PassThrough(asked, self._form, disclosure, keep_service_tier=keep_service_tier)

    def left_out(self, content: Mapping[str, Any], **_more: Any) -> list[str]:
        return ["stream"] if content.get("stream") and not self.streams else []

    def held_stream(self, asked: Asked) -> HeldStream:
        return HeldChat(self.answer, asked, self._form)

    def whole_stream(self, asked: Asked, row: StoredRow | DwctlError) -> bytes:
        stream = HeldChat(self.answer, asked, self._form)
        return stream.fail(row, -1) if isinstance(row, DwctlError) else stream.end(row, -1)


class _Responses(Surface):
    """The Responses API."""

    path = "responses"
    name = "responses"
    response_type = "response"
    takes_background = True
    keeps_alive_in_json = True
    stored_as_response = True
    limited_by = ("max_output_tokens",)

    def check(
        self,
        content: Mapping[str, Any],
        *,
        alias: str,
        strict: bool,
        adapted: bool = False,
        refuses_unrunnable_tools: bool = False,
    ) -> None:
        # At a provider that has such things, all callers would share the operator's account.
        for name in _KEPT_BY_THE_PROVIDER:
            if content.get(name) is not None:
                raise unsupported(
                    name,
                    f"`{name}` is not supported: send what the model is to read as `input`, or continue a response by `previous_response_id`.",
                )
        if adapted:
            request.parse(
                {**content, "model": alias}, refuses_unrunnable_tools=refuses_unrunnable_tools
            )
        elif strict:
            request.check_relayed({**content, "model": alias})

    def stands_on(self, content: Mapping[str, Any]) -> Wanted | None:
        return history.wanted(content)

    def treat(
        self,
        asked: Asked,
        disclosure: Disclosure,
        *,
        adapted: bool = False,
        keep_service_tier: bool = False,
        context_length: int | None = None,
        reasoning_input: str | None = None,
    ) -> Treatment:
        if not adapted:
            return Relayed(asked, disclosure, keep_service_tier=keep_service_tier)
        return Adapted(
            asked,
            disclosure,
            keep_service_tier=keep_service_tier,
            context_length=context_length,
            reasoning_input=reasoning_input,
        )

    def left_out(
        self,
        content: Mapping[str, Any],
        *,
        adapted: bool,
        strict: bool = False,
        context_length: int | None = None,
    ) -> list[str]:
        if not adapted:
            return []
        return request.left_out(content, strict=strict, context_length=context_length)

    def held_stream(self, asked: Asked) -> HeldStream:
        return HeldResponse(asked.skeleton(), queued=True)

    def whole_stream(self, asked: Asked, row: StoredRow | DwctlError) -> bytes:
        return replay(_response(asked, row), queued=asked.mode.tier is Tier.FLEX)

    def _completed(self, row: StoredRow) -> Shown:
        return Shown(200, orjson.dumps(from_row(row)))


def _response(asked: Asked, row: StoredRow | DwctlError) -> Response:
    if isinstance(row, StoredRow):
        return from_row(row)
    return resource.failed(asked.skeleton(), code=row.code, message=row.message)


def _failure(row: StoredRow) -> Shown:
    """A failed row: the error that was stored with it, else what its failure says."""
    failure = read_failure(row.error)
    status = row.response_status or failure.status or 502
    if status < 400:
        status = 502
    stored = parse_object((row.response_body or "").encode()) or {}
    if isinstance(stored.get("error"), dict) and "object" not in stored:
        return Shown(status, (row.response_body or "").encode())
    return Shown(status, openai_error(failure.message, failure.code, status))


CHAT: Surface = _PassedThrough(
    "chat/completions",
    "chat_completion",
    forms.CHAT,
    chat.CHAT,
    limited_by=("max_tokens", "max_completion_tokens"),
)
COMPLETIONS: Surface = _PassedThrough(
    "completions", "completion", forms.COMPLETIONS, chat.COMPLETIONS, queueable=False
)
EMBEDDINGS: Surface = _PassedThrough(
    "embeddings", "embeddings", forms.EMBEDDINGS, chat.EMBEDDINGS, streams=False
)
RESPONSES: Surface = _Responses()

SURFACES: Mapping[str, Surface] = {
    surface.path: surface for surface in (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES)
}
"""By path."""
