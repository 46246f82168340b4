"""Connections to the database that wait to be borrowed.

What has just been used is taken first, and is asked whether it is still there only where that is in doubt: where it has rested, or where its server
has something to say, as one that closes it has. A question costs a round trip, and a page borrows several times.
"""

from __future__ import annotations

import select
from time import monotonic
from typing import Any

import psycopg
from gevent import monkey
from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, QueuePool

RESTED_S = 1.0
"""After so long what happened to a connection may have been silent: a router or firewall that forgot it sends no end."""

_RETURNED = "dwctl_returned_at"


class Pool(QueuePool):
    """SQLAlchemy's, which counts how often nobody gave a connection back in time."""

    timeouts = 0

    def connect(self) -> PoolProxiedConnection:
        """A connection. Raises what the pool's own raises."""
        try:
            return super().connect()
        except PoolTimeout:
            self.timeouts += 1
            raise


@event.listens_for(Pool, "checkin")
def _note_return(_connection: Any, entry: ConnectionPoolEntry) -> None:
    # (The entry forgets it when it connects anew.)
    entry.info[_RETURNED] = monotonic()


@event.listens_for(Pool, "checkout")
def _insist_on_living(connection: Any, entry: ConnectionPoolEntry, _borrowed: Any) -> None:
    """Have the pool connect anew (all that wait there are doubted then) instead of handing out a connection that has ended."""
    returned_at = entry.info.get(_RETURNED)
    if returned_at is None:
        return
    is_in_doubt = monotonic() - returned_at >= RESTED_S or _is_readable(connection)
    if is_in_doubt and not _answers(connection):
        raise InvalidatePoolError


def _is_readable(connection: psycopg.Connection[Any]) -> bool:
    if connection.closed:
        return True
    # Not gevent's, which would have the loop turn.
    poll = monkey.get_original("select", "poll")()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _answers(connection: psycopg.Connection[Any]) -> bool:
    try:
        connection.autocommit = True
        connection.execute(";")
        connection.autocommit = False
    except psycopg.Error:
        return False
    return True
