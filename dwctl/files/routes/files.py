"""`/files`: list, read, delete, and what running one would cost. (How they come in: `upload.py`.)"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource
from dwctl.db import db
from dwctl.errors import DwctlError, Invalid
from dwctl.files import deletion, estimates, file_object, listing
from dwctl.files.schemas import (
    EstimateQuery,
    EstimateSchema,
    FileDeleted,
    FileSchema,
    FilesPage,
    FilesQuery,
)
from dwctl.queue import identifiers
from dwctl.web import current
from dwctl.web.pagination import substring
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("files", __name__, description="Files of requests for batches.")
guard.protect(blueprint)


@blueprint.route("/files", methods=["GET"])
@guard.requires_own(Resource.FILES, Operation.READ)
@blueprint.arguments(FilesQuery, location="query")
@blueprint.response(200, FilesPage)
def list_files(query: dict[str, Any]) -> dict[str, Any]:
    """List files, newest first."""
    if query["order"] not in ("asc", "desc"):
        raise Invalid("Order must be 'asc' or 'desc'", param="order")
    filters = listing.Filters(
        purpose=query["purpose"],
        pattern=substring(query["search"]),
        own=query["own"],
        member_id=query["member_id"],
        after=_cursor(query["after"]),
        ascending=query["order"] == "asc",
    )
    session = db.session()
    rows, has_more = listing.page(
        session,
        guard.identify(),
        filters,
        limit=query["limit"],
        grace_s=current.settings().batches.files.expired_grace_seconds,
    )
    data = file_object.described(session, rows)
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"data": data, **ends, "has_more": has_more}


@blueprint.route("/files/<file_id>", methods=["GET"])
@guard.requires_own(Resource.FILES, Operation.READ)
@blueprint.response(200, FileSchema)
def get_file(file_id: str) -> dict[str, Any]:
    """Read what is known of a file."""
    session = db.session()
    file = listing.find(session, guard.identify(), identifiers.parse("file", file_id))
    (found,) = file_object.described(session, [file])
    if file_object.is_expired(file) and file.status == "processed":
        deletion.note_expiry(session, file.id)
        session.commit()
    return found


@blueprint.route("/files/<file_id>", methods=["DELETE"])
@guard.requires_own(Resource.FILES, Operation.DELETE)
@blueprint.response(200, FileDeleted)
def delete_file(file_id: str) -> dict[str, Any]:
    """Delete a file. Batches that are running it are cancelled; results that are there stay."""
    session = db.session()
    # (Whoever may read everybody's files may delete them.)
    file = listing.find(session, guard.identify(), identifiers.parse("file", file_id))
    gone = str(file.id)
    deletion.delete(session, file.id)
    session.commit()
    return {"id": gone}


@blueprint.route("/files/<file_id>/cost-estimate", methods=["GET"])
@guard.requires_own(Resource.FILES, Operation.READ)
@blueprint.arguments(EstimateQuery, location="query")
@blueprint.response(200, EstimateSchema)
def estimate_cost(query: dict[str, Any], file_id: str) -> dict[str, Any]:
    """Estimate what a batch of the file would cost."""
    session = db.session()
    file = listing.find(session, guard.identify(), identifiers.parse("file", file_id))
    found = estimates.of_file(session, file.id, query["completion_window"])
    session.commit()
    return found


def _cursor(text: str | None) -> UUID | None:
    if text is None:
        return None
    try:
        return identifiers.parse("file", text)
    except DwctlError:
        return None
