"""The running parts of one process behind the AI surface: made with the app, started when the process serves, drained at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any
from uuid import UUID

import gevent
import psycopg
from gevent.lock import BoundedSemaphore
from gevent.pool import Group

from dwctl.ai.balances import Balances
from dwctl.ai.counting import Counting
from dwctl.ai.event_log import EventLog
from dwctl.ai.following import Following
from dwctl.ai.funds import Funds
from dwctl.ai.genai import GenAi
from dwctl.ai.held import Held
from dwctl.ai.holdings import Holdings
from dwctl.ai.in_progress import InProgress
from dwctl.ai.outcomes import Outcome, Reason
from dwctl.ai.request_log import RequestLog
from dwctl.ai.retrieval import cancelled_among
from dwctl.ai.strangers import Strangers
from dwctl.ai.unpriced import Unpriced
from dwctl.analytics.recorder import Recorder
from dwctl.billing.reservations import Reservations
from dwctl.catalog.routing import Key
from dwctl.catalog.snapshot import Snapshot
from dwctl.config import Settings
from dwctl.db import DatabaseAway
from dwctl.limits.limiter import Limiter
from dwctl.queue.leases import CANCEL_CHANNEL, queued_of
from dwctl.queue.processes import Registration
from dwctl.upstream.addresses import Purpose, policy_for
from dwctl.upstream.client import UpstreamClient
from dwctl.upstream.health import Health
from dwctl.wakeups import Wakeups
from dwctl.web.current import Parts

if TYPE_CHECKING:
    from dwctl.tracing.tracer import Tracer

log = logging.getLogger(__name__)

_SWEEP_CANCELLED_S = 5.0
_LAST_WORDS_S = 2.0
_LAST_SPANS_S, _LEAST_FOR_SPANS_S = 1.0, 0.2
_LARGE_BYTES = 4 * 1024 * 1024
_LARGE_AT_ONCE = 2
_AT_ONCE = nullcontext()


class Gateway:
    """Snapshot, recorder, upstream client, wake-ups, and this process's row in `daemons`."""

    def __init__(self, parts: Parts, kind: dict[str, Any], tracer: Tracer | None = None) -> None:
        """`kind` is shown as this process's configuration in the registry of processes. `tracer`: None where traces are not exported."""
        self.tracer = tracer
        settings = parts.settings
        self.settings: Settings = settings
        self.connections = parts.connections
        self.client = UpstreamClient(
            max_idle_per_origin=settings.upstream.max_idle_per_origin,
            policy=policy_for(settings.outbound, Purpose.ENDPOINTS),
        )
        self.health = Health(settings.upstream.circuit)
        self.snapshot = Snapshot(settings, parts.connections, parts.sealer)
        self.genai = GenAi(settings.dashboard_url)
        self.strangers = Strangers(settings.log_strangers_per_minute)
        self.request_log = RequestLog(settings, self.snapshot)
        self.recorder = Recorder(settings, self.snapshot.mark_unfunded, tracer)
        self.in_progress = InProgress(
            settings.recorder.open_after, settings.recorder.progress_interval
        )
        limits = settings.limits
        self.holdings = Holdings(limits.account, limits.process, self._count_queued)
        self.wakeups = Wakeups(settings)
        self.registration = Registration(
            parts.connections,
            kind,
            settings.daemons.heartbeat,
            lambda: len(self.in_progress.flights),
        )
        self.reservations = Reservations(settings, self.registration.id)
        self.funds = Funds(settings.credits, self.reservations)
        self.balances = Balances(parts.connections, lambda: self.recorder.away_since is not None)
        self.limiter = Limiter(settings, self.registration.id, self._others_dead_after_s)
        self.held = Held(
            parts.connections,
            sweep_s=settings.responses.sweep_interval,
            most_per_owner=settings.responses.held_max_per_owner,
        )
        self.counting = Counting()
        self.unpriced = Unpriced()
        self.following = Following(parts.connections, sweep_s=settings.responses.sweep_interval)
        self.event_log = EventLog(parts.connections, self.registration.id, settings.responses)
        self._large = BoundedSemaphore(_LARGE_AT_ONCE)
        self._detached = Group()
        self._sweeper: gevent.Greenlet | None = None
        self.started = False
        self.draining = False

    def start(self) -> None:
        """Start every part, once. Call it in the process that serves, after forking."""
        if self.started:
            return
        self.started = True
        if self.tracer is not None:
            self.tracer.start()
        self.recorder.start()
        # Without a snapshot nobody is let in and nothing claimed: so this process is known before it owns anything.
        self.snapshot.start(self.wakeups, after=self.registration.registered)
        self.in_progress.start()
        self.held.start(self.wakeups)
        self.following.start(self.wakeups)
        self.event_log.start()
        self.wakeups.subscribe(CANCEL_CHANNEL, self._cancel)
        self.registration.start()
        self.wakeups.start()
        self._sweeper = gevent.spawn(self._sweep_cancelled)

    def spawn(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run something that outlives its request; `stop` waits for it."""
        self._detached.spawn(function, *arguments)

    @property
    def drains(self) -> bool:
        """Whether a stream whose caller has left is read to its end all the same."""
        return self.settings.upstream.on_disconnect == "drain" and not self.draining

    def shows_served_by(self, key: Key) -> bool:
        """Whether answers to this key name the endpoint that served them."""
        shown_to = self.settings.onwards.show_served_by
        return shown_to == "all" or (key.sees_providers and shown_to == "operators")

    def drain(self) -> None:
        """No new work: whoever waits for a worker is told so, and connections are not kept alive."""
        self.draining = True
        self.held.drain()

    def end_calls(self, deadline: float) -> None:
        """Let what runs here go on until `deadline` (monotonic); then stop it, so that it can still be written down."""
        self.in_progress.wait_empty(deadline - time.monotonic())
        self.in_progress.stop_all(Reason.DRAINED)
        self.in_progress.wait_empty(_LAST_WORDS_S)

    def stop(self, deadline: float) -> None:
        """Write down what is left until `deadline` (monotonic), and say goodbye."""
        if not self.started:
            return
        self.drain()
        self._detached.join(timeout=max(0.0, deadline - time.monotonic() - 1.0))
        self.held.stop()
        self.following.stop()
        self.event_log.stop(deadline)
        self.snapshot.stop()
        self.recorder.stop(deadline)
        self.limiter.stop(deadline)
        self.reservations.stop(deadline)
        self.registration.stop()
        self.wakeups.stop()
        self.in_progress.stop()
        if self._sweeper is not None:
            self._sweeper.kill()
        self.client.close()
        if self.tracer is not None:
            # Last: spans of the end are spans, too. A collector that does not answer is no reason to stay.
            now = time.monotonic()
            self.tracer.stop(now + min(_LAST_SPANS_S, max(_LEAST_FOR_SPANS_S, deadline - now)))

    def turn_for(self, size: int) -> AbstractContextManager[object]:
        """Around work on a body of that many bytes: it takes several times as much memory, so large ones wait for each other."""
        return _AT_ONCE if size < _LARGE_BYTES else self._large

    def count(self, outcome: Outcome) -> None:
        """Keep the process's own tally."""
        self.registration.processed += 1
        if not outcome.succeeded:
            self.registration.failed += 1

    def _others_dead_after_s(self) -> float | None:
        """For how long another process may not have beaten that holds something; None until this one has beaten for as long without a gap:
        after an outage everybody has time to beat again.
        """
        since, dead_after_s = self.registration.beating_since, self.settings.daemons.dead_after
        long_enough = since is not None and time.monotonic() - since >= dead_after_s
        return dead_after_s if long_enough else None

    def _count_queued(self, owner: UUID) -> int:
        with self.connections.transaction() as connection:
            return queued_of(connection, owner)

    def _sweep_cancelled(self) -> None:
        """A cancel whose notification was lost reaches its call all the same, a little later."""
        while True:
            gevent.sleep(_SWEEP_CANCELLED_S)
            if not self.in_progress.flights:
                continue
            try:
                for id in cancelled_among(self.connections, list(self.in_progress.flights)):
                    self.in_progress.cancel(id)
            except (DatabaseAway, psycopg.Error) as error:
                log.warning("cancelled calls not swept", extra={"reason": type(error).__name__})

    def _cancel(self, payload: str) -> None:
        try:
            self.in_progress.cancel(UUID(payload))
        except ValueError:
            log.warning("strange notification", extra={"channel": CANCEL_CHANNEL})
