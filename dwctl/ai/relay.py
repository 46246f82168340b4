"""The run of one call: its attempts, and its record. Shared by web (now) and worker (from the queue).

`answer` and `stream` relay for a caller that waits: the record is committed before the body, or the stream's last frame, leaves. `outcome`
only runs. Around each run stands one guard: whatever is raised in here, a bug of ours too, becomes a final outcome, is recorded, and is
charged for the usage that is known. No database connection is held while the upstream works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import gevent
import orjson

from dwctl.ai import costs, outcomes, traced
from dwctl.ai.admission import Admitted
from dwctl.ai.attempt import Attempt, Result, Step
from dwctl.ai.attempts import Attempts
from dwctl.ai.bookkeeping import opening_of, record_of
from dwctl.ai.calls import Answer, Headers, begun, served_by
from dwctl.ai.in_progress import Flight, Stopped
from dwctl.ai.live import Live
from dwctl.ai.outcomes import Done, End, Failed, Outcome, Reason
from dwctl.analytics.records import Kept, Record
from dwctl.catalog.routing import Model
from dwctl.db import DatabaseAway
from dwctl.errors import DwctlError
from dwctl.protocols.answers import finish_reason_of
from dwctl.protocols.failures import FailureKind, word
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.treatments import StreamTreatment
from dwctl.protocols.usage import said
from dwctl.queue.tables import State
from dwctl.upstream import headers as upstream_headers
from dwctl.upstream.errors import UpstreamError
from dwctl.upstream.target import Target

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

log = logging.getLogger(__name__)

Finish = Callable[[Outcome], object]

_OFFER_AGAIN_S = 1.0


class NotRecorded(DwctlError):
    """The answer is there, but could not be written down, so it is withheld. Please report the request id."""

    code = "not_recorded"
    status = 500


class CutShort(ConnectionAbortedError):
    """The upstream broke off an answer in which that cannot be said: its caller sees the connection end."""


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
    told = costs.headers(gateway, admitted, outcome)
    return Answer(outcome.status, [*run.labelled(outcome.headers), *told], outcome.body)


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


class Run:
    """An admitted call that is being run here."""

    def __init__(self, gateway: Gateway, admitted: Admitted, flight: Flight) -> None:
        self._gateway = gateway
        self._admitted = admitted
        self._request = admitted.request
        self._flight = flight
        self._attempt: Attempt | None = None
        """The last one that was begun."""

    # --- a complete answer

    def outcome(self) -> Outcome:
        """Run it to its end. Never raises for what an upstream, a caller or we can do wrong."""
        outcome = self._guarded(Attempt.whole)
        assert isinstance(outcome, Outcome)
        return outcome

    def finish(self, outcome: Outcome) -> Kept:
        """Write the call down. When this returns, what the caller gets is safe to give."""
        self._flight.over = self._flight.recorded = True
        gateway = self._gateway
        permits = self._flight.permits
        for permit in permits:
            permit.give_back(outcome.usage.total_tokens if outcome.usage else 0)
        with gateway.turn_for(len(outcome.stored)):
            record = self._record(outcome)
            if gateway.tracer is None:
                kept = gateway.recorder.finish(record)
            else:
                with traced.recording(gateway.tracer, self._flight):
                    kept = gateway.recorder.finish(record)
        if self._flight.held is not None:
            self._flight.held.is_settled = kept in (Kept.COMMITTED, Kept.SPOOLED)
        for permit in permits:
            permit.wait_given_back(gateway.settings.recorder.database_wait)
        gateway.count(outcome)
        gateway.unpriced.note(self._admitted, unsaid=outcome.succeeded and outcome.usage is None)
        path = self._request.surface.path
        gateway.genai.ended(path, record, self._flight.target, outcome.stored)
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
        traced.end_attempt(self._flight, None)
        self._gateway.in_progress.leave(self._flight)

    def _guarded(self, step: Step) -> Result:
        """The one guard: whatever is raised while a target is asked is how the call ended."""
        pool = self._admitted.served_by
        try:
            if pool.is_composite:
                ask = partial(self._ask, step)
                return Attempts(self._gateway, self._admitted, self._flight, ask).run()
            assert pool.target is not None  # else it is not admitted
            return self._ask(step, pool, pool.target)
        except Stopped as stopped:
            return outcomes.interrupted(stopped.reason)
        except Exception:
            return self._broken()

    def _ask(self, step: Step, provider: Model, target: Target, due: float = inf) -> Result:
        attempt = Attempt(self._gateway, self._admitted, self._flight, provider, target, due)
        self._attempt = attempt
        return attempt.run(step)

    def _broken(self) -> Outcome:
        """A bug of ours met this call. What the upstream had done by then is paid for."""
        log.exception("call failed inside", extra={"request_id": str(self._request.id)})
        received = None if self._attempt is None else parse_object(self._attempt.received)
        return outcomes.internal().with_usage(said(received))

    def labelled(self, headers: Headers) -> Headers:
        """With the target that has served the call, for those who may know."""
        target = self._flight.target
        if target is None or not self._gateway.shows_served_by(self._admitted.key):
            return headers
        return [*headers, served_by(target.endpoint_name, target.model_name)]

    # --- a stream

    def streamed(self, finish: Finish) -> Answer:
        """The answer to a caller that wants events. Whoever closes its body ends the call."""
        live = self._opened()
        if isinstance(live, Outcome):
            finish(live)
            self.leave()
            return self._instead(live)
        events = begun(self._events(live, finish))
        headers = upstream_headers.to_caller(live.response.status, live.response.headers)
        passed_on = [pair for pair in headers if pair[0] != "cache-control"]
        self._flight.answered_with = [*live.labels, *passed_on]
        return Answer(live.status, self.labelled([*live.labels, *passed_on]), events)

    def _instead(self, outcome: Outcome) -> Answer:
        """The answer to a caller that wants events where the upstream has answered in one piece, be it that it refuses."""
        gateway, admitted = self._gateway, self._admitted
        headers = [*self.labelled(outcome.headers), *costs.headers(gateway, admitted, outcome)]
        body = costs.told(gateway, admitted, outcome, outcome.body)
        return Answer(outcome.status, headers, body)

    def _opened(self) -> Live | Outcome:
        """A stream that has begun and has its row, or what else the call came to. Raises DatabaseAway: there is no row."""
        may_fall_back = self._admitted.served_by.may_fall_back
        live = self._guarded(Attempt.begun if may_fall_back else Attempt.opened)
        if isinstance(live, Outcome):
            return live
        try:
            self.open_row()
        except BaseException:
            live.close()
            raise
        return live

    def _events(self, live: Live, finish: Finish) -> Iterator[bytes]:
        self._flight.last_words = lambda: self._leave_word(live.stream)
        stopped: Reason | None = None
        gone = False
        last: bytes | None = b""
        try:
            try:
                yield b""
                yield from live.frames()
                last = live.stream.finish()
            except UpstreamError as error:
                last = live.stream.fail(error.code, error.message)
            except Stopped as stop:
                stopped = stop.reason
                last = live.farewell(stopped)
                gone = stopped is Reason.LEFT
            except GeneratorExit:
                gone = True
                wanted = self._flight.alone and not self._gateway.draining
                stopped = live.go_on_alone(to_the_end=wanted)
            except Exception:
                last = live.fail_inside()
            live.close()
            outcome = self._streamed(live.stream, stopped)
            finish(outcome)
        except Exception:
            if self._flight.over:
                raise
            finish(self._broken())
            raise
        finally:
            live.close()
            self.leave()
        if gone:
            return
        if last is None:
            raise CutShort
        yield costs.told(self._gateway, self._admitted, outcome, last)

    def _streamed(self, stream: StreamTreatment, stopped: Reason | None) -> Outcome:
        """What a stream came to. What was delivered until it was stopped is billed."""
        end: End = Done()
        if stopped is not None:
            end = outcomes.Interrupted(stopped)
        elif stream.error is not None:
            details = {"error": stream.error.get("message")}
            code = word(str(stream.error.get("code") or "")) or UpstreamError.code
            end = Failed(FailureKind.STREAM_BROKEN, code, details)
        if self._attempt is not None:
            self._attempt.ended(end)
        whole, asked = stream.assembled(), self._request.asked
        outcome = Outcome(
            end=end,
            status=200 if stopped is None else stopped.status,
            body=b"",
            headers=[],
            stored=orjson.dumps(whole),
            response_type=asked.surface.type_of_answer(asked.content, streamed=True),
            upstream_status=200,
            usage=stream.settle(),
            finish_reason=finish_reason_of(whole),
        )
        traced.end_attempt(self._flight, outcome)
        return outcome

    def _leave_word(self, stream: StreamTreatment) -> None:
        """What is to be written down if this process dies now."""
        outcome = outcomes.interrupted(Reason.DIED).with_usage(stream.settle())
        self._gateway.recorder.keep_progress(self._record(outcome))

    def _record(self, outcome: Outcome) -> Record:
        gateway, flight = self._gateway, self._flight
        answered_with = list(flight.answered_with) or outcome.headers
        shown = gateway.request_log.of_call(
            self._request, self._admitted.key, outcome, answered_with
        )
        return record_of(self._admitted, outcome, flight, gateway.registration.id, shown)
