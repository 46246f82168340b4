"""A gateway's life inside a gunicorn worker: started after the fork, told of SIGTERM at once, stopped before one deadline."""

from __future__ import annotations

import time
from typing import Any

import gevent

from dwctl import config
from dwctl.ai.gateway import Gateway

_LOOK_EVERY_S = 0.1
_FIRST_LOAD_S = 10.0
_AFTER_REQUESTS_S = 5.0
_LAST_ANSWERS_S = 1.0


def start(worker: Any) -> None:
    """Called by gunicorn when the worker has loaded the application."""
    gateway: Gateway = worker.wsgi.extensions["dwctl.gateway"]
    config.require_serving(gateway.settings)
    gateway.start()
    # Connections are accepted after this: nobody should meet a process that knows no keys yet.
    gateway.snapshot.wait_loaded(_FIRST_LOAD_S)
    gevent.spawn(_watch, worker, gateway)


def stop(worker: Any) -> None:
    """Called by gunicorn when the worker's requests have ended, or their grace has."""
    app = getattr(worker, "wsgi", None)
    gateway: Gateway | None = app.extensions.get("dwctl.gateway") if app is not None else None
    if gateway is None or not gateway.started:
        return
    began = getattr(worker, "dwctl_terminated_at", time.monotonic())
    grace = gateway.settings.shutdown.grace
    gateway.stop(max(1.0, min(_AFTER_REQUESTS_S, began + grace - time.monotonic())))


def _watch(worker: Any, gateway: Gateway) -> None:
    """Gunicorn only stops accepting; those who wait inside must be told, so that they can answer before the grace is over, and
    requests that would outlast it must end while they can still be written down.
    """
    while worker.alive:
        gevent.sleep(_LOOK_EVERY_S)
    worker.dwctl_terminated_at = time.monotonic()
    gateway.drain()
    gevent.sleep(max(0.0, gateway.settings.shutdown.grace - _AFTER_REQUESTS_S - _LAST_ANSWERS_S))
    worker.end_requests()
