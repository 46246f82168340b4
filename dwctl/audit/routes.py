"""`/audit-log`: who changed what."""

from __future__ import annotations

from typing import Any

from flask import Response

from dwctl.access import guard
from dwctl.audit import exporting, reading
from dwctl.audit.reading import Filters, Row
from dwctl.audit.schemas import AuditEntrySchema, AuditExportQuery, AuditPage, AuditQuery
from dwctl.db import db
from dwctl.web import described
from dwctl.web.exporting import CONTENT_TYPES, answer
from dwctl.web.pagination import envelope, page
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("audit", __name__, description="The audit log: who changed what.")
guard.protect(blueprint)


@blueprint.route("/audit-log", methods=["GET"])
@guard.checks(reading.may_read)
@blueprint.arguments(AuditQuery, location="query")
@blueprint.response(200, AuditPage)
def list_audit_entries(query: dict[str, Any]) -> dict[str, Any]:
    """List changes, newest first

    Everything for those who may read the system; owners and admins of organisations see what belongs to these.
    """
    session, scope = db.session(), reading.scope_of(guard.identify())
    skip, limit = query.pop("skip"), query.pop("limit")
    wanted = reading.newest_first(scope, Filters(**query))
    reading.plan_anew(session)
    found, total = page(session, wanted, skip=skip, limit=limit)
    rows = reading.as_rows(session, scope, found)
    return envelope(rows, total, skip=skip, limit=limit)


@blueprint.route("/audit-log/export", methods=["GET"])
@guard.checks(reading.may_read)
@blueprint.arguments(AuditExportQuery, location="query")
@blueprint.response(200, content_type=CONTENT_TYPES["jsonl"])
@described.says(
    also_as=("text/csv",),
    headers={"Content-Disposition": "A name for the file."},
)
def export_audit_log(query: dict[str, Any]) -> Response:
    """Download changes as JSON lines or CSV, newest first

    All that the filters let through, in one answer of any length.
    """
    scope, format = reading.scope_of(guard.identify()), query.pop("format")
    wanted = reading.newest_first(scope, Filters(**query))
    db.session.rollback()
    lines = exporting.stream(db.engine, scope, wanted, format=format)
    return answer(lines, name="audit-log", format=format)


@blueprint.route("/audit-log/<int:entry_id>", methods=["GET"])
@guard.checks(reading.may_read)
@blueprint.response(200, AuditEntrySchema)
def get_audit_entry(entry_id: int) -> Row:
    """Show one change"""
    session, scope = db.session(), reading.scope_of(guard.identify())
    (row,) = reading.as_rows(session, scope, [reading.get(session, scope, entry_id)])
    return row
