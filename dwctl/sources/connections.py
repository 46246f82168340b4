"""An account's connections. The credential of a deleted one is gone at once; what was made of its files stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dwctl.access import ownership
from dwctl.access.caller import Caller
from dwctl.config import Settings
from dwctl.errors import NotFound
from dwctl.identity import users
from dwctl.sources import sealing
from dwctl.sources.provider import Source
from dwctl.sources.providers import open_source
from dwctl.sources.tables import SourceConnection

CHANNEL = "dwctl_sources"
"""Notified with a synchronisation's id when there is something to do, with a connection's when it is deleted."""


def create(
    session: Session, settings: Settings, fields: Mapping[str, Any], caller: Caller
) -> SourceConnection:
    """Keep a connection for the caller's account; nothing is contacted. Raises Invalid where nothing can be sealed."""
    made = SourceConnection(
        owner_id=caller.owner_id,
        created_by=caller.user_id,
        kind="source",
        provider=fields["provider"],
        name=fields["name"],
        config_sealed=sealing.seal(fields["config"], settings),
    )
    session.add(made)
    session.flush()
    return made


def listed(session: Session, caller: Caller) -> Sequence[SourceConnection]:
    """Those of the account for which the caller acts, newest first."""
    return session.scalars(
        select(SourceConnection)
        .where(SourceConnection.owner_id == caller.owner_id, SourceConnection.deleted_at.is_(None))
        .order_by(SourceConnection.created_at.desc(), SourceConnection.id.desc())
    ).all()


def load(session: Session, caller: Caller, id: UUID) -> SourceConnection:
    """One of the caller's own, or of their active organisation. To others, whatever their role, it does not exist: NotFound."""
    found = session.get(SourceConnection, id)
    mine = found is not None and str(found.owner_id) in ownership.owners_of(caller)
    if found is None or found.deleted_at is not None or not mine:
        raise NotFound(f"Connection with ID {id} not found")
    return found


def delete(session: Session, connection: SourceConnection) -> None:
    """Forget its credential and stop what it runs; a duty marks its synchronisations as deleted."""
    connection.deleted_at = func.now()
    connection.updated_at = func.now()
    connection.config_sealed = None
    session.flush()
    session.execute(select(func.pg_notify(CHANNEL, str(connection.id))))


@users.before_deletion
def delete_all(session: Session, account_id: UUID) -> None:
    """An account that is deleted leaves no credential behind, and its synchronisations stop."""
    living = (SourceConnection.owner_id == account_id) & SourceConnection.deleted_at.is_(None)
    for connection in session.scalars(select(SourceConnection).where(living).with_for_update()):
        delete(session, connection)


def config_of(connection: SourceConnection, settings: Settings) -> dict[str, Any]:
    """What the connection was made with. Raises Undecryptable."""
    return sealing.unseal(connection.config_sealed or "", settings)


def open_connection(connection: SourceConnection, settings: Settings) -> Source:
    """Its source, not yet called. Raises SourceRefused, Undecryptable."""
    return open_source(connection.provider, config_of(connection, settings), settings)
