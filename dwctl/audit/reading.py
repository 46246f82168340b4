"""Finds entries: what a reader may see of them, and what was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, or_, select, text
from sqlalchemy.orm import Session

from dwctl.access.caller import MANAGERS, Caller
from dwctl.access.guard import insist
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.audit.tables import AuditEntry
from dwctl.errors import Forbidden, NotFound
from dwctl.web.pagination import found_in, substring

_MEMBERS = text(
    "SELECT user_id FROM user_organizations WHERE organization_id = ANY(:organizations) AND status = 'active'"
)

_NAMES = text(
    "SELECT id, username AS name FROM users WHERE id = ANY(:ids)"
    " UNION ALL SELECT id, name FROM groups WHERE id = ANY(:ids)"
    " UNION ALL SELECT id, alias FROM deployed_models WHERE id = ANY(:ids)"
    " UNION ALL SELECT id, name FROM inference_endpoints WHERE id = ANY(:ids)"
    " UNION ALL SELECT id, name FROM tool_sources WHERE id = ANY(:ids)"
)

_PLAN_ANEW = text("SET LOCAL plan_cache_mode = force_custom_plan")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filters:
    """What was asked for; None narrows nothing. `action`: how it begins. `resource_id`: also where it is the other side. `search`: part of a name or of the action."""

    actor_id: UUID | None = None
    action: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    organization_id: UUID | None = None
    request_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    search: str | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a reader sees: the entries of these organisations, or all of them (None)."""

    organizations: frozenset[UUID] | None = None

    def covers(self, entry: AuditEntry) -> bool:
        """Whether the entry is within it."""
        return self.organizations is None or entry.organization_id in self.organizations


def may_read(caller: Caller, **_path: Any) -> None:
    """Those with System:Read read everything; owners and admins of organisations what belongs to these."""
    scope_of(caller)


def scope_of(caller: Caller) -> Scope:
    """What the caller sees. Raises Forbidden where that is nothing."""
    if may_all(caller, Resource.SYSTEM, Operation.READ):
        return Scope()
    managed = frozenset(m.organization_id for m in caller.memberships if m.role in MANAGERS)
    insist(bool(managed), Resource.SYSTEM, Operation.READ)
    return Scope(managed)


def newest_first(scope: Scope, filters: Filters) -> Select[AuditEntry]:
    """The entries. Raises Forbidden for an organisation that is not within the scope."""
    asked = filters.organization_id
    if scope.organizations is not None and asked is not None and asked not in scope.organizations:
        raise Forbidden(
            f"Insufficient permissions to Read the audit log of organization {asked}: its owners and admins may"
        )
    return select(AuditEntry).where(*_conditions(scope, filters)).order_by(AuditEntry.id.desc())


def plan_anew(session: Session) -> None:
    """Have this transaction's statements planned for the values that they come with: how rare these are decides which index is entered."""
    session.execute(_PLAN_ANEW)


def get(session: Session, scope: Scope, id: int) -> AuditEntry:
    """One entry. Raises NotFound, also for one outside the scope."""
    found = session.get(AuditEntry, id) if 0 < id < 2**63 else None
    if found is None or not scope.covers(found):
        raise NotFound(f"Audit entry with ID {id} not found")
    return found


def as_rows(session: Session, scope: Scope, entries: Iterable[AuditEntry]) -> list[Row]:
    """Entries as they are shown. An organisation's managers see where its members act from, not where the platform's own people do."""
    rows = [_row(entry) for entry in entries]
    names = _names(session, rows)
    for row in rows:
        row["resource_name"] = row["resource_name"] or names.get(row["resource_id"])
        row["related_name"] = names.get(row["related_id"])
    if scope.organizations is not None:
        asked = {"organizations": list(scope.organizations)}
        members = frozenset(session.scalars(_MEMBERS, asked))
        rows = [row if row["actor_id"] in members else {**row, "address": None} for row in rows]
    return rows


def _names(session: Session, rows: Iterable[Row]) -> dict[str | None, str]:
    """What the other sides of the rows are called now, and what has no name of then; by id."""
    asked = {row["related_id"] for row in rows} | {row["resource_id"] for row in rows if not row["resource_name"]}  # fmt: skip
    ids = [id for text in asked if text and (id := _as_id(text))]
    found = session.execute(_NAMES, {"ids": ids}).all() if ids else []
    return {str(row.id): row.name for row in found}


def _as_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


COLUMNS = tuple(column.key for column in AuditEntry.__table__.columns)


def _row(entry: AuditEntry) -> Row:
    return {name: getattr(entry, name) for name in COLUMNS}


def _conditions(scope: Scope, filters: Filters) -> Iterator[ColumnElement[bool]]:
    entry = AuditEntry
    if scope.organizations is not None:
        yield entry.organization_id.in_(scope.organizations)
    for name in ("organization_id", "actor_id", "resource_type", "request_id"):
        value = getattr(filters, name)
        if value is not None:
            yield getattr(entry, name) == value
    # An action begins with its resource's kind: one index serves both.
    for beginning in (filters.action, filters.resource_type and f"{filters.resource_type}."):
        if beginning:
            yield entry.action.startswith(beginning, autoescape=True)
    if filters.resource_id is not None:
        sides = (entry.resource_id, entry.related_id)
        yield or_(*(side == filters.resource_id for side in sides))
    if filters.since is not None:
        yield entry.at >= filters.since
    if filters.until is not None:
        yield entry.at < filters.until
    pattern = substring(filters.search)
    if pattern:
        yield found_in(pattern, entry.actor_name, entry.resource_name, entry.action)
