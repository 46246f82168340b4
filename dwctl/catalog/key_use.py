"""When API keys were last used: noted in memory for each call, written down now and then.

What a process that is killed had not written down is lost: `last_used` is for finding keys that nobody needs, not for accounting.
"""

from __future__ import annotations

import logging
from uuid import UUID

import gevent
import psycopg

from dwctl import sql
from dwctl.db import Connections, DatabaseAway

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.catalog")
_AT_ONCE = 500
_REST_S = 0.01
_LAST_WORDS_S = 1.0


class KeyUse:
    """The keys that calls have come with since the last time they were written down."""

    def __init__(self, connections: Connections, interval_s: float) -> None:
        self._connections = connections
        self._interval_s = interval_s
        self._used: set[UUID] = set()
        self._greenlet: gevent.Greenlet | None = None

    def note(self, key_id: UUID) -> None:
        """A call came with this key."""
        self._used.add(key_id)

    def start(self) -> None:
        """Begin to write down."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Write down what is left, if that takes no time."""
        if self._greenlet is None:
            return
        self._greenlet.kill()
        with gevent.Timeout(_LAST_WORDS_S, False):
            self.write()

    def write(self) -> None:
        """Write down what was noted, some keys at a time. What is locked by somebody is left out: it will be used again."""
        used, self._used = self._used, set()
        while used:
            some = [used.pop() for _ in range(min(_AT_ONCE, len(used)))]
            try:
                with self._connections.transaction() as connection:
                    connection.execute(_QUERIES["note_key_use"], {"ids": some})
            except (DatabaseAway, psycopg.Error) as error:
                log.warning("use of keys not noted", extra={"reason": type(error).__name__})
                self._used.update(some, used)
                return
            gevent.sleep(_REST_S)

    def _run(self) -> None:
        while True:
            gevent.sleep(self._interval_s)
            self.write()
