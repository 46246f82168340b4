"""How a call is sent and its answer treated: the seam between the relay and the wire formats.

A Treatment is made for one call (by its surface). Chat, completions and embeddings pass through (`PassThrough`); Responses are spoken
for an upstream that knows chat only (`Adapted`), or passed to one that speaks them itself (`Relayed`).
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import orjson

from dwctl.clock import time_s
from dwctl.protocols import assembly, chat, forms
from dwctl.protocols.answers import (
    check_whole,
    dump,
    failure_in,
    finish_body,
    finish_reason_of,
    parse_answer,
    read_body,
)
from dwctl.protocols.asked import Asked
from dwctl.protocols.chat_stream import ChatStream
from dwctl.protocols.disclosure import Disclosure, disclose
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.forms import Form
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.members import OURS
from dwctl.protocols.modes import Tier
from dwctl.protocols.openresponses import history, passthrough, request, resource
from dwctl.protocols.openresponses.replay import replay
from dwctl.protocols.openresponses.stream import ResponsesStream
from dwctl.protocols.openresponses.truncation import fitting
from dwctl.protocols.streaming import MAX_STREAM_BYTES
from dwctl.protocols.usage import (
    TokenUsage,
    counts_of,
    prompt_estimate,
    raw_chars,
    said,
    settled,
    text_chars,
)
from dwctl.upstream.sse import is_event_stream


class Complete(msgspec.Struct, frozen=True):
    """A complete 2xx answer as the caller gets it. `failure` is set when it is an answer only in form; `finish_reason`: why the model stopped."""

    body: bytes
    usage: TokenUsage | None
    failure: str | None = None
    finish_reason: str | None = None


class StreamTreatment(Protocol):
    """Turns the upstream's bytes into the caller's, one stream long. Pass on what `feed` returns, stop when `done`.

    What `finish`, `fail` and `cancel` return is the end; None: the answer has none, and must be cut so that its reader can tell.
    """

    done: bool
    error: dict[str, Any] | None
    upstream_error: bytes | None

    @property
    def ended(self) -> bool:
        """The upstream has said why it ended. What may still come is its usage."""
        ...

    def feed(self, chunk: bytes) -> bytes: ...
    def finish(self) -> bytes | None: ...
    def fail(self, code: str, message: str) -> bytes | None: ...
    def cancel(self) -> bytes | None: ...
    def assembled(self) -> dict[str, Any]: ...
    def settle(self) -> TokenUsage | None: ...


class Treatment(Protocol):
    """What the relay needs to know of a wire format. `path` is below the upstream's base URL.

    content_type: of the request's body; None where it has none. replays: an answer in one piece becomes the stream that was asked for.
    promises_object: whoever answers well answers with a JSON object; otherwise with anything, or nothing.
    """

    replays: bool
    promises_object: bool

    @property
    def method(self) -> str: ...
    @property
    def content_type(self) -> str | None: ...
    def streams(self, content_type: str, first: bytes) -> bool: ...
    def shown_type(self, content_type: str) -> str: ...

    @property
    def path(self) -> str: ...
    def request_body(self, model_name: str) -> bytes: ...
    def complete(self, raw: bytes) -> Complete: ...
    def from_stream(self, raw: bytes) -> Complete: ...
    def stream(
        self, *, content_type: str = "", max_bytes: int = MAX_STREAM_BYTES
    ) -> StreamTreatment: ...
    def replay(self, body: bytes) -> bytes: ...


class _Known:
    """What the known protocols share: JSON goes, JSON or events come."""

    method = "POST"
    content_type: str | None = "application/json"
    replays = promises_object = True

    def streams(self, content_type: str, first: bytes) -> bool:
        """Whether an answer of that type, which begins so (as far as it is there yet), is a stream."""
        return is_event_stream(content_type, first)

    def shown_type(self, content_type: str) -> str:
        """What a stream is called."""
        return "text/event-stream; charset=utf-8"


class PassThrough(_Known):
    """The caller and the upstream speak the same protocol."""

    def __init__(
        self, asked: Asked, form: Form, disclosure: Disclosure, *, keep_service_tier: bool
    ) -> None:
        self._asked = asked
        self._form = form
        self._disclosure = disclosure
        self._keep_service_tier = keep_service_tier
        self._response_id = asked.response_id if asked.shows_id else None
        self.path = f"/{asked.surface.path}"
        if asked.query and not disclosure.strict:
            self.path += f"?{asked.query}"

    def request_body(self, model_name: str) -> bytes:
        """The caller's bytes with the upstream's model name."""
        return chat.prepare(
            self._asked.body,
            self._asked.content,
            model_name=model_name,
            ask_for_usage=self._form.reports_usage_on_request,
            keep_service_tier=self._keep_service_tier,
            force_stream=self._asked.mode.stream,
            changes=dict.fromkeys(OURS.misspelt(self._asked.content)),
        )

    def complete(self, raw: bytes) -> Complete:
        """Raises BadUpstreamBody."""
        raw, content = parse_answer(raw, self._form, self._response_id, self._asked.content)
        error = failure_in(content) if content else None
        if error:
            shown = disclose(self._disclosure, None, error)
            return Complete(dump({"error": shown.error}), said(content), _message(shown.error))
        check_whole(raw, content, self._form)
        body = finish_body(
            raw,
            content,
            form=self._form,
            response_id=self._response_id,
            alias=self._asked.alias,
            strict=self._disclosure.strict,
            sanitise=self._disclosure.sanitise,
            service_tier=self._asked.shown_tier,
        )
        if content is None:
            return Complete(body, _usage_of_unread(self._asked, raw))
        form = self._form
        usage = _usage(self._asked, content, form.results, form.results_stay_closed)
        return Complete(body, usage, finish_reason=finish_reason_of(content))

    def from_stream(self, raw: bytes) -> Complete:
        """An upstream that streamed although nobody asked: the answer that the stream adds up to.

        Raises BadUpstreamBody where no answer of this form comes in chunks: embeddings do not.
        """
        stream = self.stream(max_bytes=len(raw))
        stream.feed(raw)
        stream.finish()
        if stream.error:
            return Complete(dump({"error": stream.error}), None, _message(stream.error))
        if not self._form.chunk_object:
            raise BadUpstreamBody("a stream, which this protocol has not")
        whole = stream.assembled()
        return Complete(dump(whole), stream.settle(), finish_reason=finish_reason_of(whole))

    def stream(self, *, content_type: str = "", max_bytes: int = MAX_STREAM_BYTES) -> ChatStream:
        """A fresh transformer."""
        return ChatStream(
            form=self._form,
            response_id=self._response_id,
            alias=self._asked.alias,
            disclosure=self._disclosure,
            request=self._asked.content,
            usage_wanted=chat.wants_usage_chunk(self._asked.content),
            service_tier=self._asked.shown_tier,
            max_bytes=max_bytes,
        )

    def replay(self, body: bytes) -> bytes:
        """A complete answer as the stream that the caller asked for. Raises BadUpstreamBody for what is none."""
        return replay_of_chat(self._asked, self._form, body)


class _Responses(_Known):
    """What both ways of answering /responses share."""

    path = ""

    def __init__(self, asked: Asked, disclosure: Disclosure, *, keep_service_tier: bool) -> None:
        self._asked = asked
        self._disclosure = disclosure
        self._keep_service_tier = keep_service_tier
        self._skeleton = asked.skeleton()

    def replay(self, body: bytes) -> bytes:
        """A complete Response as the events that it would have been. Raises BadUpstreamBody for what is none."""
        answer = parse_object(body)
        if answer is None or not isinstance(answer.get("output"), list):
            raise BadUpstreamBody("no object with a list of output items")
        return replay(answer, queued=self._asked.mode.tier is Tier.FLEX)

    def from_stream(self, raw: bytes) -> Complete:
        """The Response that a stream adds up to."""
        stream = self.stream(max_bytes=len(raw))
        stream.feed(raw)
        stream.finish()
        whole = stream.assembled()
        body = dump(whole)
        if stream.error:
            return Complete(body, None, _message(stream.error))
        return Complete(body, stream.settle(), finish_reason=finish_reason_of(whole))

    def stream(
        self, *, content_type: str = "", max_bytes: int = MAX_STREAM_BYTES
    ) -> StreamTreatment:
        raise NotImplementedError


class Adapted(_Responses):
    """The upstream speaks chat completions."""

    path = "/chat/completions"

    def __init__(
        self,
        asked: Asked,
        disclosure: Disclosure,
        *,
        keep_service_tier: bool,
        context_length: int | None = None,
        reasoning_input: str | None = None,
    ) -> None:
        super().__init__(asked, disclosure, keep_service_tier=keep_service_tier)
        self._context_length = context_length
        self._reasoning_input = reasoning_input

    def request_body(self, model_name: str) -> bytes:
        """The request as a chat completion's."""
        asked = self._asked
        given = request.parse({**asked.content, "model": model_name})
        if asked.told is not None:
            given = given.with_items(asked.told["input"])
        if self._context_length is not None and asked.content.get("truncation") == "auto":
            given = given.with_items(fitting(given.body, given.items, self._context_length))
        content = request.to_chat(
            given,
            stream=asked.mode.stream,
            others=self._others(),
            reasoning_input=self._reasoning_input,
        )
        if self._keep_service_tier and "service_tier" in asked.content:
            content["service_tier"] = asked.content["service_tier"]
        return orjson.dumps(content)

    def _others(self) -> dict[str, Any]:
        """Members that we do not know. Strict mode sends none; nor does anybody what is one of ours to some other reader."""
        content = self._asked.content
        unknown = () if self._disclosure.strict else request.unknown_members(content)
        misspelt = OURS.misspelt(unknown) if unknown else ()
        return {name: content[name] for name in unknown if name not in misspelt}

    def complete(self, raw: bytes) -> Complete:
        """Raises BadUpstreamBody for what is no chat completion."""
        raw, content = parse_answer(raw, forms.CHAT, self._asked.response_id)
        error = failure_in(content) if content else None
        if not error:
            check_whole(raw, content, forms.CHAT)
        if content is None:
            raise BadUpstreamBody("nested too deep")
        usage = _usage(self._asked, content, "choices")
        whole = resource.from_chat(
            self._skeleton, content, completed_at=_now(), settled=lambda: usage
        )
        if error:
            shown = disclose(self._disclosure, None, error)
            whole = resource.failed(whole, **shown.response_error)
        failure = _message(whole["error"]) if whole["status"] == "failed" else None
        return Complete(dump(whole), usage, failure, finish_reason_of(whole))

    def stream(
        self, *, content_type: str = "", max_bytes: int = MAX_STREAM_BYTES
    ) -> ResponsesStream:
        """A fresh transformer from chat chunks to Response events."""
        return ResponsesStream(
            self._skeleton,
            now=_now,
            disclosure=self._disclosure,
            request=self._asked.read_by_model,
            max_bytes=max_bytes,
            queued=self._asked.mode.tier is Tier.FLEX,
        )


class Relayed(_Responses):
    """The upstream speaks the Responses API."""

    path = "/responses"

    def request_body(self, model_name: str) -> bytes:
        """The caller's bytes with the upstream's model name."""
        asked = self._asked
        changes: dict[str, bytes | None] = dict.fromkeys(OURS.misspelt(asked.content))
        if asked.told is not None:
            changes["input"] = orjson.dumps(
                [history.without_our_id(i) for i in asked.told["input"]]
            )
        if asked.continues is not None:
            changes["previous_response_id"] = None
        return chat.prepare(
            asked.body,
            asked.content,
            model_name=model_name,
            keep_service_tier=self._keep_service_tier,
            force_stream=asked.mode.stream,
            changes=changes,
        )

    def complete(self, raw: bytes) -> Complete:
        """Raises BadUpstreamBody."""
        raw, content = read_body(raw)
        error = passthrough.failure_in(content) if content else None
        usage = _usage(self._asked, content, "output")
        if content and error and not isinstance(content.get("output"), list):
            shown = disclose(self._disclosure, None, error)
            body = dump(resource.failed(self._skeleton, **shown.response_error))
        else:
            body = passthrough.finish_body(
                raw,
                content,
                skeleton=self._skeleton,
                disclosure=self._disclosure,
                completed_at=_now(),
                settled=lambda: usage,
            )
        failure = None
        if error:
            failure = _message(disclose(self._disclosure, None, error).error)
        return Complete(body, usage, failure, finish_reason_of(content))

    def stream(
        self, *, content_type: str = "", max_bytes: int = MAX_STREAM_BYTES
    ) -> passthrough.ResponsesRelay:
        """A fresh transformer of Response events."""
        return passthrough.ResponsesRelay(
            self._skeleton,
            now=_now,
            disclosure=self._disclosure,
            request=self._asked.read_by_model,
            max_bytes=max_bytes,
            queued=self._asked.mode.tier is Tier.FLEX,
        )


def replay_of_chat(asked: Asked, form: Form, body: bytes) -> bytes:
    """A complete answer as the stream that was asked for. Raises BadUpstreamBody for what has no choices."""
    answer = parse_object(body)
    if answer is None or not isinstance(answer.get("choices"), list):
        raise BadUpstreamBody("no object with a list of choices")
    wanted = chat.wants_usage_chunk(asked.content)
    return assembly.replay(answer, form, usage_wanted=wanted)


def _usage(
    asked: Asked, answer: dict[str, Any] | None, results: str, numbers_only: bool = False
) -> TokenUsage | None:
    """What a complete answer has used; None for one that is no JSON object. numbers_only: its results hold no text."""
    if answer is None:
        return None
    return settled(
        counts_of(answer),
        written_chars=lambda: 1 if numbers_only else text_chars(answer.get(results)),
        prompt_tokens=lambda: prompt_estimate(asked.read_by_model),
        ended=bool(answer.get(results)),
        writes=not numbers_only,
    )


def _usage_of_unread(asked: Asked, raw: bytes) -> TokenUsage | None:
    """What an answer has used that was passed on as it came; None for one that has nothing of an answer."""
    return settled(
        None,
        written_chars=lambda: raw_chars(raw),
        prompt_tokens=lambda: prompt_estimate(asked.read_by_model),
    )


def _message(error: object) -> str:
    found = error.get("message") if isinstance(error, dict) else None
    return found if isinstance(found, str) and found else "The upstream provider failed."


def _now() -> int:
    return int(time_s())
