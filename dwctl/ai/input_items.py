"""`GET /responses/{id}/input_items`: what a stored request put in, a page at a time.

Only its own input: the turns before it are listed by the responses that they belong to. Items that the request only names are shown
whole, as long as they are stored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import msgspec

from dwctl.ai import history, retrieval
from dwctl.config import History
from dwctl.db import Connections
from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.openresponses import items
from dwctl.protocols.openresponses.history import whole_item
from dwctl.protocols.openresponses.items import Item

_ORDERS = ("desc", "asc")
_MOST = 100


class Page(msgspec.Struct, frozen=True):
    """Which part of a list: `after` names the item before it, in that order."""

    limit: int = 20
    newest_first: bool = True
    after: str | None = None


def page_of(query: Mapping[str, str]) -> Page:
    """The page that a query string asks for. Raises InvalidRequest."""
    limit, order = query.get("limit", "20"), query.get("order", "desc")
    if not (limit.isdecimal() and len(limit) < 4 and 1 <= int(limit) <= _MOST):
        raise InvalidRequest(
            f"`limit` must be a whole number from 1 to {_MOST}.",
            param="limit",
            code="invalid_value",
        )
    if order not in _ORDERS:
        raise InvalidRequest("`order` must be asc or desc.", param="order", code="invalid_value")
    return Page(int(limit), order == "desc", query.get("after") or None)


def list_items(
    connections: Connections,
    response_id: str,
    owners: Collection[UUID],
    page: Page,
    limits: History,
) -> dict[str, Any]:
    """A page of OpenAI's list. Raises NotFound for what none of `owners` owns, InvalidRequest for an `after` that is not in the list."""
    row = retrieval.stored_row_of(connections, response_id, owners)
    body = parse_object((row.request_body or "").encode()) or {}
    listed = items.input_items(body, f"resp_{row.id}")
    known = history.referred(connections, limits, UUID(row.created_by), listed)
    return paged([whole_item(item, known) for item in listed], page)


def paged(listed: list[Item], page: Page) -> dict[str, Any]:
    """A page of the items, which are in the order in which they were put in. Raises InvalidRequest."""
    ordered = listed[::-1] if page.newest_first else listed
    start = 0
    if page.after is not None:
        ids = [item.get("id") for item in ordered]
        if page.after not in ids:
            raise InvalidRequest(
                "`after` is not the id of an item in this list.",
                param="after",
                code="invalid_value",
            )
        start = ids.index(page.after) + 1
    shown = ordered[start : start + page.limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0].get("id") if shown else None,
        "last_id": shown[-1].get("id") if shown else None,
        "has_more": start + page.limit < len(ordered),
    }
