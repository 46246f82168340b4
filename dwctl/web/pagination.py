"""Paging by `skip` and `limit`, and the envelope {"data", "total_count", "skip", "limit"}.

`limit` is clamped to 1..101 (101 so that a client can fetch one row more than it shows), a negative `skip` counts as 0.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from dwctl.web.schemas import ApiSchema, Clamped

MAX_LIMIT = 101


class PageQuery(ApiSchema):
    """Base of a list's query string."""

    skip = Clamped(0, 2**62, load_default=0)
    limit = Clamped(1, MAX_LIMIT, load_default=10)


def page(session: Session, query: Select[Any], *, skip: int, limit: int) -> tuple[list[Any], int]:
    """One page of the entities a query selects, and how many there are in all. The query brings its own order."""
    counted = select(func.count()).select_from(query.order_by(None).subquery())
    total = session.scalar(counted) or 0
    rows = session.scalars(query.offset(skip).limit(limit)).unique().all()
    return list(rows), total


def envelope(data: list[Any], total: int, *, skip: int, limit: int) -> dict[str, Any]:
    """The body of a paged list."""
    return {"data": data, "total_count": total, "skip": skip, "limit": limit}


def substring(text: str | None) -> str | None:
    """A LIKE pattern (escape character `\\`) that finds the trimmed text anywhere; None for a blank one."""
    text = (text or "").strip()
    if not text:
        return None
    for special in ("\\", "%", "_"):
        text = text.replace(special, "\\" + special)
    return f"%{text}%"


def includes(text: str | None) -> frozenset[str]:
    """The names in an `include` parameter; unknown ones are for the caller to ignore."""
    return frozenset(part.strip() for part in (text or "").split(",") if part.strip())
