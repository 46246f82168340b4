"""The File object of the API, made in one place. What is not known is left out, never null."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.identity import people
from dwctl.queue.tables import Batch, File, FileModel

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
    known = people.behind(session, (f.uploaded_by for f in files), (f.api_key_id for f in files))
    sources = _sources(session, {f.source_connection_id for f in files if f.source_connection_id})
    sizes = _sizes(session, [f.id for f in files if f.purpose in (OUTPUT, ERROR)])
    lines = _lines(session, [f.id for f in files if f.purpose not in (OUTPUT, ERROR)])
    found = []
    for file in files:
        made = bare(file)
        if file.id in sizes:
            made["bytes"] = sizes[file.id]
        if file.id in lines:
            made["lines"] = lines[file.id]
        email = known.maker(file.api_key_id)
        if email and file.purpose not in (OUTPUT, ERROR):
            made["created_by_email"] = email
        owner = known.owner(file.uploaded_by)
        if owner is not None:
            made |= owner.context
            if not owner.is_organization:
                made["owner_email"] = owner.email
        if file.source_connection_id in sources:
            made["source_name"] = sources[file.source_connection_id]
        found.append(made)
    return found


def is_expired(file: File) -> bool:
    """Whether its time is over; the row may not say so yet."""
    return file.status == "expired" or (
        file.expires_at is not None and file.expires_at <= clock.now()
    )


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


def _lines(session: Session, ids: Collection[UUID]) -> dict[UUID, int]:
    """How many requests were uploaded; without those that nobody has counted yet."""
    if not ids:
        return {}
    counted = select(FileModel.file_id, func.sum(FileModel.requests)).group_by(FileModel.file_id)
    return {id: int(n) for id, n in session.execute(counted.where(FileModel.file_id.in_(ids)))}


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
