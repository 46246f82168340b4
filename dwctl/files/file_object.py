"""The File object of the API, made in one place. What is not known is left out, never null."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.identity.tables import ApiKey, User
from dwctl.queue.tables import Batch, File

OUTPUT = "batch_output"
ERROR = "batch_error"

_CONNECTIONS = text("SELECT id, name FROM connections WHERE id = ANY (:ids)")


def bare(file: File) -> dict[str, Any]:
    """The object without the names of people: what an upload is answered with."""
    made: dict[str, Any] = {
        "id": str(file.id),
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": _seconds(file.created_at),
        "filename": file.name,
        "purpose": file.purpose or "batch",
        "status": "processed",
    }
    if file.expires_at is not None:
        made["expires_at"] = _seconds(file.expires_at)
    if is_expired(file):
        # Clients know no other word for a file that cannot be used, and wait for one that they know.
        made |= {"status": "error", "status_details": "The file has expired."}
    elif file.status == "error":
        made |= {"status": "error", "status_details": file.error_message or "The file has errors."}
    if file.source_connection_id is not None:
        made["source"] = "sync"
    return made


def described(session: Session, files: Sequence[File]) -> list[dict[str, Any]]:
    """The objects with who made them and for whom, in a number of statements that does not grow with theirs."""
    creators = _creators(session, {f.api_key_id for f in files if f.api_key_id})
    owners = _owners(session, {id for f in files if (id := _uuid(f.uploaded_by))})
    sources = _sources(session, {f.source_connection_id for f in files if f.source_connection_id})
    sizes = _sizes(session, [f.id for f in files if f.purpose in (OUTPUT, ERROR)])
    found = []
    for file in files:
        made = bare(file)
        if file.id in sizes:
            made["bytes"] = sizes[file.id]
        if file.purpose not in (OUTPUT, ERROR) and file.api_key_id in creators:
            made["created_by_email"] = creators[file.api_key_id]
        owner = owners.get(_uuid(file.uploaded_by))
        if owner is not None:
            made["context_name"], made["context_type"] = owner
        if file.source_connection_id in sources:
            made["source_name"] = sources[file.source_connection_id]
        found.append(made)
    return found


def is_expired(file: File) -> bool:
    """Whether its time is over; the row may not say so yet."""
    return file.status == "expired" or (
        file.expires_at is not None and file.expires_at <= clock.now()
    )


def _creators(session: Session, keys: Collection[UUID]) -> dict[UUID | None, str]:
    """The e-mail of the person behind each (hidden) key."""
    if not keys:
        return {}
    query = select(ApiKey.id, User.email).join(User, User.id == ApiKey.created_by)
    return {row.id: row.email for row in session.execute(query.where(ApiKey.id.in_(keys)))}


def _owners(session: Session, ids: Collection[UUID]) -> dict[UUID | None, tuple[str, str]]:
    """Name and kind of the context that each account is."""
    if not ids:
        return {}
    columns = select(User.id, User.user_type, User.display_name, User.email)
    return {
        id: (name or email, kind) if kind == "organization" else ("Personal", "personal")
        for id, kind, name, email in session.execute(columns.where(User.id.in_(ids)))
    }


def _sources(session: Session, ids: Collection[UUID]) -> dict[UUID | None, str]:
    if not ids:
        return {}
    return {row.id: row.name for row in session.execute(_CONNECTIONS, {"ids": list(ids)})}


def _sizes(session: Session, ids: Collection[UUID]) -> dict[UUID | None, int]:
    """What output and error files hold by now."""
    if not ids:
        return {}
    outputs = select(Batch.output_file_id, Batch.output_bytes).where(Batch.output_file_id.in_(ids))
    errors = select(Batch.error_file_id, Batch.error_bytes).where(Batch.error_file_id.in_(ids))
    return {row[0]: row[1] for row in session.execute(outputs.union_all(errors))}


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
