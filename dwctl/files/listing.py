"""Which files a caller sees, and a page of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, or_, select, tuple_
from sqlalchemy.orm import Session

from dwctl.access.caller import Caller
from dwctl.access.ownership import listed_owner, may_reach
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.errors import Invalid, NotFound
from dwctl.identity.tables import ApiKey
from dwctl.queue.tables import File


@dataclass(frozen=True, slots=True)
class Filters:
    """What of the files is wanted; `pattern` is for LIKE, with `\\` as its escape character."""

    purpose: str | None
    pattern: str | None
    own: bool
    member_id: UUID | None
    after: UUID | None
    ascending: bool


def living() -> Select[File]:
    """Files that exist for anybody: not deleted, and no containers of single requests."""
    return select(File).where(~File.single, File.deleted_at.is_(None))


def find(session: Session, caller: Caller, file_id: UUID) -> File:
    """A file that the caller may read. Raises NotFound."""
    found = session.scalar(living().where(File.id == file_id))
    if found is None or not may_reach(caller, Resource.FILES, Operation.READ, found.uploaded_by):
        raise NotFound(f"File with ID {file_id} not found")
    return found


def page(
    session: Session, caller: Caller, filters: Filters, *, limit: int, grace_s: float
) -> tuple[Sequence[File], bool]:
    """One page in the order of their making, and whether there are more. Expired files are left out from `grace_s` on after their end.

    A cursor (`after`) that names no file of those is ignored. Raises Invalid for a member's files where they are nobody's business.
    """
    owner = listed_owner(caller, Resource.FILES)
    kept_since = func.now() - timedelta(seconds=grace_s)
    query = living().where(or_(File.expires_at.is_(None), File.expires_at > kept_since))
    if owner is not None:
        query = query.where(File.uploaded_by == owner)
    made_by = _whose(caller, filters)
    if made_by is not None:
        query = query.where(made_by)
    if filters.purpose is not None:
        query = query.where(_of_purpose(filters.purpose))
    if filters.pattern is not None:
        query = query.where(File.name.ilike(filters.pattern, escape="\\"))
    cursor = _cursor(session, owner, filters.after)
    place = tuple_(File.created_at, File.id)
    if cursor is not None:
        query = query.where(place > cursor if filters.ascending else place < cursor)
    order = (
        (File.created_at.asc(), File.id.asc())
        if filters.ascending
        else (File.created_at.desc(), File.id.desc())
    )
    rows = session.scalars(query.order_by(*order).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def _of_purpose(purpose: str) -> ColumnElement[bool]:
    same = File.purpose == purpose
    return or_(same, File.purpose.is_(None)) if purpose == "batch" else same


def _whose(caller: Caller, filters: Filters) -> ColumnElement[bool] | None:
    """The condition that `own` and `member_id` stand for."""
    organization = caller.active_organization_id
    member = filters.member_id
    if member is not None:
        if organization is None and not may_all(caller, Resource.FILES, Operation.READ):
            raise Invalid(
                "member_id filter is only available in organization context or for platform managers"
            )
        return _made_with_key_of(organization or member, member)
    if not filters.own:
        return None
    if organization is not None:
        return _made_with_key_of(organization, caller.user_id)
    return File.uploaded_by == str(caller.user_id)


def _made_with_key_of(owner: UUID, creator: UUID) -> ColumnElement[bool]:
    keys = select(ApiKey.id).where(
        ApiKey.user_id == owner,
        ApiKey.created_by == creator,
        ApiKey.purpose == "batch",
        ApiKey.hidden,
    )
    return File.api_key_id.in_(keys)


def _cursor(
    session: Session, owner: str | None, after: UUID | None
) -> tuple[datetime, UUID] | None:
    """The place of the file that the page before ended with; it may have been deleted since."""
    if after is None:
        return None
    query = select(File.created_at, File.id).where(File.id == after, ~File.single)
    if owner is not None:
        query = query.where(File.uploaded_by == owner)
    row = session.execute(query).one_or_none()
    return None if row is None else (row.created_at, row.id)
