"""One call to its upstream: send, treat, record. Shared by web (now) and worker (from the queue).

`answer` and `stream` relay for a caller that waits: the record is committed before the body, or the stream's last frame, leaves. `outcome`
only runs. Around each run stands one guard: whatever is raised in here, a bug of ours too, becomes a final outcome, is recorded, and is
charged for the usage that is known. No database connection is held while the upstream works.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import gevent
import msgspec
import orjson

from dwctl.ai import outcomes
from dwctl.ai.admission import Admitted
from dwctl.ai.bookkeeping import opening_of, record_of
from dwctl.ai.calls import EVENT_STREAM, JSON, TEXT, Answer, Headers
from dwctl.ai.in_progress import Flight, Stopped
from dwctl.ai.outcomes import Done, End, Failed, Outcome, Reason
from dwctl.analytics.records import Kept
from dwctl.db import DatabaseAway
from dwctl.errors import DwctlError
from dwctl.protocols.disclosure import disclose
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.failures import FailureKind
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.treatments import Complete, StreamTreatment, Treatment
from dwctl.protocols.usage import said
from dwctl.queue.tables import State
from dwctl.upstream import headers as upstream_headers
from dwctl.upstream.client import UpstreamResponse
from dwctl.upstream.errors import UpstreamError
from dwctl.upstream.target import Target
from dwctl.web.envelope import openai_error

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

log = logging.getLogger(__name__)

T = TypeVar("T")
Finish = Callable[[Outcome], object]

_RETRIABLE = frozenset({404, 408, 429})
_OFFER_AGAIN_S = 1.0


class NotRecorded(DwctlError):
    """The answer is there, but could not be written down, so it is withheld. Please report the request id."""

    code = "not_recorded"
    status = 500


def answer(gateway: Gateway, admitted: Admitted, flight: Flight) -> Answer:
    """Relay a blocking call. Raises NotRecorded, or DatabaseAway where neither database nor spool took the record."""
    run = Run(gateway, admitted, flight)
    run.enter()
    try:
        outcome = run.outcome()
        if run.finish_or_promise(outcome) is Kept.SET_ASIDE and outcome.succeeded:
            raise NotRecorded
    finally:
        run.leave()
    return Answer(outcome.status, outcome.headers, outcome.body)


def stream(gateway: Gateway, admitted: Admitted, flight: Flight) -> Answer:
    """Relay a streaming call: an upstream that refuses is answered in one piece, otherwise events flow from here on."""
    run = Run(gateway, admitted, flight)
    return begin_stream(run, run.finish_or_promise)


def begin_stream(run: Run, finish: Finish) -> Answer:
    """The same of a run whose end is not only written down. `finish` is called with its outcome, before the last events are given."""
    run.enter()
    try:
        return run.streamed(finish)
    except BaseException as error:
        try:
            if isinstance(error, Exception):
                run.end_row()
        finally:
            run.leave()
        raise


class Attempt(msgspec.Struct, frozen=True):
    """A call at one target, in the way in which that is spoken to."""

    target: Target
    treatment: Treatment
    headers: Headers


class Run:
    """An admitted call that is being run here."""

    def __init__(self, gateway: Gateway, admitted: Admitted, flight: Flight) -> None:
        self._gateway = gateway
        self._settings = gateway.settings.upstream
        self._admitted = admitted
        self._request = admitted.request
        self._flight = flight
        self._received = b""

    # --- a complete answer

    def outcome(self) -> Outcome:
        """Run it to its end. Never raises for what an upstream, a caller or we can do wrong."""

        def whole() -> Outcome:
            response = self._send()
            return response if isinstance(response, Outcome) else self._complete(response)

        return self._guarded(whole)

    def finish(self, outcome: Outcome) -> Kept:
        """Write the call down. When this returns, what the caller gets is safe to give."""
        self._flight.over = self._flight.recorded = True
        gateway = self._gateway
        with gateway.turn_for(len(outcome.stored)):
            record = record_of(self._admitted, outcome, self._flight, gateway.registration.id)
            kept = gateway.recorder.finish(record)
        gateway.count(outcome)
        return kept

    def finish_or_promise(self, outcome: Outcome) -> Kept:
        """`finish`, for a caller that waits. Where it raises DatabaseAway, a call that has a row is offered again once the caller knows:
        else the row would be in progress for as long as this process lives, and what was delivered not charged.
        """
        try:
            return self.finish(outcome)
        except DatabaseAway:
            if self._flight.opened:
                self._gateway.spawn(self.finish_surely, outcome)
            raise

    def finish_surely(self, outcome: Outcome) -> None:
        """`finish`, where nobody is there to be told that the record was not taken: it is offered again."""
        while True:
            try:
                self.finish(outcome)
                return
            except DatabaseAway:
                gevent.sleep(_OFFER_AGAIN_S)

    def end_row(self) -> None:
        """The call cannot be answered after all: what was opened ends."""
        if self._flight.opened and not self._flight.over:
            self.finish_or_promise(outcomes.internal())

    def open_row(self) -> None:
        """Make the tracking row of a call that lasts, once."""
        flight = self._flight
        if not self._request.tracked or flight.opened or flight.over:
            return
        flight.opened = True
        opening = opening_of(self._admitted, State.PROCESSING, self._gateway.registration.id)
        flight.row_is_there = self._gateway.recorder.open(opening) is Kept.COMMITTED

    def enter(self) -> None:
        """Put the call among those in progress; `leave` must follow."""
        lasting = self.open_row if self._request.tracked and not self._flight.opened else None
        self._gateway.in_progress.enter(self._flight, lasting)

    def leave(self) -> None:
        """The call is over; a second time does nothing."""
        self._gateway.in_progress.leave(self._flight)

    @cached_property
    def _attempt(self) -> Attempt:
        admitted, target = self._admitted, self._admitted.target
        credential = target.auth_header[0] if target.auth_header else ""
        kept = upstream_headers.to_upstream(
            self._request.headers, also=self._settings.passed_headers, credential=credential
        )
        return Attempt(
            target,
            self._request.surface.treat(
                self._request.asked,
                admitted.disclosure,
                adapted=admitted.served_by.adapter,
                keep_service_tier=admitted.served_by.forward_service_tier,
                context_length=admitted.served_by.context_length,
            ),
            [*kept, JSON],
        )

    def _send(self) -> UpstreamResponse | Outcome:
        """The upstream's 2xx answer with its body still to come, or what its refusal comes to."""
        target, treatment = self._attempt.target, self._attempt.treatment
        body = treatment.request_body(target.model_name)
        with self._flight.waiting():
            response = self._gateway.client.send(
                target, treatment.path, body, self._attempt.headers
            )
        self._flight.first_byte_at = time.monotonic()
        if 200 <= response.status < 300:
            return response
        with self._flight.waiting():
            raw = response.read(self._settings.max_answer_size)
        return self._refused(response, raw)

    def _complete(self, response: UpstreamResponse) -> Outcome:
        with self._flight.waiting():
            self._received = response.read(self._settings.max_answer_size)
        with self._gateway.turn_for(len(self._received)):
            return self._treated(response)

    def _treated(self, response: UpstreamResponse) -> Outcome:
        treatment = self._attempt.treatment
        if not self._received.strip():
            return outcomes.unreadable(response.status, "the answer is empty")
        try:
            if _is_event_stream(response):
                return self._completed(treatment.from_stream(self._received), response, [JSON])
            headers = upstream_headers.to_caller(response.status, response.headers)
            return self._completed(treatment.complete(self._received), response, headers)
        except BadUpstreamBody:
            return outcomes.unreadable(
                response.status, "the answer is not what the endpoint promises"
            )

    def _completed(
        self, complete: Complete, response: UpstreamResponse, headers: Headers
    ) -> Outcome:
        failure = complete.failure
        return Outcome(
            end=Done() if failure is None else _answered_with(failure),
            status=response.status if failure is None else 502,
            body=complete.body if failure is None else _error_body(complete.body, failure),
            headers=_typed(headers, complete.body) if failure is None else [JSON],
            stored=complete.body,
            response_type=self._request.surface.response_type,
            upstream_status=response.status,
            usage=complete.usage,
        )

    def _refused(self, response: UpstreamResponse, raw: bytes) -> Outcome:
        """An upstream's own error status. Trying again may help with what is about the moment, not about the request."""
        shown = disclose(self._admitted.disclosure, response.status, raw)
        body = raw if shown.as_it_came else shown.body
        given = upstream_headers.to_caller(response.status, response.headers)
        headers = _typed(shown.headers(given), body)
        retriable = response.status >= 500 or response.status in _RETRIABLE
        kind = FailureKind.RETRIABLE_STATUS if retriable else FailureKind.FINAL_STATUS
        end = Failed(
            kind,
            f"http_{response.status}",
            # Whoever reads it later is shown no more than its caller.
            {"status": response.status, "body": _text(body)},
            retry_after_s=_seconds(response.header("retry-after")),
        )
        return Outcome(end, shown.status, body, headers, body, upstream_status=response.status)

    def _guarded(self, step: Callable[[], T]) -> T | Outcome:
        """The one guard: whatever a step raises is how the call ended."""
        try:
            return step()
        except Stopped as stopped:
            return outcomes.interrupted(stopped.reason)
        except UpstreamError as error:
            return outcomes.unreachable(error)
        except Exception:
            return self._broken()

    def _broken(self) -> Outcome:
        """A bug of ours met this call. What the upstream had done by then is paid for."""
        log.exception("call failed inside", extra={"request_id": str(self._request.id)})
        return outcomes.internal().with_usage(said(parse_object(self._received)))

    # --- a stream

    def streamed(self, finish: Finish) -> Answer:
        """The answer to a caller that wants events. Whoever closes its body ends the call."""
        response = self._opened()
        if isinstance(response, Outcome):
            finish(response)
            self.leave()
            return Answer(response.status, response.headers, response.body)
        events = self._events(response, finish)
        next(events)  # a generator that has begun runs to its end also when nobody reads it
        headers = upstream_headers.to_caller(response.status, response.headers)
        passed_on = [pair for pair in headers if pair[0] != "cache-control"]
        return Answer(200, [*EVENT_STREAM, *passed_on], events)

    def _opened(self) -> UpstreamResponse | Outcome:
        """A stream that has begun and has its row, or what else the call came to. Raises DatabaseAway: there is no row."""

        def begun() -> UpstreamResponse | Outcome:
            response = self._send()
            if isinstance(response, Outcome) or _is_event_stream(response):
                return response
            return self._replayed(response)

        response = self._guarded(begun)
        if isinstance(response, Outcome):
            return response
        try:
            self.open_row()
        except BaseException:
            response.close()
            raise
        return response

    def _replayed(self, response: UpstreamResponse) -> Outcome:
        """A complete answer to a call that wanted a stream becomes that stream."""
        outcome = self._complete(response)
        if not outcome.succeeded:
            return outcome
        try:
            events = self._attempt.treatment.replay(outcome.body)
        except BadUpstreamBody as error:
            return outcomes.unreadable(response.status, str(error))
        response_type = f"{outcome.response_type}_stream"
        headers = list(EVENT_STREAM)
        return msgspec.structs.replace(
            outcome, body=events, headers=headers, response_type=response_type
        )

    def _events(self, response: UpstreamResponse, finish: Finish) -> Iterator[bytes]:
        stream = self._attempt.treatment.stream(max_bytes=self._settings.max_answer_size)
        flight = self._flight
        flight.last_words = lambda: self._leave_word(stream)
        pieces = self._pieces(response)
        stopped: Reason | None = None
        gone = False
        last = b""
        try:
            try:
                yield b""
                for piece in pieces:
                    data = stream.feed(piece)
                    # The usage comes after the end: who hangs up in between does not go without paying.
                    flight.linger_s = self._settings.usage_grace if stream.ended else 0.0
                    if data:
                        yield data
                    if stream.done:
                        break
                last = stream.finish()
            except UpstreamError as error:
                last = stream.fail(error.code, error.message)
            except Stopped as stop:
                stopped = stop.reason
                last = _farewell(stream, stopped)
                gone = stopped is Reason.LEFT
            except GeneratorExit:
                gone = True
                stopped = self._without_caller(stream, pieces)
            except Exception:
                last = self._fail_inside(stream)
            response.close()
            finish(self._streamed(stream, stopped))
        except Exception:
            if self._flight.over:
                raise
            finish(self._broken())
            raise
        finally:
            response.close()
            self.leave()
        if not gone:
            yield last

    def _pieces(self, response: UpstreamResponse) -> Iterator[bytes]:
        """The upstream's pieces. Raises UpstreamError, Stopped."""
        pieces = response.chunks()
        while True:
            with self._flight.waiting():
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def _without_caller(self, stream: StreamTreatment, pieces: Iterator[bytes]) -> Reason | None:
        """The rest of a stream whose caller has left: all of it where the operator wants that, else, where the model has ended, the
        usage that may still come. Says how the call ended then.
        """
        self._flight.go_on_alone()
        if self._gateway.drains:
            patience_s = None
        elif stream.ended:
            patience_s = self._settings.usage_grace
        else:
            return Reason.LEFT
        try:
            with gevent.Timeout(patience_s, False):
                for piece in pieces:
                    stream.feed(piece)
                    if stream.done:
                        break
                stream.finish()
                return None
        except UpstreamError as error:
            stream.fail(error.code, error.message)
        except Stopped as stop:
            _farewell(stream, stop.reason)
            return stop.reason
        except Exception:
            self._fail_inside(stream)
        return Reason.LEFT

    def _streamed(self, stream: StreamTreatment, stopped: Reason | None) -> Outcome:
        """What a stream came to. What was delivered until it was stopped is billed."""
        end: End = Done()
        if stopped is not None:
            end = outcomes.Interrupted(stopped)
        elif stream.error is not None:
            details = {"error": stream.error.get("message")}
            end = Failed(FailureKind.STREAM_BROKEN, str(stream.error.get("code")), details)
        stored = orjson.dumps(stream.assembled())
        return Outcome(
            end=end,
            status=200 if stopped is None else stopped.status,
            body=b"",
            headers=[],
            stored=stored,
            response_type=f"{self._request.surface.response_type}_stream",
            upstream_status=200,
            usage=stream.settle(),
        )

    def _leave_word(self, stream: StreamTreatment) -> None:
        """What is to be written down if this process dies now."""
        outcome = outcomes.interrupted(Reason.DIED).with_usage(stream.settle())
        daemon_id = self._gateway.registration.id
        record = record_of(self._admitted, outcome, self._flight, daemon_id)
        self._gateway.recorder.keep_progress(record)

    def _fail_inside(self, stream: StreamTreatment) -> bytes:
        log.exception("stream failed inside", extra={"request_id": str(self._request.id)})
        return stream.fail("internal_error", "Internal error. Please try again later.")


def _farewell(stream: StreamTreatment, reason: Reason) -> bytes:
    if reason is Reason.CANCELLED:
        return stream.cancel()
    return b"" if reason is Reason.LEFT else stream.fail("interrupted", reason.text)


def _answered_with(failure: str) -> Failed:
    details = {"status": 502, "body": failure}
    return Failed(FailureKind.RETRIABLE_STATUS, "upstream_error", details)


def _typed(headers: Headers, body: bytes) -> Headers:
    """With the type that we say: the upstream's label decides nothing. Clients read by it, and would hand on JSON as a text; browsers would
    run a page."""
    return [JSON if body.lstrip()[:1] in (b"{", b"[", b"") else TEXT, *headers]


def _error_body(body: bytes, failure: str) -> bytes:
    """An answer that is a failure in form, as an error: it is one already, or an object that has failed."""
    content = parse_object(body) or {}
    return openai_error(failure, "upstream_error", 502) if "object" in content else body


def _is_event_stream(response: UpstreamResponse) -> bool:
    return (response.header("content-type") or "").startswith("text/event-stream")


def _text(raw: bytes) -> str:
    return raw[:4096].decode("utf-8", "replace")


def _seconds(value: str | None) -> float | None:
    return float(value) if value and value.isdecimal() and len(value) < 7 else None
