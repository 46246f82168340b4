"""What a worker takes upon itself of a synchronisation: a listing, the reading of an object, the start of a batch.

A job is claimed by a row's `claim`; every change of its row names that claim, so a worker that has lost it changes nothing (ClaimLost).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from dwctl import sql
from dwctl.config import Settings
from dwctl.db import Connections
from dwctl.printable import printable

QUERIES = sql.load("dwctl.sources")
MOST_TRIES = 5
"""Of what may help to try again, where waiting has no other end."""
_LONGEST_REASON = 500


class ClaimLost(Exception):
    """The job is another worker's by now, or its connection was deleted."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A synchronisation whose objects are listed, from `listed_to` on."""

    id: UUID
    claim: UUID
    connection_id: UUID
    file_keys: list[str] | None
    force: bool
    listed_to: str | None
    attempts: int
    provider: str
    config_sealed: str


@dataclass(frozen=True, slots=True)
class Ingest:
    """An object that is read. file_id: of a file that an earlier try may have made."""

    id: UUID
    claim: UUID
    sync_id: UUID
    connection_id: UUID
    external_key: str
    external_last_modified: datetime
    external_size_bytes: int
    external_etag: str | None
    file_id: UUID | None
    attempts: int
    endpoint: str
    api_key_id: UUID | None
    owner_id: UUID
    provider: str
    config_sealed: str


@dataclass(frozen=True, slots=True)
class Activation:
    """A file that is run as the batch with this id."""

    id: UUID
    claim: UUID
    sync_id: UUID
    connection_id: UUID
    external_key: str
    file_id: UUID
    batch_id: UUID
    attempts: int
    endpoint: str
    completion_window: str
    any_window: bool
    api_key_id: UUID | None
    created_by: UUID
    connection_name: str
    owner_id: UUID


Job = Listing | Ingest | Activation


def wait_s(settings: Settings, attempts: int) -> float:
    """Seconds before the try after `attempts` failed ones."""
    sync = settings.connections.sync
    wait: float = sync.retry_wait * 2.0 ** min(attempts, 30)
    return min(wait, sync.retry_wait_max)


def reason(text: str) -> str:
    """A reason as it is kept: one line."""
    return printable(text, _LONGEST_REASON)


def change(connection: psycopg.Connection[Any], statement: str, job: Job, **values: Any) -> None:
    """Change the job's row. Raises ClaimLost."""
    given = {"id": job.id, "claim": job.claim, **values}
    if connection.execute(QUERIES[statement], given).rowcount == 0:
        raise ClaimLost


def count(connection: psycopg.Connection[Any], sync_id: UUID, **counts: int) -> None:
    """Add to a synchronisation's counters: ingested, failed, activated."""
    values: Mapping[str, Any] = {"ingested": 0, "failed": 0, "activated": 0, **counts}
    connection.execute(QUERIES["count_entry"], {"sync_id": sync_id, **values})


def put_off(
    connections: Connections, settings: Settings, job: Ingest | Activation, why: str
) -> None:
    """Try again later; the reason is shown meanwhile. Raises ClaimLost."""
    with connections.transaction() as connection:
        change(
            connection,
            "put_entry_off",
            job,
            error=reason(why),
            wait_s=wait_s(settings, job.attempts),
        )


def fail(
    connections: Connections,
    job: Ingest | Activation,
    why: str,
    *,
    invalid_lines: int | None = None,
    line_errors: Any = None,
) -> None:
    """The object has failed for good. Raises ClaimLost."""
    with connections.transaction() as connection:
        change(
            connection,
            "fail_entry",
            job,
            error=reason(why),
            invalid_lines=invalid_lines,
            line_errors=line_errors,
        )
        count(connection, job.sync_id, failed=1)
