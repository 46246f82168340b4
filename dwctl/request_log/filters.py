"""Which calls: what was asked for, as conditions of SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg

from dwctl import sql
from dwctl.clock import uuid7_seconds
from dwctl.web.pagination import substring

QUERIES = sql.load("dwctl.request_log")

_MINTED_WITHIN = timedelta(days=1)
_SAME_ARRIVAL = timedelta(seconds=1)
_AN_HOUR = timedelta(hours=1)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Filters:
    """What was asked for; None narrows nothing, and bounds are within. `uri_pattern` is a pattern of LIKE, `custom_id` a part of it."""

    method: str | None = None
    uri_pattern: str | None = None
    status_code: int | None = None
    status_code_min: int | None = None
    status_code_max: int | None = None
    min_duration_ms: int | None = None
    max_duration_ms: int | None = None
    timestamp_after: datetime | None = None
    timestamp_before: datetime | None = None
    model: str | None = None
    fusillade_batch_id: UUID | None = None
    custom_id: str | None = None
    user_id: UUID | None = None
    api_key_id: UUID | None = None
    request_id: UUID | None = None
    error_code: str | None = None
    response_type: str | None = None
    request_origin: str | None = None
    served_by: str | None = None
    trace_id: str | None = None
    min_cost: Decimal | None = None
    max_cost: Decimal | None = None
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose calls a reader sees: one account's, or everybody's (None). as_owner: without what tells how the operator served them."""

    owner: UUID | None = None
    as_owner: bool = False


EVERYBODYS = Scope()


def within_an_hour(filters: Filters, now: datetime) -> Filters:
    """The same, since an hour before its end where it says no beginning: for what reads much of each call."""
    if filters.timestamp_after is not None:
        return filters
    end = filters.timestamp_before or now
    return replace(filters, timestamp_after=max(end, _EARLIEST) - _AN_HOUR)


_RANGE = {
    "timestamp_after": "a.timestamp >= %(timestamp_after)s",
    "timestamp_before": "a.timestamp <= %(timestamp_before)s",
    "user_id": "a.user_id = %(user_id)s",
    "owner": "a.user_id = %(owner)s",
    "request_id": "a.request_id = %(request_id)s",
}
"""What indexes of the log answer."""

_FITS = {
    "method": "a.method = %(method)s",
    "uri_pattern": "a.uri LIKE %(uri_pattern)s",
    "status_code": "a.status_code = %(status_code)s",
    "status_code_min": "a.status_code >= %(status_code_min)s",
    "status_code_max": "a.status_code <= %(status_code_max)s",
    "min_duration_ms": "a.duration_ms >= %(min_duration_ms)s",
    "max_duration_ms": "a.duration_ms <= %(max_duration_ms)s",
    "model": "a.model = %(model)s",
    "fusillade_batch_id": "a.fusillade_batch_id = %(fusillade_batch_id)s",
    "custom_id": r"a.custom_id ILIKE %(custom_id)s ESCAPE '\'",
    "api_key_id": "a.api_key_id = %(api_key_id)s",
    "error_code": "a.error_code = %(error_code)s",
    "response_type": "a.response_type = %(response_type)s",
    "request_origin": "a.request_origin = %(request_origin)s",
    "served_by": "a.served_by = %(served_by)s",
    "trace_id": "a.trace_id = %(trace_id)s",
    "min_cost": "coalesce(a.total_cost, 0) >= %(min_cost)s",
    "max_cost": "coalesce(a.total_cost, 0) <= %(max_cost)s",
    "tier": "{tier} = %(tier)s",
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """The same in SQL: those that an index answers, those that are looked at row by row, and their values."""

    range: tuple[str, ...]
    fits: tuple[str, ...]
    values: Mapping[str, Any] = field(repr=False)

    def in_statement(self, name: str, *, newest_first: bool = True) -> str:
        """A named statement with the conditions in it."""
        order = "DESC" if newest_first else "ASC"
        filled = QUERIES[name]
        for mark, text in (
            ("{entry}", QUERIES["entry"]),
            ("{range}", " AND ".join(self.range) or "true"),
            ("{fits}", " AND ".join(self.fits) or "true"),
            ("{order}", order),
            ("{tier}", QUERIES["tier"]),
        ):
            filled = filled.replace(mark, text)
        return filled

    def also(self, clause: str, **values: Any) -> Conditions:
        """With one more that an index answers."""
        return Conditions((*self.range, clause), self.fits, {**self.values, **values})

    def row_by_row(self) -> Conditions:
        """The same where the rows are known already."""
        return Conditions((), (*self.range, *self.fits), self.values)


def conditions(scope: Scope, filters: Filters) -> Conditions:
    """What scope and filters come to."""
    values: dict[str, Any] = {
        one.name: value
        for one in fields(filters)
        if (value := getattr(filters, one.name)) is not None
    }
    values["custom_id"] = substring(filters.custom_id)
    values["owner"] = scope.owner
    values = {name: value for name, value in values.items() if value is not None}
    return Conditions(
        tuple(clause for name, clause in _RANGE.items() if name in values),
        tuple(clause for name, clause in _FITS.items() if name in values),
        values,
    )


def narrowed(connection: psycopg.Connection[Any], scope: Scope, filters: Filters) -> Conditions:
    """The same, helped by what the database knows besides: the lines of a batch arrived with it, a key's calls are its owner's, ids bear times."""
    found = conditions(scope, filters)
    if filters.fusillade_batch_id is not None:
        began = _one(connection, "batch_began", filters.fusillade_batch_id)
        bounds = (began, began + _SAME_ARRIVAL) if began else minted(filters.fusillade_batch_id)
        if bounds:
            within = "a.timestamp BETWEEN %(batch_from)s AND %(batch_to)s"
            found = found.also(within, batch_from=bounds[0], batch_to=bounds[1])
    if filters.api_key_id is not None:
        owner = _one(connection, "owner_of_key", filters.api_key_id)
        if owner:
            found = found.also("a.user_id = %(key_owner)s", key_owner=owner)
    return found


def minted(id: UUID) -> tuple[datetime, datetime] | None:
    """The times between which a call of this id arrived, with a day to spare; None where the id bears no time that can be."""
    at_s = uuid7_seconds(id)
    if at_s is None:
        return None
    try:
        at = datetime.fromtimestamp(at_s, UTC)
        return at - _MINTED_WITHIN, at + _MINTED_WITHIN
    except (OverflowError, ValueError):
        return None


def _one(connection: psycopg.Connection[Any], query: str, id: UUID) -> Any:
    row = connection.execute(QUERIES[query], {"id": id}).fetchone()
    return row and row[0]
