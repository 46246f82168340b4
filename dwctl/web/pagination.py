"""Paging: by `skip` and `limit`, or from page to page by `after`; and the envelope {"data", "total_count", "skip", "limit"}.

`limit` is clamped to 1..101 (101 so that a client can fetch one row more than it shows), a negative `skip` counts as 0. An answer after which there is more
names the next page in its header `Link`.
"""

from __future__ import annotations

from typing import Any

from marshmallow import fields, post_load
from sqlalchemy import ColumnElement, Select, Text, func, literal, select
from sqlalchemy.orm import Session

from dwctl.web import cursors, schemas
from dwctl.web.keyset import Order
from dwctl.web.schemas import ApiSchema, Clamped

MAX_LIMIT = 101


class PageQuery(ApiSchema):
    """Base of a list's query string."""

    skip = Clamped(0, 2**62, load_default=0)
    limit = Clamped(1, MAX_LIMIT, load_default=10)
    after = schemas.Text(
        longest=cursors.LONGEST,
        metadata={
            "description": "A cursor from the `Link` header of the page before; `skip` counts from there."
        },
    )

    @post_load
    def leave_cursor(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """A view has nothing to do with the cursor: `page` asks for it."""
        return {name: value for name, value in data.items() if name != "after"}


class PageSchema(ApiSchema):
    """Base of a list's answer (`envelope`); each says of what `data` is."""

    data: fields.Field[Any] = fields.List(fields.Raw())
    total_count = fields.Integer()
    skip = fields.Integer()
    limit = fields.Integer()


def page(session: Session, query: Select[Any], *, skip: int, limit: int) -> tuple[list[Any], int]:
    """One page of the entities that a query selects, and how many there are in all.

    The query brings its own order, which ends with a primary key. Where the request has a cursor, the page begins behind it; where more
    rows follow, the answer says so.
    """
    order = Order.of(query)
    position = cursors.asked(order.name)
    further = query if position is None else query.where(order.behind(position))
    keys = [key.text.label(f"position_{place}") for place, key in enumerate(order.keys)]
    rows = session.execute(_some(further.add_columns(*keys), order, skip, limit + 1)).all()
    if len(rows) > limit:
        cursors.offer(order.name, rows[limit - 1][-len(keys) :])
    is_last = position is None and (skip == 0 or rows) and len(rows) <= limit
    # (What ends on this page is counted already.)
    total = skip + len(rows) if is_last else _count(session, query)
    return [row[0] for row in rows[:limit]], total


def _some(query: Select[Any], order: Order, skip: int, limit: int) -> Select[Any]:
    """So many rows of a query behind those that it skips. Of these only the place is asked for, which an index may know without the row."""
    if not skip:
        return query.limit(limit)
    primary = order.keys[-1].value
    ids = query.with_only_columns(primary, maintain_column_froms=True).offset(skip).limit(limit)
    return query.where(primary.in_(ids))


def _count(session: Session, query: Select[Any]) -> int:
    counted = select(func.count()).select_from(query.order_by(None).subquery())
    return session.scalar(counted) or 0


def envelope(data: list[Any], total: int, *, skip: int, limit: int) -> dict[str, Any]:
    """The body of a paged list."""
    return {"data": data, "total_count": total, "skip": skip, "limit": limit}


def substring(text: str | None) -> str | None:
    """A LIKE pattern (escape character `\\`) that finds the trimmed text anywhere; None for a blank one."""
    text = (text or "").strip()
    return anywhere(text) if text else None


def anywhere(text: str) -> str:
    """The same for a text as it stands."""
    for special in ("\\", "%", "_"):
        text = text.replace(special, "\\" + special)
    return f"%{text}%"


def found_in(pattern: str, *columns: Any) -> ColumnElement[bool]:
    """Whether a pattern of `substring` is found in one of the columns, whatever the case. (One text for all of them: case costs more than the search.)"""
    between = literal("\x01", Text())
    together = func.lower(func.concat_ws(between, *columns, type_=Text()), type_=Text())
    # Asked for once: in a prepared statement's general plan it would be made for each row.
    lowered = select(func.lower(literal(pattern, Text()))).scalar_subquery()
    return together.like(lowered, escape="\\")


def includes(text: str | None) -> frozenset[str]:
    """The names in an `include` parameter; unknown ones are for the caller to ignore."""
    return frozenset(part.strip() for part in (text or "").split(",") if part.strip())
