"""Requests of all batches, as a list with filters: along the keys of requests, which are ordered by time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import namedtuple_row

from dwctl import sql
from dwctl.queue.tables import State

_QUERIES = sql.load("dwctl.monitoring")

RUNNING = (State.PROCESSING, State.CLAIMED)
WAITING = (State.PENDING,)
OVER = (State.COMPLETED, State.FAILED, State.CANCELED)

_FEW = 20_000
_COUNT_MS = 100
_WALK_MS = 300


class Place(NamedTuple):
    """Where a request stands in the list: in which part, there whether a worker runs it already, and its id."""

    part: int
    processing: bool
    id: UUID


@dataclass(frozen=True, slots=True)
class Filters:
    """Which requests; None: no matter. `owners` are as batches store them. Times are inclusive."""

    owner: str | None = None
    states: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    tiers: tuple[str, ...] | None = None
    windows: tuple[str, ...] | None = None
    after: datetime | None = None
    before: datetime | None = None


_CLAUSES = {
    "owner": "b.created_by = %(owner)s",
    "states": "r.state = ANY (%(states)s)",
    "models": "r.model = ANY (%(models)s)",
    "tiers": "r.service_tier = ANY (%(tiers)s)",
    "windows": "b.completion_window = ANY (%(windows)s)",
    "after": "r.created_at >= %(after)s",
    "before": "r.created_at <= %(before)s",
}

_BEHIND = "r.id < %(place)s"
_BEHIND_AMONG = "(r.state = 'processing', r.id) < (%(processing)s, %(place)s)"


def page(
    connection: psycopg.Connection[Any],
    filters: Filters,
    *,
    skip: int,
    limit: int,
    active_first: bool,
    after: Place | None = None,
) -> list[Place]:
    """The places of a page's requests. active_first: what runs, what waits, what is over; each of these newest first.

    With `after`, those behind that place, and `skip` counts from it. What changes its state meanwhile moves to another part.
    """
    groups = _groups(connection, filters) if active_first else [_Group(0, "walk", filters)]
    found: list[Place] = []
    for group in groups:
        if after is not None and group.part < after.part:
            continue
        behind = after if after and after.part == group.part else None
        places = group.page(connection, skip, limit - len(found), behind)
        if places:
            found += places
            skip = 0
        elif skip:
            skip -= min(skip, group.count(connection, behind))
        if len(found) == limit:
            break
    return found


def total(connection: psycopg.Connection[Any], filters: Filters) -> int:
    """How many there are: exactly where that can be counted at once, else as many as the planner believes."""
    statement, values = _statement("count_matching", filters)
    try:
        return int(_within(connection, _COUNT_MS, statement, values)[0][0])
    except psycopg.errors.QueryCanceled:
        believed = connection.execute(
            "EXPLAIN (FORMAT JSON) " + statement.replace("SELECT count(*)", "SELECT 1", 1), values
        ).fetchone()
        assert believed is not None
        plan = orjson.loads(believed[0]) if isinstance(believed[0], str) else believed[0]
        return int(plan[0]["Plan"]["Plan Rows"])


def shown(
    connection: psycopg.Connection[Any], ids: list[UUID], *, with_bodies: bool = False
) -> list[Any]:
    """These requests with what they used and cost, in this order; those of deleted batches are left out."""
    cursor = connection.cursor(row_factory=namedtuple_row)
    values = {"ids": ids, "bodies": with_bodies}
    rows: list[Any] = cursor.execute(_QUERIES["shown"], values).fetchall()
    return rows


@dataclass(frozen=True, slots=True)
class _Group:
    """Some of the requests in their order: a part of the list. waiting: whether those are looked for that wait, or that run."""

    part: int
    statement: str
    filters: Filters
    waiting: bool = False

    def page(
        self, connection: psycopg.Connection[Any], skip: int, limit: int, after: Place | None
    ) -> list[Place]:
        statement, values = _statement(self.statement, self.filters, after)
        values |= {"waiting": self.waiting, "skip": skip, "limit": limit}
        if self.statement == "among" or self.filters.owner is None:
            return self._places(connection.execute(statement, values).fetchall())
        try:
            rows = _within(connection, _WALK_MS, statement, values)
        except psycopg.errors.QueryCanceled:
            search, _ = _statement("search", self.filters, after)
            rows = connection.execute(search, values).fetchall()
        return self._places(rows)

    def count(self, connection: psycopg.Connection[Any], after: Place | None) -> int:
        """How many there are behind that place."""
        if self.statement == "among":
            statement, values = _statement("among", self.filters, after)
            values |= {"waiting": self.waiting, "skip": 0, "limit": 1}
            row = connection.execute(statement, values).fetchone()
            return int(row[1]) if row else 0
        statement, values = _statement("count_matching", self.filters, after)
        row = connection.execute(statement, values).fetchone()
        return int(row[0]) if row else 0

    def _places(self, rows: list[Any]) -> list[Place]:
        if self.statement == "among":
            return [Place(self.part, processing, id) for id, _, processing in rows]
        return [Place(self.part, False, id) for (id,) in rows]


def _groups(connection: psycopg.Connection[Any], filters: Filters) -> Iterator[_Group]:
    many = connection.execute(_QUERIES["many_wait"], {"few": _FEW}).fetchone()
    # Where many wait, they are found on the way along the key; where few do, that way would be long.
    waiting = "walk" if many and many[0] else "among"
    for part, (statement, states, waits) in enumerate(
        (("among", RUNNING, False), (waiting, WAITING, True), ("walk", OVER, False))
    ):
        wanted = states if filters.states is None else set(states) & set(filters.states)
        if wanted:
            yield _Group(part, statement, replace(filters, states=tuple(wanted)), waits)


def _within(
    connection: psycopg.Connection[Any], most_ms: int, statement: Any, values: Mapping[str, Any]
) -> list[Any]:
    """The rows, if they come in time. Raises QueryCanceled; the transaction goes on."""
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = {most_ms}")
        rows = connection.execute(statement, values).fetchall()
        connection.execute("SET LOCAL statement_timeout TO DEFAULT")
    return rows


def _statement(
    name: str, filters: Filters, after: Place | None = None
) -> tuple[Any, dict[str, Any]]:
    given: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else value
        for name in _CLAUSES
        if (value := getattr(filters, name)) is not None
    }
    clauses = ["b.deleted_at IS NULL", *(_CLAUSES[name] for name in given)]
    if after is not None:
        clauses.append(_BEHIND_AMONG if name == "among" else _BEHIND)
        given |= {"place": after.id, "processing": after.processing}
    of_requests = [clause for clause in clauses if clause.startswith("r.")] or ["true"]
    statement = (
        _QUERIES[name]
        .replace("{filters}", " AND ".join(clauses))
        .replace("{of_batches}", " AND ".join(c for c in clauses if c.startswith("b.")))
        .replace("{of_requests}", " AND ".join(of_requests))
    )
    return statement, given
