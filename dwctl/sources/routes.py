"""`/connections`: an account's sources of files, and their synchronisations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.db import db
from dwctl.errors import Invalid
from dwctl.sources import browsing, connections, syncs
from dwctl.sources.browsing import Found
from dwctl.sources.provider import Source, SourceError
from dwctl.sources.schemas import (
    ConnectionCreate,
    ConnectionListSchema,
    ConnectionQuery,
    ConnectionSchema,
    EntriesQuery,
    EntriesSchema,
    ExternalFilesSchema,
    FilesQuery,
    Limited,
    SyncCreate,
    SyncedKeySchema,
    SyncedKeysQuery,
    SyncListSchema,
    SyncSchema,
    TestedSchema,
)
from dwctl.sources.syncs import Entries
from dwctl.sources.tables import SourceConnection, SyncOperation
from dwctl.web import current, described
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("connections", __name__, description="External sources of files.")
guard.protect(blueprint)


@blueprint.route("/connections", methods=["POST"])
@guard.requires_own(Resource.CONNECTIONS, Operation.CREATE)
@blueprint.arguments(ConnectionCreate)
@blueprint.response(201, ConnectionSchema)
def create_connection(new: dict[str, Any]) -> SourceConnection:
    """Keep a connection. Nothing is contacted: `POST /connections/{id}/test` does that."""
    made = connections.create(db.session(), current.settings(), new, guard.identify())
    db.session.commit()
    return made


@blueprint.route("/connections", methods=["GET"])
@guard.requires_own(Resource.CONNECTIONS, Operation.READ)
@blueprint.arguments(ConnectionQuery, location="query")
@blueprint.response(200, ConnectionListSchema)
def list_connections(query: dict[str, Any]) -> dict[str, Any]:
    """List the connections of the account for which the caller acts, newest first."""
    kind = query.get("kind")
    if kind not in (None, "source"):
        raise Invalid("kind: must be source", param="kind")
    return {"data": connections.listed(db.session(), guard.identify())}


@blueprint.route("/connections/<id:id>", methods=["GET"])
@guard.requires_own(Resource.CONNECTIONS, Operation.READ)
@blueprint.response(200, ConnectionSchema)
def get_connection(id: UUID) -> SourceConnection:
    """Read one connection."""
    return _connection(id)


@blueprint.route("/connections/<id:id>", methods=["DELETE"])
@guard.requires_own(Resource.CONNECTIONS, Operation.DELETE)
@blueprint.response(204)
def delete_connection(id: UUID) -> None:
    """Delete a connection with its credential and synchronisations. Files and batches stay."""
    connections.delete(db.session(), _connection(id))
    db.session.commit()


@blueprint.route("/connections/<id:id>/test", methods=["POST"])
@guard.requires_own(Resource.CONNECTIONS, Operation.READ)
@blueprint.response(200, TestedSchema)
def try_connection(id: UUID) -> dict[str, Any]:
    """Say whether the source can be read, and why not."""
    connection = _connection(id)
    provider = connection.provider
    try:
        with _opened(connection) as source:
            return {"ok": True, "provider": provider, "message": source.test()}
    except SourceError as error:
        return {"ok": False, "provider": provider, "message": error.message}


@blueprint.route("/connections/<id:id>/files", methods=["GET"])
@guard.requires_own(Resource.CONNECTIONS, Operation.READ)
@blueprint.arguments(FilesQuery, location="query")
@blueprint.response(200, ExternalFilesSchema)
@described.says(refusals=(502,))
def list_files_of_connection(query: dict[str, Any], id: UUID) -> Found:
    """List the source's files (`.jsonl`, `.jsonl.gz`), as a synchronisation of everything would find them."""
    with _opened(_connection(id)) as source:
        return browsing.find_files(source, query.get("cursor"), query.get("search"), query["limit"])


@blueprint.route("/connections/<id:id>/synced-keys", methods=["GET"])
@guard.requires_own(Resource.CONNECTIONS, Operation.READ)
@blueprint.arguments(SyncedKeysQuery, location="query")
@blueprint.response(200, SyncedKeySchema(many=True))
def list_synced_keys(query: dict[str, Any], id: UUID) -> Sequence[Any]:
    """List the source's files that are batches."""
    return syncs.synced_keys(db.session(), _connection(id), query["limit"])


@blueprint.route("/connections/<id:id>/sync", methods=["POST"])
@guard.requires_own(Resource.CONNECTIONS, Operation.CREATE)
@blueprint.arguments(SyncCreate)
@blueprint.response(202, SyncSchema)
@described.says(refusals=(429,))
def start_sync(wanted: dict[str, Any], id: UUID) -> SyncOperation:
    """Have the source's files run as batches."""
    caller = guard.identify()
    made = syncs.request(
        db.session(),
        current.settings(),
        _connection(id),
        wanted,
        created_by=caller.user_id,
        any_window=may_all(caller, Resource.BATCHES, Operation.CREATE),
    )
    db.session.commit()
    return made


@blueprint.route("/connections/<id:id>/syncs", methods=["GET"])
@guard.requires_own(Resource.CONNECTIONS, Operation.READ)
@blueprint.arguments(Limited, location="query")
@blueprint.response(200, SyncListSchema)
def list_syncs(query: dict[str, Any], id: UUID) -> dict[str, Any]:
    """List a connection's synchronisations, newest first."""
    return {"data": syncs.listed(db.session(), _connection(id), query["limit"])}


@blueprint.route("/connections/<id:id>/syncs/<id:sync_id>", methods=["GET"])
@guard.requires_own(Resource.CONNECTIONS, Operation.READ)
@blueprint.response(200, SyncSchema)
def get_sync(id: UUID, sync_id: UUID) -> SyncOperation:
    """Read one synchronisation."""
    return syncs.load(db.session(), _connection(id), sync_id)


@blueprint.route("/connections/<id:id>/syncs/<id:sync_id>/entries", methods=["GET"])
@guard.requires_own(Resource.CONNECTIONS, Operation.READ)
@blueprint.arguments(EntriesQuery, location="query")
@blueprint.response(200, EntriesSchema)
def list_sync_entries(query: dict[str, Any], id: UUID, sync_id: UUID) -> Entries:
    """List what a synchronisation found, with what became of it."""
    sync = syncs.load(db.session(), _connection(id), sync_id)
    return syncs.entries(
        db.session(), sync, query.get("cursor"), query.get("status"), query["limit"]
    )


def _connection(id: UUID) -> SourceConnection:
    return connections.load(db.session(), guard.identify(), id)


@contextmanager
def _opened(connection: SourceConnection) -> Iterator[Source]:
    """The connection's source, for as long as a caller can be made to wait."""
    settings = current.settings()
    source = connections.open_connection(connection, settings)
    # The database connection goes back first: somebody else's server may take its time.
    db.session.rollback()
    try:
        with browsing.within(settings.connections.answer_timeout):
            yield source
    finally:
        source.close()
