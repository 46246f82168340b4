"""How psycopg waits for the server: on a watcher of gevent's loop.

By itself it calls `select.poll`, as gevent has patched it: an object, a registration and a time-out each tenth of a second, for each statement.
That was a quarter of what a call alone in its process costs there. What is left out is psycopg's look for interrupts: under gevent a
kill reaches whoever waits, and a connection that breaks wakes its socket (`tcp_user_timeout`).
"""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from gevent import get_hub, monkey
from psycopg import waiting
from psycopg.abc import PQGen
from psycopg.waiting import Ready, Wait

T = TypeVar("T")

_EVENTS = {Wait.R: 1, Wait.W: 2, Wait.RW: 3}
_READY = {Wait.R: Ready.R, Wait.W: Ready.W, Wait.RW: Ready.RW}


def install() -> None:
    """Have psycopg wait like this wherever gevent has patched."""
    if monkey.is_module_patched("select"):
        waiting.wait = wait


def wait(gen: PQGen[T], fileno: int, interval: float = 0.0, timeout: float | None = None) -> T:
    """As `psycopg.waiting.wait`. For a state of RW both are told to be ready: reading too early finds nothing, and that is all."""
    if timeout is not None:
        return waiting.wait_poll(gen, fileno, interval, timeout)
    hub: Any = get_hub()
    try:
        state = next(gen)
        while True:
            watcher = hub.loop.io(fileno, _EVENTS[state])
            try:
                hub.wait(watcher)
            finally:
                watcher.close()
            state = gen.send(_READY[state])
    except StopIteration as over:
        found: T = over.value
        return found
    except OSError as error:
        raise psycopg.OperationalError("connection socket closed") from error
