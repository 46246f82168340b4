"""One LISTEN connection a process: notifications wake what waits in it.

Lost notifications are normal: after each (re)connect every subscriber's `on_gap` runs once, and subscribers sweep by themselves now and
then. At the start and every half minute the process sends itself a notification over another connection. (A transaction pooler gives
LISTEN and NOTIFY of one client the same server connection, so that one connection alone hears itself there, and nobody else.) Where it does
not come back that is said loudly, once, and `delivers` stays False: everything still works by sweeping at the short interval.
`database.direct_url` is the way around.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket
import psycopg
from gevent.event import Event
from psycopg import sql

from dwctl.clock import uuid7
from dwctl.config import Settings
from dwctl.db import connect
from dwctl.pace import Pace

log = logging.getLogger(__name__)

_SELF_TEST = "dwctl_self_test"
_RECONNECT_S = 0.5
_PROBE_S = 30.0

Handler = Callable[[str], None]


class Wakeups:
    """Dispatches notifications to handlers, in its own greenlet: a handler must be quick and must not raise."""

    def __init__(
        self, settings: Settings, *, test_every_s: float = 30.0, test_patience_s: float = 5.0
    ) -> None:
        """`test_patience_s`: how long a notification to itself may take until it counts as lost."""
        self.connected = False
        """Whether it listens now."""
        self.delivers = False
        """Whether notifications of others arrive, as far as is known: it listens, and has heard itself."""
        self.deaf = False
        """Whether the last one to itself was lost though it listens."""
        self._settings = settings
        self._test_every_s = test_every_s
        self._test_patience_s = test_patience_s
        self._handlers: dict[str, list[Handler]] = {}
        self._on_gap: list[Callable[[], None]] = []
        self._greenlets: list[gevent.Greenlet] = []
        self._test_due = Event()
        self._token = ""
        self._heard = Event()

    def subscribe(
        self, channel: str, handler: Handler, on_gap: Callable[[], None] | None = None
    ) -> None:
        """Call `handler(payload)` for each notification; `on_gap()` whenever some may have been missed. Before `start`."""
        self._handlers.setdefault(channel, []).append(handler)
        if on_gap:
            self._on_gap.append(on_gap)

    def start(self) -> None:
        """Listen from now until `stop`."""
        self._handlers.setdefault(_SELF_TEST, []).append(self._hear_itself)
        self._greenlets = [gevent.spawn(self._run), gevent.spawn(self._test_for_ever)]

    def stop(self) -> None:
        """Stop listening."""
        gevent.killall(self._greenlets)

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
            self.connected = self.delivers = False
            gevent.sleep(_RECONNECT_S)

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        # What arrives while a statement runs is taken by psycopg, and given to its handlers only.
        connection.add_notify_handler(lambda notify: self._handle(notify.channel, notify.payload))
        for channel in self._handlers:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        self.connected = True
        self._make_up()
        self._test_due.set()
        pgconn, pace = connection.pgconn, Pace()
        while True:
            while notify := pgconn.notifies():
                self._handle(notify.relname.decode(), notify.extra.decode())
                pace()
            if _wait_readable(pgconn.socket, _PROBE_S):
                pgconn.consume_input()
            else:
                # A peer that vanished without a word is noticed here, not at the next change.
                connection.execute("SELECT 1")

    def _make_up(self) -> None:
        for on_gap in self._on_gap:
            on_gap()

    def _handle(self, channel: str, payload: str) -> None:
        for handler in self._handlers.get(channel, ()):
            handler(payload)

    def _test_for_ever(self) -> None:
        while True:
            self._test_due.wait(self._test_every_s)
            self._test_due.clear()
            if self.connected:
                self._test()

    def _test(self) -> None:
        self._token = uuid7().hex
        self._heard.clear()
        try:
            with gevent.Timeout(2 * self._test_patience_s), connect(self._settings) as connection:
                connection.execute("SELECT pg_notify(%s, %s)", (_SELF_TEST, self._token))
        except (psycopg.Error, OSError, gevent.Timeout):
            return  # the database is away, which says nothing about notifications
        heard = self._heard.wait(self._test_patience_s)
        if self.connected:
            self._judge(heard=heard)

    def _judge(self, *, heard: bool) -> None:
        was_deaf, self.deaf = self.deaf, not heard
        self.delivers = heard
        if self.deaf and not was_deaf:
            log.error(
                "notifications do not arrive",
                extra={"do": "set database.direct_url to an address without a transaction pooler"},
            )
        if was_deaf and heard:
            log.warning("notifications arrive again")
            self._make_up()

    def _hear_itself(self, payload: str) -> None:
        if payload == self._token:
            self._heard.set()


def _wait_readable(descriptor: int, patience_s: float) -> bool:
    """Whether there is something to read in time. `select` would refuse descriptors above 1,023, which are normal here."""
    try:
        gevent.socket.wait_read(descriptor, timeout=patience_s)
    except TimeoutError:
        return False
    return True
