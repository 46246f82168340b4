"""What a fault while writing says: of the database, of this moment, or of the records. Pure.

It is the connection and the SQLSTATE that say it, never an exception's class: psycopg raises OperationalError for an index entry that is
too long as for a server that is gone.
"""

from __future__ import annotations

from enum import Enum

# 25006: it is read-only, as the one is that a fail-over leaves behind, or that a provider has made so for want of disk.
_AWAY = ("08", "53", "57", "25006")
# Lock not available, deadlock, serialisation: somebody else was in the way.
_BUSY = ("55P03", "40P01", "40001")


class Fault(Enum):
    """Whom a fault concerns."""

    AWAY = "away"
    """The database cannot be reached, or takes nothing now: connection, resources, shutdown, time-out."""
    BUSY = "busy"
    """A lock was not to be had. Nothing was written, and the same may succeed in a moment."""
    RECORDS = "records"
    """Everything else: at least one of the records is not to the database's liking."""


def judge(sqlstate: str | None, *, connected: bool) -> Fault:
    """`connected`: the connection has survived. `sqlstate` None: the fault did not come from the server."""
    if sqlstate in _BUSY:
        return Fault.BUSY
    if not connected or (sqlstate or "").startswith(_AWAY):
        return Fault.AWAY
    return Fault.RECORDS
