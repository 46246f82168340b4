"""A gateway's life inside a gunicorn worker: started after the fork, told of SIGTERM at once, stopped before one deadline.

SIGTERM -> no new connections, held calls are told -> calls in flight go on -> what is left is stopped and written down -> goodbye
                                                    grace - _RESERVE_S                                                    grace
"""

from __future__ import annotations

import gc
import time
from typing import Any

import gevent

from dwctl import config
from dwctl.ai.gateway import Gateway

_LOOK_EVERY_S = 0.1
_FIRST_LOAD_S = 10.0
_RESERVE_S = 5.0
_LEAST_S = 1.0
_COLLECT_AFTER_OBJECTS = 20_000


def start(worker: Any) -> None:
    """Called by gunicorn when the worker has loaded the application."""
    gateway: Gateway = worker.wsgi.extensions["dwctl.gateway"]
    config.require_serving(gateway.settings)
    rarely_collect_garbage()
    gateway.start()
    # Connections are accepted after this: nobody should meet a process that knows no keys yet.
    gateway.snapshot.wait_loaded(_FIRST_LOAD_S)
    gevent.spawn(_watch, worker, gateway)


def rarely_collect_garbage() -> None:
    """A call makes hundreds of objects, and no cycles to speak of: looking for those after each 700 costs more than it finds.

    What is there by now stays, and is not looked at any more.
    """
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER_OBJECTS, 20, 20)


def stop(worker: Any) -> None:
    """Called by gunicorn when the worker's requests have ended, or their grace has. Background calls may still run."""
    app = getattr(worker, "wsgi", None)
    gateway: Gateway | None = app.extensions.get("dwctl.gateway") if app is not None else None
    if gateway is None or not gateway.started:
        return
    deadline = _deadline(worker, gateway)
    gateway.drain()
    gateway.end_calls(deadline - _RESERVE_S)
    gateway.stop(max(deadline, time.monotonic() + _LEAST_S))


def _watch(worker: Any, gateway: Gateway) -> None:
    """Gunicorn only stops accepting; those who wait inside must be told, so that they can answer before the grace is over, and
    requests that would outlast it must end while they can still be written down.
    """
    while worker.alive:
        gevent.sleep(_LOOK_EVERY_S)
    worker.dwctl_terminated_at = time.monotonic()
    gateway.drain()
    # The process ends before that when nobody is left; calls may still begin whose bodies are on their way.
    ends = _deadline(worker, gateway) - _RESERVE_S
    gevent.sleep(max(0.0, ends - time.monotonic()))
    gateway.end_calls(ends)
    # Whoever is still there waits for something else than an upstream: a caller that does not read, or does not send.
    worker.end_requests()


def _deadline(worker: Any, gateway: Gateway) -> float:
    began = getattr(worker, "dwctl_terminated_at", None)
    if began is None:
        began = worker.dwctl_terminated_at = time.monotonic()
    return float(began + gateway.settings.shutdown.grace)
