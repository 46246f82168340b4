"""Runs the duties of every room: each in a greenlet of its own, each in one worker at a time (its row is its lock).

A duty with a channel is woken by a notification: every worker looks then, whoever comes first does it, and looks once more afterwards if
another came meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent
import psycopg
from gevent.event import Event

from dwctl import sql
from dwctl.ai import duties as ai_duties
from dwctl.analytics import duties as analytics_duties
from dwctl.audit import duties as audit_duties
from dwctl.batches import duties as batches_duties
from dwctl.billing import duties as billing_duties
from dwctl.catalog import duties as catalog_duties
from dwctl.config import Settings
from dwctl.db import Connections, DatabaseAway
from dwctl.files import duties as files_duties
from dwctl.identity import duties as identity_duties
from dwctl.limits import duties as limits_duties
from dwctl.organizations import duties as organizations_duties
from dwctl.queue import duties as queue_duties
from dwctl.queue.duties import Duty
from dwctl.sources import duties as sources_duties
from dwctl.usage import duties as usage_duties
from dwctl.wakeups import Wakeups

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.queue")
_LOOK_AT_LEAST_EVERY_S = 30.0
_AFTER_FAULT_S = 5.0

ALL: tuple[Duty, ...] = (
    *queue_duties.DUTIES,
    *analytics_duties.DUTIES,
    *usage_duties.DUTIES,
    *identity_duties.DUTIES,
    *organizations_duties.DUTIES,
    *catalog_duties.DUTIES,
    *limits_duties.DUTIES,
    *billing_duties.DUTIES,
    *ai_duties.DUTIES,
    *files_duties.DUTIES,
    *batches_duties.DUTIES,
    *sources_duties.DUTIES,
    *audit_duties.DUTIES,
)


class DutyRunner:
    """The runner of this process."""

    def __init__(self, connections: Connections, in_force: Callable[[], Settings]) -> None:
        self._connections = connections
        self._in_force = in_force
        self._greenlets: list[gevent.Greenlet] = []
        self._wakes: dict[str, Event] = {duty.name: Event() for duty in ALL}
        self.runs: dict[str, int] = {duty.name: 0 for duty in ALL}
        self.faults: dict[str, int] = {duty.name: 0 for duty in ALL}

    def listen(self, wakeups: Wakeups) -> None:
        """Have notifications wake the duties that wait for them. Before the wake-ups start."""
        for duty in ALL:
            if duty.channel is not None:
                self._wake_by(wakeups, duty.channel, self._wakes[duty.name])

    def _wake_by(self, wakeups: Wakeups, channel: str, wake: Event) -> None:
        wakeups.subscribe(channel, lambda _payload: wake.set(), wake.set)

    def start(self) -> None:
        """Begin."""
        self._greenlets = [gevent.spawn(self._run, duty) for duty in ALL]

    def stop(self) -> None:
        """End; a duty in the middle is rolled back, and another worker does it."""
        gevent.killall(self._greenlets)

    def _run(self, duty: Duty) -> None:
        planned = False
        wake = self._wakes[duty.name]
        while True:
            woken = wake.is_set()
            wake.clear()
            try:
                if not planned:
                    self._plan(duty)
                    planned = True
                rest_s = self._once(duty, woken=woken)
            except (DatabaseAway, psycopg.OperationalError):
                rest_s = _AFTER_FAULT_S
            except Exception:
                self.faults[duty.name] += 1
                log.exception("duty failed", extra={"duty": duty.name})
                rest_s = _AFTER_FAULT_S
            # Whoever finds the row due next does it, so no worker sleeps through another's death.
            wake.wait(min(rest_s, _LOOK_AT_LEAST_EVERY_S)) if rest_s > 0 else gevent.sleep(0)

    def _plan(self, duty: Duty) -> None:
        with self._connections.transaction() as connection:
            connection.execute(_QUERIES["plan_duty"], {"name": duty.name})

    def _once(self, duty: Duty, *, woken: bool) -> float:
        """Do the duty if it is due, or there is something new to do; seconds until looking again."""
        with self._connections.transaction() as connection:
            values = {"name": duty.name, "woken": woken}
            if not connection.execute(_QUERIES["take_duty"], values).fetchone():
                return 1.0
            rest_s = duty.run(connection, self._in_force())
            connection.execute(_QUERIES["put_duty_back"], {"name": duty.name, "rest_s": rest_s})
        self.runs[duty.name] += 1
        return rest_s
