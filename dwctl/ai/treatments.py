"""How an endpoint's calls are sent and their answers treated: the seam between the relay and the wire formats.

A Treatment is made for one call. Chat, completions and embeddings pass through (`PassThrough`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from dwctl.ai.calls import Call
from dwctl.protocols import assembly, chat
from dwctl.protocols.answers import finish_body
from dwctl.protocols.chat import Endpoint
from dwctl.protocols.chat_stream import ChatStream
from dwctl.protocols.usage import TokenUsage
from dwctl.upstream.target import Target

_RESPONSE_TYPES = {
    Endpoint.CHAT: "chat_completion",
    Endpoint.COMPLETIONS: "completion",
    Endpoint.EMBEDDINGS: "embeddings",
    Endpoint.RESPONSES: "response",
}


@dataclass(frozen=True, slots=True)
class Complete:
    """A complete 2xx answer as the caller gets it. `failure` is set when it is an answer only in form."""

    body: bytes
    usage: TokenUsage | None
    failure: str | None = None


class StreamTreatment(Protocol):
    """Turns the upstream's bytes into the caller's, one stream long."""

    usage: TokenUsage | None
    done: bool
    error: dict[str, Any] | None

    def feed(self, chunk: bytes) -> bytes: ...
    def finish(self) -> bytes: ...
    def fail(self, message: str, *, type: str = ..., code: str = ...) -> bytes: ...
    def assembled(self) -> dict[str, Any]: ...
    @property
    def estimated_completion_tokens(self) -> int: ...


class Treatment(Protocol):
    """What the relay needs to know of a wire format."""

    upstream_path: str
    response_type: str

    def request_body(self, target: Target) -> bytes: ...
    def complete(self, raw: bytes) -> Complete: ...
    def from_stream(self, raw: bytes) -> Complete: ...
    def opening(self) -> bytes: ...
    def stream(self) -> StreamTreatment: ...
    def replay(self, complete: Complete) -> bytes: ...


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
        failure = stream.error["message"] if stream.error else None
        body = orjson.dumps({"error": stream.error} if stream.error else stream.assembled())
        return Complete(body, stream.usage, failure)

    def opening(self) -> bytes:
        """Nothing comes before the upstream's own first event."""
        return b""

    def stream(self) -> StreamTreatment:
        """A fresh transformer."""
        return ChatStream(
            endpoint=self._call.endpoint,
            response_id=self._response_id,
            alias=self._alias,
            strict=self._strict,
            sanitise=self._serving.sanitise,
            trusted=self._serving.trusted,
            usage_wanted=chat.wants_usage_chunk(self._call.content),
        )

    def replay(self, complete: Complete) -> bytes:
        """A complete answer as the stream that the caller asked for."""
        answer = orjson.loads(complete.body)
        wanted = chat.wants_usage_chunk(self._call.content)
        return assembly.replay(answer, self._call.endpoint, usage_wanted=wanted)
