"""How an endpoint's calls are sent and their answers treated: the seam between the relay and the wire formats.

A Treatment is made for one call. Chat, completions and embeddings pass through (`PassThrough`); Responses are spoken for an upstream
that knows chat only (`Adapted`), or passed to one that speaks them itself (`Relayed`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from dwctl.ai.calls import Call, Tier
from dwctl.protocols import assembly, chat
from dwctl.protocols.answers import finish_body, parse_object
from dwctl.protocols.chat import Endpoint
from dwctl.protocols.chat_stream import ChatStream
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.openresponses import relay as passed_on
from dwctl.protocols.openresponses import request, resource
from dwctl.protocols.openresponses.replay import replay
from dwctl.protocols.openresponses.stream import ResponsesStream
from dwctl.protocols.usage import TokenUsage, usage_of
from dwctl.upstream.target import Target

_RESPONSE_TYPES = {
    Endpoint.CHAT: "chat_completion",
    Endpoint.COMPLETIONS: "completion",
    Endpoint.EMBEDDINGS: "embeddings",
    Endpoint.RESPONSES: "response",
}


@dataclass(frozen=True, slots=True)
class Complete:
    """A complete 2xx answer as the caller gets it. `failure` is set when it is an answer only in form: nothing is charged for it."""

    body: bytes
    usage: TokenUsage | None
    failure: str | None = None
    usage_source: str = "reported"


class StreamTreatment(Protocol):
    """Turns the upstream's bytes into the caller's, one stream long."""

    usage: TokenUsage | None
    done: bool
    error: dict[str, Any] | None

    def feed(self, chunk: bytes) -> bytes: ...
    def finish(self) -> bytes: ...
    def fail(self, code: str, message: str) -> bytes: ...
    def cancel(self) -> bytes: ...
    def assembled(self) -> dict[str, Any]: ...
    @property
    def estimated_completion_tokens(self) -> int: ...


def usage_of_stream(stream: StreamTreatment) -> tuple[TokenUsage | None, str]:
    """What a stream has used, and how that is known: reported by the upstream, or estimated from what it delivered."""
    if stream.usage is not None:
        return stream.usage, "reported"
    estimate = stream.estimated_completion_tokens
    if estimate == 0:
        return None, "none"
    return TokenUsage(completion_tokens=estimate, total_tokens=estimate), "estimated"


class Treatment(Protocol):
    """What the relay needs to know of a wire format."""

    upstream_path: str
    response_type: str

    def request_body(self, target: Target) -> bytes: ...
    def complete(self, raw: bytes) -> Complete: ...
    def from_stream(self, raw: bytes) -> Complete: ...
    def stream(self) -> StreamTreatment: ...
    def replay(self, body: bytes) -> bytes: ...


def made_for(call: Call, *, strict: bool) -> Treatment:
    """The treatment of an admitted call."""
    assert call.serving is not None
    if call.endpoint is not Endpoint.RESPONSES:
        return PassThrough(call, strict=strict)
    return Adapted(call, strict=strict) if call.serving.adapter else Relayed(call, strict=strict)


class PassThrough:
    """The caller and the upstream speak the same protocol."""

    def __init__(self, call: Call, *, strict: bool) -> None:
        assert call.serving is not None
        assert call.alias is not None
        self._call = call
        self._strict = strict
        self._serving = call.serving
        self._alias = call.alias
        # A call that somebody else tracks keeps the upstream's id.
        self._response_id = call.response_id if call.track else None
        self.upstream_path = f"/{call.endpoint.value}"
        if call.incoming.query and not strict:
            self.upstream_path += f"?{call.incoming.query}"
        self.response_type = _RESPONSE_TYPES[call.endpoint]

    def request_body(self, target: Target) -> bytes:
        """The caller's bytes with the upstream's model name."""
        return chat.prepare(
            self._call.incoming.body,
            self._call.content,
            endpoint=self._call.endpoint,
            model_name=target.model_name,
            keep_service_tier=self._serving.forward_service_tier,
            force_stream=self._call.stream,
        )

    def complete(self, raw: bytes) -> Complete:
        """Raises BadUpstreamBody."""
        done = finish_body(
            raw,
            endpoint=self._call.endpoint,
            response_id=self._response_id,
            alias=self._alias,
            strict=self._strict,
            sanitise=self._serving.sanitise,
        )
        return Complete(done.body, done.usage)

    def from_stream(self, raw: bytes) -> Complete:
        """An upstream that streamed although nobody asked: the answer that the stream adds up to."""
        stream = self.stream()
        stream.feed(raw)
        stream.finish()
        if stream.error:
            return Complete(orjson.dumps({"error": stream.error}), None, stream.error["message"])
        usage, source = usage_of_stream(stream)
        return Complete(orjson.dumps(stream.assembled()), usage, usage_source=source)

    def stream(self) -> _Chat:
        """A fresh transformer."""
        return _Chat(
            endpoint=self._call.endpoint,
            response_id=self._response_id,
            alias=self._alias,
            strict=self._strict,
            sanitise=self._serving.sanitise,
            trusted=self._serving.trusted,
            usage_wanted=chat.wants_usage_chunk(self._call.content),
        )

    def replay(self, body: bytes) -> bytes:
        """A complete answer as the stream that the caller asked for. Raises BadUpstreamBody for what is none."""
        answer = parse_object(body)
        if answer is None or not isinstance(answer.get("choices"), list):
            raise BadUpstreamBody("no object with a list of choices")
        wanted = chat.wants_usage_chunk(self._call.content)
        return assembly.replay(answer, self._call.endpoint, usage_wanted=wanted)


class _Responses:
    """What both ways of answering /responses share."""

    response_type = "response"

    def __init__(self, call: Call, *, strict: bool) -> None:
        assert call.serving is not None
        self._call = call
        self._strict = strict
        self._serving = call.serving
        self.skeleton = skeleton_of(call)

    def replay(self, body: bytes) -> bytes:
        """A complete Response as the events that it would have been."""
        return replay(orjson.loads(body))

    def from_stream(self, raw: bytes) -> Complete:
        """The Response that a stream adds up to."""
        stream = self.stream()
        stream.feed(raw)
        stream.finish()
        body = orjson.dumps(stream.assembled())
        if stream.error:
            return Complete(body, None, str(stream.error.get("message")))
        usage, source = usage_of_stream(stream)
        return Complete(body, usage, usage_source=source)

    def stream(self) -> StreamTreatment:
        raise NotImplementedError


class Adapted(_Responses):
    """The upstream speaks chat completions."""

    upstream_path = "/chat/completions"

    def request_body(self, target: Target) -> bytes:
        """The request as a chat completion's."""
        content = request.to_chat(request.parse(self._call.content), stream=self._call.stream)
        content["model"] = target.model_name
        if self._serving.forward_service_tier and "service_tier" in self._call.content:
            content["service_tier"] = self._call.content["service_tier"]
        return orjson.dumps(content)

    def complete(self, raw: bytes) -> Complete:
        """Raises BadUpstreamBody for what is no chat completion."""
        content = parse_object(raw)
        if content is None or not isinstance(content.get("choices"), list):
            raise BadUpstreamBody("no object with a list of choices")
        whole = resource.from_chat(self.skeleton, content, completed_at=_now())
        return Complete(orjson.dumps(whole), usage_of(content))

    def stream(self) -> StreamTreatment:
        """A fresh transformer from chat chunks to Response events."""
        return ResponsesStream(
            self.skeleton,
            now=_now,
            strict=self._strict,
            trusted=self._serving.trusted,
            sanitise=self._serving.sanitise,
        )


class Relayed(_Responses):
    """The upstream speaks the Responses API."""

    upstream_path = "/responses"

    def request_body(self, target: Target) -> bytes:
        """The caller's bytes with the upstream's model name."""
        return chat.prepare(
            self._call.incoming.body,
            self._call.content,
            endpoint=Endpoint.RESPONSES,
            model_name=target.model_name,
            keep_service_tier=self._serving.forward_service_tier,
        )

    def complete(self, raw: bytes) -> Complete:
        """Raises BadUpstreamBody."""
        done = passed_on.finish_body(
            raw, skeleton=self.skeleton, strict=self._strict, completed_at=_now()
        )
        return Complete(done.body, done.usage)

    def stream(self) -> StreamTreatment:
        """A fresh transformer of Response events."""
        return passed_on.ResponsesRelay(
            self.skeleton,
            now=_now,
            strict=self._strict,
            trusted=self._serving.trusted,
            sanitise=self._serving.sanitise,
        )


class _Chat(ChatStream):
    def fail(self, code: str, message: str, **_more: str) -> bytes:  # type: ignore[override]
        return super().fail(message, type="api_error", code=code)

    def cancel(self) -> bytes:
        return self.fail("cancelled", "The request was cancelled.")


def skeleton_of(call: Call) -> dict[str, Any]:
    """The Response object of a call before anything is known of its outcome."""
    assert call.alias is not None
    asked = call.content.get("service_tier")
    tier = "flex" if call.tier is Tier.FLEX else "priority" if asked == "priority" else "default"
    return resource.skeleton(
        call.content,
        response_id=call.response_id,
        created_at=int(call.created_at),
        model=call.alias,
        status="queued" if call.tier is Tier.FLEX else "in_progress",
        service_tier=tier,
        background=call.background,
    )


def _now() -> int:
    return int(time.time())
