"""How psycopg waits for the server: on a watcher of gevent's loop.

By itself it calls `select.poll`, as gevent has patched it: an object, a registration and a time-out each tenth of a second, for each statement.
That was a quarter of what a call alone in its process costs there. What is left out is psycopg's look for interrupts: under gevent a
kill reaches whoever waits, and a connection that breaks wakes its socket (`tcp_user_timeout`).

A server that is there and silent breaks nothing: its system acknowledges what is sent to it. Whoever must not wait for one for long says so
(`give_up_after`); then the connection is cut, which ends the statement as any other break of it does.

Where whoever waits is killed, or out of time, the statement is not over, and the connection is good for nothing any more: it is closed at once.
psycopg leaves it open, so that tidying up behind a kill would fail with "another command is already in progress", or take the kill's place.
"""

from __future__ import annotations

import os
import socket
from contextvars import ContextVar
from time import monotonic
from typing import Any, TypeVar

import psycopg
from gevent import get_hub, monkey
from psycopg import waiting
from psycopg.abc import PQGen
from psycopg.waiting import Ready, Wait

T = TypeVar("T")

_EVENTS = {Wait.R: 1, Wait.W: 2, Wait.RW: 3}
_MOMENT_S = 0.5
"""What each wait has that begins when all patience is used up: most answers are there before it."""
_GIVES_UP_AT: ContextVar[float | None] = ContextVar("dwctl_waits_give_up_at", default=None)
_READY = {Wait.R: Ready.R, Wait.W: Ready.W, Wait.RW: Ready.RW}


def install() -> None:
    """Have psycopg wait like this wherever gevent has patched."""
    if monkey.is_module_patched("select"):
        waiting.wait = wait
        psycopg.Connection.wait = _wait_or_close  # type: ignore[assignment,method-assign]


def give_up_after(seconds: float | None) -> None:
    """Have no wait of this greenlet last longer than until then, but for a moment each; None: they last as long as they do."""
    _GIVES_UP_AT.set(None if seconds is None else monotonic() + seconds)


def has_given_up() -> bool:
    """Whether this greenlet waits for nothing any more."""
    gives_up_at = _GIVES_UP_AT.get()
    return gives_up_at is not None and monotonic() >= gives_up_at


def wait(gen: PQGen[T], fileno: int, interval: float = 0.0, timeout: float | None = None) -> T:
    """As `psycopg.waiting.wait`. For a state of RW both are told to be ready: reading too early finds nothing, and that is all."""
    if timeout is not None:
        return waiting.wait_poll(gen, fileno, interval, timeout)
    hub: Any = get_hub()
    try:
        state = next(gen)
        while True:
            watcher = hub.loop.io(fileno, _EVENTS[state])
            end = _cut_at_the_end(hub, fileno)
            try:
                hub.wait(watcher)
            finally:
                watcher.close()
                if end is not None:
                    end.close()
            state = gen.send(_READY[state])
    except StopIteration as over:
        found: T = over.value
        return found
    except OSError as error:
        raise psycopg.OperationalError("connection socket closed") from error


_wait_of_connection = psycopg.Connection.wait


def _wait_or_close(
    connection: psycopg.Connection[Any],
    gen: PQGen[T],
    interval: float = 0.0,
    timeout: float | None = None,
) -> T:
    """As `psycopg.Connection.wait`."""
    try:
        return _wait_of_connection(connection, gen, interval, timeout)
    except BaseException as error:
        if not isinstance(error, Exception):
            connection.pgconn.finish()
        raise


def _cut_at_the_end(hub: Any, fileno: int) -> Any:
    """A timer that cuts the connection when the greenlet gives up; None where it does not."""
    gives_up_at = _GIVES_UP_AT.get()
    if gives_up_at is None:
        return None
    timer = hub.loop.timer(max(gives_up_at - monotonic(), _MOMENT_S))
    timer.start(_cut, fileno)
    return timer


def _cut(fileno: int) -> None:
    # The descriptor is libpq's, which finds the end of the stream and closes it.
    with socket.socket(fileno=os.dup(fileno)) as connection:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
