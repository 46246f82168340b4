"""Which batches a list shows, in which order. Those of single requests are in none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    or_,
    select,
    tuple_,
)
from sqlalchemy.orm import Session

from dwctl.batches import metadata
from dwctl.errors import Invalid
from dwctl.identity.tables import ApiKey
from dwctl.queue import identifiers
from dwctl.queue.tables import Batch, File

_B = Batch
_UNENDED = and_(
    _B.completed_at.is_(None),
    _B.failed_at.is_(None),
    _B.cancelled_at.is_(None),
    _B.expired_at.is_(None),
)
_ACTIVE = and_(_UNENDED, _B.cancelling_at.is_(None))

STATUSES: Mapping[str, ColumnElement[bool]] = {
    "in_progress": _ACTIVE,
    "completed": and_(_B.completed_at.is_not(None), _B.cancelling_at.is_(None)),
    "failed": and_(
        _B.failed_at.is_not(None), _B.completed_at.is_(None), _B.cancelling_at.is_(None)
    ),
    "cancelled": _B.cancelling_at.is_not(None),
    # Ended by the deadline, or after it, or runs late.
    "expired": or_(
        _B.expired_at.is_not(None),
        _B.expires_at < func.coalesce(_B.completed_at, _B.failed_at, _B.cancelled_at, func.now()),
    ),
}
"""What the filter `status` finds: coarser than the status that a batch shows."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which batches. owner: whose (None: everybody's). member: made by that person only. search: a LIKE pattern. windows: exact; None for any. file: made of that one."""

    owner: str | None = None
    member: UUID | None = None
    search: str | None = None
    status: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    windows: frozenset[str] | None = None
    file: UUID | None = None


def page(
    session: Session, criteria: Criteria, *, after: str | None, limit: int, active_first: bool
) -> list[Batch]:
    """Up to `limit` batches that follow the cursor, newest first; with `active_first` those that nothing has ended or stopped before the others.

    Raises Invalid for a cursor that is no batch of the list's owner, and for a status that is none.
    """
    cursor = None if after is None else _cursor(session, criteria, after)
    wanted = _wanted(criteria)
    if not active_first:
        return _newest(session, wanted, cursor, limit)
    found: list[Batch] = []
    cursor_is_active = cursor is None or _is_active(cursor)
    if cursor_is_active:
        found = _newest(session, wanted.where(_ACTIVE), cursor, limit)
    if len(found) < limit:
        rest = wanted.where(~_ACTIVE)
        found += _newest(session, rest, None if cursor_is_active else cursor, limit - len(found))
    return found


def _newest(
    session: Session, wanted: Select[Batch], cursor: Batch | None, limit: int
) -> list[Batch]:
    if cursor is not None:
        place = tuple_(_B.created_at, _B.id)
        wanted = wanted.where(place < tuple_(cursor.created_at, cursor.id))
    ordered = wanted.order_by(_B.created_at.desc(), _B.id.desc()).limit(limit)
    return list(session.scalars(ordered))


def _cursor(session: Session, criteria: Criteria, after: str) -> Batch:
    """The batch that was the last one shown. It may have been deleted since."""
    id = identifiers.parse("batch", after, "after")
    found = session.get(Batch, id)
    if found is None or found.single or criteria.owner not in (None, found.created_by):
        raise Invalid(f"Invalid after: there is no batch with ID {id}", param="after")
    return found


def _wanted(criteria: Criteria) -> Select[Batch]:
    query = select(_B).where(~_B.single, _B.deleted_at.is_(None))
    if criteria.owner is not None:
        query = query.where(_B.created_by == criteria.owner)
    if criteria.member is not None:
        query = query.where(_B.api_key_id.in_(_keys_of(criteria.member)))
    if criteria.status is not None:
        query = query.where(_has(criteria.status))
    if criteria.created_after is not None:
        query = query.where(_B.created_at >= criteria.created_after)
    if criteria.created_before is not None:
        query = query.where(_B.created_at <= criteria.created_before)
    if criteria.windows is not None:
        query = query.where(_B.completion_window.in_(criteria.windows))
    if criteria.file is not None:
        query = query.where(_B.file_id == criteria.file)
    if criteria.search is not None:
        query = query.where(_mentions(criteria.search))
    return query


def _has(status: str) -> ColumnElement[bool]:
    if status not in STATUSES:
        raise Invalid(
            f"Invalid status '{status[:64]}'. Valid values: {', '.join(STATUSES)}", param="status"
        )
    return STATUSES[status]


def _keys_of(member: UUID) -> Select[UUID]:
    return select(ApiKey.id).where(ApiKey.created_by == member)


def _mentions(pattern: str) -> ColumnElement[bool]:
    """In its id, its input file's name, or what of its metadata is shown."""
    # Rows that were written by hand may hold any JSON.
    pairs = case((func.jsonb_typeof(_B.metadata_) == "object", _B.metadata_))
    pair = func.jsonb_each_text(pairs).table_valued("key", "value")
    said = exists(
        select(1)
        .select_from(pair)
        .where(
            pair.c.key != metadata.MAKER,
            ~pair.c.key.startswith(metadata.INTERNAL, autoescape=True),
            or_(pair.c.key.ilike(pattern, escape="\\"), pair.c.value.ilike(pattern, escape="\\")),
        )
    )
    named = exists(select(1).where(File.id == _B.file_id, File.name.ilike(pattern, escape="\\")))
    return or_(cast(_B.id, Text).ilike(pattern, escape="\\"), named, said)


def _is_active(batch: Batch) -> bool:
    ends = (
        batch.completed_at,
        batch.failed_at,
        batch.cancelled_at,
        batch.expired_at,
        batch.cancelling_at,
    )
    return all(end is None for end in ends)
