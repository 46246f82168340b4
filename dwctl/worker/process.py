"""A worker's life inside gunicorn: claims and duties start after the fork; at SIGTERM calls end or are given back before one deadline."""

from __future__ import annotations

import time
from typing import Any

import gevent
from gevent.event import Event

from dwctl import config
from dwctl.ai.gateway import Gateway
from dwctl.ai.process import rarely_collect_garbage
from dwctl.mail.sending import Sending
from dwctl.sources.syncing import Syncing
from dwctl.worker.claims import Claims
from dwctl.worker.duties import DutyRunner

_LOOK_EVERY_S = 0.1
_LAST_WRITES_S = 3.0


def start(worker: Any) -> None:
    """Called by gunicorn when the worker has loaded the application."""
    parts = worker.wsgi.extensions
    gateway: Gateway = parts["dwctl.gateway"]
    config.require_serving(gateway.settings)
    claims: Claims = parts["dwctl.claims"]
    duties: DutyRunner = parts["dwctl.duties"]
    syncing: Syncing = parts["dwctl.syncing"]
    sending: Sending = parts["dwctl.sending"]
    rarely_collect_garbage()
    claims.start()
    duties.listen(gateway.wakeups)
    syncing.start(gateway.wakeups)
    sending.start(gateway.wakeups)
    gateway.start()
    duties.start()
    worker.dwctl_drained = Event()
    gevent.spawn(_drain_at_the_end, worker, gateway, claims, duties, syncing, sending)


def stop(worker: Any) -> None:
    """Called by gunicorn when the worker ends: waits for the drain, then writes down what is left."""
    drained: Event | None = getattr(worker, "dwctl_drained", None)
    if drained is None:
        return
    gateway: Gateway = worker.wsgi.extensions["dwctl.gateway"]
    drained.wait(gateway.settings.shutdown.grace)
    gateway.stop(time.monotonic() + _LAST_WRITES_S)


def _drain_at_the_end(
    worker: Any,
    gateway: Gateway,
    claims: Claims,
    duties: DutyRunner,
    syncing: Syncing,
    sending: Sending,
) -> None:
    while worker.alive:
        gevent.sleep(_LOOK_EVERY_S)
    began = time.monotonic()
    gateway.drain()
    duties.stop()
    syncing.stop()
    sending.stop()
    claims.drain(began + gateway.settings.shutdown.grace - 2 * _LAST_WRITES_S)
    worker.dwctl_drained.set()
