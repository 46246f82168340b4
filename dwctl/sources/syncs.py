"""Synchronisations as their account sees them: asked for, listed, looked into. They are carried out in workers (`syncing`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from dwctl.batches import creation
from dwctl.config import Settings
from dwctl.errors import DwctlError, Invalid, NotFound
from dwctl.identity import api_keys
from dwctl.sources import connections
from dwctl.sources.tables import (
    EntryStatus,
    SourceConnection,
    SyncEntry,
    SyncOperation,
    SyncStatus,
)

_OPEN = (SyncStatus.PENDING, SyncStatus.LISTING, SyncStatus.INGESTING)
_TRY_AGAIN_S = 60


class TooManySyncs(DwctlError):
    """Too many synchronisations are under way. Please retry when one of them has ended."""

    code = "too_many_synchronisations"
    status = 429
    retryable = True


@dataclass(frozen=True, slots=True)
class Entries:
    """Some objects of a synchronisation, and behind which key to go on."""

    data: Sequence[SyncEntry]
    next_cursor: str | None

    @property
    def has_more(self) -> bool:
        """Whether there are more."""
        return self.next_cursor is not None


def request(
    session: Session,
    settings: Settings,
    connection: SourceConnection,
    wanted: Mapping[str, Any],
    *,
    created_by: UUID,
    any_window: bool,
) -> SyncOperation:
    """Ask for a synchronisation; a worker begins when this is committed.

    Raises: Invalid for an endpoint or a window that batches cannot have, or a key outside of the connection's prefix; TooManySyncs.
    """
    defaults = settings.connections.sync
    endpoint = wanted.get("endpoint") or defaults.default_endpoint
    window = wanted.get("completion_window") or defaults.default_completion_window
    creation.check_terms(settings.batches, endpoint, window, any_window=any_window)
    keys = list(dict.fromkeys(wanted.get("file_keys") or ())) or None
    _check_keys(keys or (), connections.config_of(connection, settings).get("prefix") or "")
    _check_open(session, connection.owner_id, defaults.max_open)
    made = SyncOperation(
        connection_id=connection.id,
        created_by=created_by,
        strategy=wanted["strategy"],
        file_keys=keys,
        force=wanted["force"],
        endpoint=endpoint,
        completion_window=window,
        any_window=any_window,
        api_key_id=api_keys.hidden_key(session, connection.owner_id, created_by, "batch").id,
    )
    session.add(made)
    session.flush()
    session.execute(select(func.pg_notify(connections.CHANNEL, str(made.id))))
    return made


def listed(session: Session, connection: SourceConnection, limit: int) -> Sequence[SyncOperation]:
    """A connection's synchronisations, newest first."""
    return session.scalars(
        select(SyncOperation)
        .where(SyncOperation.connection_id == connection.id)
        .order_by(SyncOperation.created_at.desc(), SyncOperation.id.desc())
        .limit(limit)
    ).all()


def load(session: Session, connection: SourceConnection, id: UUID) -> SyncOperation:
    """One of a connection's. Raises NotFound."""
    found = session.get(SyncOperation, id)
    if found is None or found.connection_id != connection.id:
        raise NotFound(f"Sync with ID {id} not found")
    return found


def entries(
    session: Session, sync: SyncOperation, after: str | None, status: str | None, limit: int
) -> Entries:
    """A synchronisation's objects behind a key, in the order of their keys."""
    query = select(SyncEntry).where(SyncEntry.sync_id == sync.id)
    if after is not None:
        query = query.where(SyncEntry.external_key > after)
    if status is not None:
        query = query.where(SyncEntry.status == status)
    rows = session.scalars(query.order_by(SyncEntry.external_key).limit(limit + 1)).all()
    more = len(rows) > limit
    return Entries(rows[:limit], rows[limit - 1].external_key if more else None)


def synced_keys(session: Session, connection: SourceConnection, limit: int) -> Sequence[Any]:
    """The objects that are batches, by key, each as it was synchronised last."""
    return session.execute(
        select(SyncEntry.external_key, SyncEntry.external_last_modified)
        .ext(distinct_on(SyncEntry.external_key))
        .where(
            SyncEntry.connection_id == connection.id,
            SyncEntry.status.not_in((EntryStatus.SKIPPED, EntryStatus.DELETED)),
            SyncEntry.status == EntryStatus.ACTIVATED,
        )
        .order_by(SyncEntry.external_key, SyncEntry.external_last_modified.desc())
        .limit(limit)
    ).all()


def _check_keys(keys: Sequence[str], prefix: str) -> None:
    for number, key in enumerate(keys):
        if not key.startswith(prefix):
            raise Invalid(
                f"file_keys[{number}] is outside of the connection's prefix", param="file_keys"
            )


def _check_open(session: Session, owner_id: UUID, most: int) -> None:
    running = session.scalar(
        select(func.count())
        .select_from(SyncOperation)
        .join(SourceConnection, SourceConnection.id == SyncOperation.connection_id)
        .where(SourceConnection.owner_id == owner_id, SyncOperation.status.in_(_OPEN))
    )
    if most and (running or 0) >= most:
        raise TooManySyncs(retry_after_s=_TRY_AGAIN_S)
