"""One LISTEN connection a process: notifications wake what waits in it.

Lost notifications are normal: after each (re)connect every subscriber's `on_gap` runs once, and subscribers sweep by themselves now and
then. At the start the process sends itself a notification; where it does not come back (a transaction-pooling proxy in between) that is
said loudly and `delivers` stays False: everything still works by sweeping, only later. `database.direct_url` is the way around.
"""

from __future__ import annotations

import logging
import select
from collections.abc import Callable
from typing import Any

import gevent
import psycopg
from psycopg import sql

from dwctl.clock import uuid7
from dwctl.config import Settings
from dwctl.db import connect

log = logging.getLogger(__name__)

_SELF_TEST = "dwctl_self_test"
_RECONNECT_S = 0.5
_PROBE_S = 30.0
_SELF_TEST_S = 5.0

Handler = Callable[[str], None]


class Wakeups:
    """Dispatches notifications to handlers, in its own greenlet: a handler must be quick and must not raise."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._handlers: dict[str, list[Handler]] = {}
        self._on_gap: list[Callable[[], None]] = []
        self._greenlet: gevent.Greenlet | None = None
        self._token = uuid7().hex
        self.delivers = False
        self.connected = False

    def subscribe(
        self, channel: str, handler: Handler, on_gap: Callable[[], None] | None = None
    ) -> None:
        """Call `handler(payload)` for each notification; `on_gap()` whenever some may have been missed. Before `start`."""
        self._handlers.setdefault(channel, []).append(handler)
        if on_gap:
            self._on_gap.append(on_gap)

    def start(self) -> None:
        """Listen from now until `stop`."""
        self._handlers.setdefault(_SELF_TEST, []).append(self._heard_itself)
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop listening."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def _run(self) -> None:
        while True:
            try:
                with connect(self._settings, direct=True) as connection:
                    self._listen(connection)
            except (psycopg.Error, OSError) as error:
                if self.connected:
                    log.warning("listening stopped", extra={"reason": type(error).__name__})
            except Exception:
                # A handler that raised must not leave the process deaf.
                log.exception("listening stopped")
            self.connected = False
            gevent.sleep(_RECONNECT_S)

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        # What arrives while a statement runs is taken by psycopg, and given to its handlers only.
        connection.add_notify_handler(lambda notify: self._handle(notify.channel, notify.payload))
        for channel in self._handlers:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        self.connected = True
        for on_gap in self._on_gap:
            on_gap()
        connection.execute("SELECT pg_notify(%s, %s)", (_SELF_TEST, self._token))
        warning = gevent.spawn_later(_SELF_TEST_S, self._warn_unless_heard)
        try:
            self._dispatch_for_ever(connection)
        finally:
            warning.kill()

    def _dispatch_for_ever(self, connection: psycopg.Connection[Any]) -> None:
        pgconn = connection.pgconn
        while True:
            self._dispatch(pgconn)
            readable, _, _ = select.select([pgconn.socket], [], [], _PROBE_S)
            if readable:
                pgconn.consume_input()
            else:
                # A peer that vanished without a word is noticed here, not at the next change.
                connection.execute("SELECT 1")

    def _dispatch(self, pgconn: psycopg.pq.abc.PGconn) -> None:
        while notify := pgconn.notifies():
            self._handle(notify.relname.decode(), notify.extra.decode())

    def _handle(self, channel: str, payload: str) -> None:
        for handler in self._handlers.get(channel, ()):
            handler(payload)

    def _heard_itself(self, payload: str) -> None:
        if payload == self._token:
            self.delivers = True

    def _warn_unless_heard(self) -> None:
        if not self.delivers:
            log.error(
                "notifications do not arrive",
                extra={"do": "set database.direct_url to an address without a transaction pooler"},
            )
