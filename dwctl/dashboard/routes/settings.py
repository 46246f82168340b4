"""Settings: which value is in force and where it comes from; the state of the system; the audit log."""

from __future__ import annotations

from typing import Any

from flask import Response, request
from werkzeug.wrappers import Response as AnyResponse

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource
from dwctl.audit import routes as audit
from dwctl.dashboard import operations, pages, ranges
from dwctl.errors import DwctlError
from dwctl.operations import system
from dwctl.web import cursors

blueprint = pages.screen("settings")

FILTERS = ("action", "resource_type", "resource_id", "actor_id", "organization_id", "request_id", "search")  # fmt: skip


@blueprint.get("/settings")
def show() -> Response:
    """Every setting by section, what differs from its default first; and whether the system is in order."""
    query = {"search": request.args.get("q")}
    rows, problem = [], None
    guard.insist(operations.may(system.list_settings), Resource.SYSTEM, Operation.READ)
    try:
        rows = operations.run(system.list_settings, query=query)["data"]
    except DwctlError as error:
        # A file that cannot be read must not hide the state of the system: that is when people come here.
        problem = error.message
    everything = bool(request.args.get("all") or request.args.get("q"))
    shown = [row for row in rows if everything or row["source"] != "default" or row["waits_for_restart"]]  # fmt: skip
    return pages.render(
        "settings/page.html",
        title="Settings",
        sections=_by_section(shown),
        total=len(rows),
        shown=len(shown),
        everything=everything,
        problem=problem,
        system=operations.run(system.get_system),
        call=operations.snippet(system.list_settings, query=query),
    )


@blueprint.get("/settings/audit")
def audit_log() -> Response:
    """Who changed what, newest first."""
    query = _filters()
    page = operations.run(audit.list_audit_entries, query={**query, "limit": "50"})
    return pages.render(
        "settings/audit.html",
        title="Audit log",
        entries=page["data"],
        total=page["total_count"],
        further=cursors.further(),
        range=ranges.asked() if "range" in request.args else None,
        names=FILTERS,
        sees_settings=operations.may(system.list_settings),
        call=operations.snippet(audit.list_audit_entries, query=query),
        kept={name: request.args.get(name) for name in FILTERS},
    )


@blueprint.get("/settings/audit/export")
def export_audit_log() -> AnyResponse:
    """All that the filters let through, as a file."""
    format = request.args.get("format", "csv")
    found: AnyResponse = operations.run(audit.export_audit_log, query={**_filters(), "format": format})  # fmt: skip
    return found


@blueprint.get("/settings/audit/<int:entry_id>")
def audit_entry(entry_id: int) -> Response:
    """One change: who, by which way, from where; before and after."""
    entry = operations.run(audit.get_audit_entry, entry_id=entry_id)
    return pages.render(
        "settings/audit_entry.html",
        title=entry["action"],
        entry=entry,
        changes=_changes(entry),
        call=operations.snippet(audit.get_audit_entry, entry_id=entry_id),
    )


def _filters() -> dict[str, Any]:
    found: dict[str, Any] = {name: request.args.get(name) or None for name in FILTERS}
    if "range" in request.args:
        span = ranges.asked()
        found |= {"since": span.since.isoformat(), "until": span.until.isoformat()}
    return found


def _by_section(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        section = row["setting"].rpartition(".")[0] or "general"
        found.setdefault(section, []).append(row)
    return found


def _changes(entry: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Each member that was or is there, with its value before and after."""
    before, after = entry["before"] or {}, entry["after"] or {}
    return [(name, before.get(name), after.get(name)) for name in {**before, **after}]
