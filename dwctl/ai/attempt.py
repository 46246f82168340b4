"""One attempt of a call at one target: sent, read, and treated as its surface says. `upstream.health` hears what came of it.

How the target is spoken to (adapter, trust, service tier) is decided here, by the model that was chosen in the end; whether its answers are
sanitised, by the model that serves the call. What the upstream itself does wrong is raised (UpstreamError), or is an outcome that has failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

import msgspec

from dwctl.ai import outcomes, traced
from dwctl.ai.admission import Admitted
from dwctl.ai.calls import EVENT_STREAM, JSON, TEXT, Headers
from dwctl.ai.fallback import covers
from dwctl.ai.in_progress import Flight
from dwctl.ai.live import Live
from dwctl.ai.outcomes import Done, End, Failed, Outcome
from dwctl.catalog.routing import Model
from dwctl.protocols.disclosure import Disclosure, disclose, status_said
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.failures import FailureKind
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.treatments import Complete, StreamTreatment
from dwctl.upstream import headers as upstream_headers
from dwctl.upstream.client import UpstreamResponse
from dwctl.upstream.errors import (
    BadResponse,
    ConnectionFailed,
    Phase,
    ResponseTooLarge,
    Timeout,
    UpstreamError,
)
from dwctl.upstream.retry_after import WAIT_STATUSES, retry_after_s
from dwctl.upstream.target import Target
from dwctl.web.envelope import openai_error

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway
    from dwctl.tracing.tracer import Tracer


Result = Outcome | Live

_CODES_OF_STREAMS = frozenset(
    [ResponseTooLarge.code, BadResponse.code, ConnectionFailed.code, *(Timeout(phase).code for phase in Phase)]
)  # fmt: skip


class Attempt:
    """A call at `target`. `received`: what it answered in one piece, as it came."""

    def __init__(
        self,
        gateway: Gateway,
        admitted: Admitted,
        flight: Flight,
        provider: Model,
        target: Target,
        due: float = inf,
    ) -> None:
        """`provider` has the target; `due` (monotonic) bounds the attempt beside the target's own time-outs."""
        self.target = target
        self.received = b""
        self._admitted = admitted
        self._provider = provider
        self._gateway = gateway
        self._settings = gateway.settings.upstream
        self._request = admitted.request
        self._flight = flight
        self._due = due
        self._pool = admitted.served_by
        self._trusted = provider.trusted
        self._disclosure = Disclosure(admitted.strict, provider.trusted, self._pool.sanitise)
        self._treatment = self._request.surface.treat(
            self._request.asked,
            self._disclosure,
            adapted=provider.adapter,
            keep_service_tier=provider.forward_service_tier,
            context_length=provider.context_length,
            reasoning_input=provider.reasoning_input,
        )

    def run(self, step: Step) -> Result:
        """What `step` gives: `Attempt.whole`, `opened` or `begun`. An upstream that gives no answer is an outcome. Raises Stopped."""
        flight, health, target = self._flight, self._gateway.health, self.target
        flight.target, flight.provider = target, self._provider
        health.begins(target)
        if self._gateway.tracer is not None:
            traced.begin_attempt(self._gateway.tracer, self._admitted, flight, target)
        try:
            result = step(self)
        except UpstreamError as error:
            result = outcomes.unreachable(error)
        except BaseException:
            health.gave_up(target)
            traced.end_attempt(flight, None)
            raise
        if isinstance(result, Live):
            health.answers(target)
        else:
            traced.end_attempt(flight, result)
            self._tell_health(result)
        return result

    def ended(self, end: End) -> None:
        """What became of the stream that it had begun."""
        if isinstance(end, Failed):
            # An upstream may have chosen the code, and each new one would be a figure of its own for ever.
            self._tell_of_failure(end.code if end.code in _CODES_OF_STREAMS else UpstreamError.code)
        elif isinstance(end, Done):
            self._gateway.health.answered(self.target)

    def _tell_health(self, outcome: Outcome) -> None:
        health, target, end = self._gateway.health, self.target, outcome.end
        if not isinstance(end, Failed):
            health.answered(target)
            return
        status = outcome.upstream_status or 0
        if 300 <= (outcome.said_status or status) < 500:
            health.refused(target, end.code)
        else:
            self._tell_of_failure(end.code)
        if status in WAIT_STATUSES and end.retry_after_s:
            health.rests(target, end.retry_after_s, status)

    def _tell_of_failure(self, code: str) -> None:
        health = self._gateway.health
        if code == ResponseTooLarge.code:
            # That says nothing of its health, so the next call finds out.
            health.gave_up(self.target)
        else:
            health.failed_with(self.target, code)

    # --- steps

    def whole(self) -> Outcome:
        """The answer in one piece. Raises UpstreamError, Stopped."""
        response = self._send()
        return response if isinstance(response, Outcome) else self._complete(response)

    def opened(self) -> Live | Outcome:
        """A stream whose head is there, or the answer in one piece that came instead. Raises UpstreamError, Stopped."""
        response = self._send()
        if isinstance(response, Outcome):
            return response
        treatment, content_type = self._treatment, _type_of(response)
        if not self._streams(response):
            return self._replayed(response) if treatment.replays else self._complete(response)
        try:
            stream = treatment.stream(
                content_type=content_type, max_bytes=self._settings.max_answer_size
            )
        except BaseException:
            response.close()
            raise
        label = ("content-type", treatment.shown_type(content_type))
        status = 200 if treatment.replays else response.status
        return Live(response, stream, self._flight, self._settings.usage_grace, status, label)

    def begun(self) -> Live | Outcome:
        """`opened`, of a stream that has shown its first event: one that fails before that is an outcome. Raises UpstreamError, Stopped."""
        opened = self.opened()
        if isinstance(opened, Outcome):
            return opened
        try:
            opened.begin()
        except BaseException:
            opened.close()
            raise
        if opened.stream.error is None:
            return opened
        opened.close()
        return self._failed_at_once(opened.stream)

    def _send(self) -> UpstreamResponse | Outcome:
        """The 2xx answer with its body still to come, or what a refusal comes to."""
        target, treatment = self.target, self._treatment
        body = treatment.request_body(target.model_name)
        credential = target.auth_header[0] if target.auth_header else ""
        kept = upstream_headers.to_upstream(
            self._request.headers,
            also=self._settings.passed_headers,
            credential=credential,
            trace=() if self._gateway.tracer is None else self._trace_of(self._gateway.tracer),
        )
        if treatment.content_type is not None:
            kept.append(("content-type", treatment.content_type))
        with self._flight.waiting():
            response = self._gateway.client.send(
                target, treatment.path, body, kept, method=treatment.method, due=self._due
            )
        self._flight.first_byte_at = time.monotonic()
        if 200 <= response.status < 300:
            return response
        with self._flight.waiting():
            raw = response.read(self._settings.max_answer_size)
        return self._refused(response, raw)

    def _trace_of(self, tracer: Tracer) -> Headers:
        """What a server is told of the trace: nothing that a caller has written, and only servers of the operator's own."""
        span = self._flight.attempt
        return traced.headers_of(span) if tracer.forwards and self._trusted and span else []

    def _complete(self, response: UpstreamResponse) -> Outcome:
        with self._flight.waiting():
            self.received = response.read(self._settings.max_answer_size)
        with self._gateway.turn_for(len(self.received)):
            return self._treated(response)

    def _treated(self, response: UpstreamResponse) -> Outcome:
        received, promises_object = self.received.strip(), self._treatment.promises_object
        if promises_object and not received:
            return outcomes.unreadable(response.status, "the answer is empty")
        try:
            if self._treatment.streams(_type_of(response), self.received):
                complete = self._treatment.from_stream(self.received)
                return self._completed(complete, response, [])
            # Open mode hands on whatever came, unless there is another target that may have an answer.
            others_may_do_better = promises_object and self._pool.may_fall_back
            if others_may_do_better and not (received[:1] == b"{" and received[-1:] == b"}"):
                raise BadUpstreamBody("no object")
            headers = upstream_headers.to_caller(response.status, response.headers)
            return self._completed(self._treatment.complete(self.received), response, headers)
        except BadUpstreamBody:
            return outcomes.unreadable(
                response.status, "the answer is not what the endpoint promises"
            )

    def _completed(
        self, complete: Complete, response: UpstreamResponse, headers: Headers
    ) -> Outcome:
        failure = complete.failure
        said = None if failure is None else status_said(self.received)
        return Outcome(
            end=Done() if failure is None else self._answered_with(failure, said),
            status=response.status if failure is None else 502,
            body=complete.body if failure is None else _error_body(complete.body, failure),
            headers=_typed(headers, complete.body) if failure is None else [JSON],
            stored=complete.body,
            response_type=self._type_of_answer() if failure is None else "other",
            upstream_status=response.status,
            usage=complete.usage,
            finish_reason=complete.finish_reason,
            said_status=said,
        )

    def _type_of_answer(self, *, streamed: bool = False) -> str:
        asked = self._request.asked
        return asked.surface.type_of_answer(asked.content, streamed=streamed)

    def _streams(self, response: UpstreamResponse) -> bool:
        """By its type; where that says something else, by its first bytes."""
        treatment, kind = self._treatment, _type_of(response)
        if treatment.streams(kind, b"") or not treatment.replays:
            return treatment.streams(kind, b"")
        with self._flight.waiting():
            return treatment.streams(kind, response.beginning())

    def _replayed(self, response: UpstreamResponse) -> Outcome:
        """A complete answer to a call that wanted a stream becomes that stream."""
        outcome = self._complete(response)
        if not outcome.succeeded:
            return outcome
        try:
            events = self._treatment.replay(outcome.body)
        except BadUpstreamBody as error:
            return outcomes.unreadable(response.status, str(error))
        return msgspec.structs.replace(
            outcome,
            body=events,
            headers=list(EVENT_STREAM),
            response_type=self._type_of_answer(streamed=True),
        )

    def _failed_at_once(self, stream: StreamTreatment) -> Outcome:
        error = stream.error or {}
        message = str(error.get("message"))
        body = openai_error(message, str(error.get("code") or "upstream_error"), 502)
        said = status_said(stream.upstream_error) if stream.upstream_error else None
        return Outcome(
            self._answered_with(message, said),
            502,
            body,
            [JSON],
            body,
            upstream_status=200,
            usage=stream.settle(),
            said_status=said,
        )

    def _refused(self, response: UpstreamResponse, raw: bytes) -> Outcome:
        """An upstream's own error status. Trying again may help with what is about the moment, not about the request."""
        shown = disclose(self._disclosure, response.status, raw)
        body = raw if shown.as_it_came else shown.body
        given = upstream_headers.to_caller(response.status, response.headers)
        headers = _typed(shown.headers(given), body)
        kind = self._kind_of(response.status)
        end = Failed(
            kind,
            f"http_{response.status}",
            # Whoever reads it later is shown no more than its caller.
            {"status": response.status, "body": _text(body)},
            retry_after_s=retry_after_s(response.headers, time.time()),
        )
        return Outcome(end, shown.status, body, headers, body, upstream_status=response.status)

    def _answered_with(self, failure: str, said: int | None) -> Failed:
        """An error that came with a 2xx. Where it names a status of its own, that says whether the same request may succeed later."""
        kind = self._kind_of(said or 500)
        status = 502 if kind is FailureKind.RETRIABLE_STATUS else said
        return Failed(kind, "upstream_error", {"status": status, "body": failure})

    def _kind_of(self, status: int) -> FailureKind:
        retried = self._gateway.settings.background_services.batch_daemon.retried_statuses
        if covers(retried, status):
            return FailureKind.RETRIABLE_STATUS
        return FailureKind.FINAL_STATUS


Step = Callable[[Attempt], Result]


def _typed(headers: Headers, body: bytes) -> Headers:
    """With the type that we say: the upstream's label decides nothing. Clients read by it, and would hand on JSON as a text; browsers would
    run a page."""
    return [JSON if body.lstrip()[:1] in (b"{", b"[", b"") else TEXT, *headers]


def _error_body(body: bytes, failure: str) -> bytes:
    """An answer that is a failure in form, as an error: it is one already, or an object that has failed."""
    content = parse_object(body) or {}
    return openai_error(failure, "upstream_error", 502) if "object" in content else body


def _type_of(response: UpstreamResponse) -> str:
    return response.header("content-type") or ""


def _text(raw: bytes) -> str:
    return raw[:4096].decode("utf-8", "replace")
