"""Calls as they are written down, in the order of that: for whoever watches.

Rows become visible when their transaction commits, a moment after the time that they bear, and those of queued calls may have arrived days before. So
a look begins at the *horizon* of the one before: the moment before which nothing could still be under way then. What was seen behind it is remembered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from dwctl.db import Connections
from dwctl.request_log.filters import QUERIES, Conditions
from dwctl.request_log.pages import Place, Row, entries

_PATIENCE_S = 30.0
"""Recorders give up a transaction well before; a dump that lasts for hours is not waited for."""
_OLDEST = timedelta(days=8)
"""Above the longest completion window: a call that is written down now arrived no longer ago."""
_AHEAD = timedelta(days=1)
_AT_ONCE = 5_000
_ENTRIES_AT_ONCE = 100
OF_ACCOUNTS = frozenset({"owner", "user_id"})
"""The conditions that a call's account alone decides."""


class Written(NamedTuple):
    """A call that was written down: where it stands in the log, when that was, its number, and whose it is."""

    place: Place
    created_at: datetime
    id: int
    user_id: UUID | None = None


class Lookout:
    """Sees every call once, from its first look on, or from a horizon of an earlier lookout (then some may have been seen before)."""

    def __init__(self, since: datetime | None = None, *, owner: UUID | None = None) -> None:
        """`owner`: whose calls alone."""
        self._owner = owner
        self.since = since
        """The horizon: what was written before it has been seen."""
        self._seen: frozenset[Place] = frozenset()

    def look(self, connections: Connections) -> list[Written]:
        """What was written since the last look; nothing at the first. Raises DatabaseAway, and then the next look brings it."""
        with connections.transaction() as connection:
            # Before the rows are read: whatever is under way now began after it.
            horizon = _horizon(connection)
            found = _written_since(connection, self.since or horizon, self._owner)
        fresh = [one for one in found if one.place not in self._seen]
        is_first, self.since = self.since is None, horizon
        self._seen = frozenset(one.place for one in found if one.created_at >= horizon)
        return [] if is_first else fresh


def concerning(written: Sequence[Written], narrow: Conditions) -> Sequence[Written]:
    """Those of the account that is asked for: most calls are others', and nothing is asked about them."""
    wanted = {id for name in OF_ACCOUNTS if (id := narrow.values.get(name)) is not None}
    return [one for one in written if wanted <= {one.user_id}] if wanted else written


def fitting(
    connections: Connections, written: Sequence[Written], narrow: Conditions
) -> Iterator[list[Row]]:
    """The entries of those that fit, in this order, some at a time; nothing is held in between."""
    written = concerning(written, narrow)
    for begin in range(0, len(written), _ENTRIES_AT_ONCE):
        places = [one.place for one in written[begin : begin + _ENTRIES_AT_ONCE]]
        with connections.transaction() as connection:
            found = entries(connection, places, narrow)
        yield found


def _horizon(connection: psycopg.Connection[Any]) -> datetime:
    row = connection.execute(QUERIES["horizon"], {"patience_s": _PATIENCE_S}).fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


def _written_since(
    connection: psycopg.Connection[Any], since: datetime, owner: UUID | None
) -> list[Written]:
    # Whole days: then partitions alone bound the arrival, and the coarse index by the time of writing has the rest to itself.
    day = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    values: dict[str, Any] = {"first": day - _OLDEST, "last": day + 2 * _AHEAD, "owner": owner, "most": _AT_ONCE}  # fmt: skip
    found: list[Written] = []
    last = (since, -1)
    while True:
        at, id = last
        rows = connection.execute(QUERIES["written"], values | {"at": at, "id": id}, prepare=False).fetchall()  # fmt: skip
        found += [Written(Place(row[0], row[1]), row[2], row[3], row[4]) for row in rows]
        if len(rows) < _AT_ONCE:
            return found
        last = (found[-1].created_at, found[-1].id)
