"""How the sums are asked: one moment for all statements of a transaction, rows by the names of their columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from dwctl import sql
from dwctl.db import Connections, DatabaseAway
from dwctl.usage.spans import Kept

QUERIES = sql.load("dwctl.usage")

Row = Any
"""A row with the columns of its statement as attributes."""


@dataclass(slots=True)
class _Shared:
    """What readings of one moment have in common."""

    connection: psycopg.Connection[Any]
    kept: Kept | None = None


_SHARED: ContextVar[_Shared | None] = ContextVar("dwctl_usage_moment", default=None)


@contextmanager
def moment(connections: Connections) -> Iterator[psycopg.Connection[Any]]:
    """A transaction in which every statement sees the same moment. Raises DatabaseAway."""
    shared = _SHARED.get()
    if shared is None:
        with connections.moment() as connection:
            yield connection
        return
    try:
        yield shared.connection
    except psycopg.OperationalError as error:
        raise DatabaseAway from error


@contextmanager
def one_moment(connections: Connections) -> Iterator[None]:
    """Have all that is read within be of the same moment, by one transaction. Raises DatabaseAway."""
    with connections.moment() as connection:
        before = _SHARED.set(_Shared(connection))
        try:
            yield
        finally:
            _SHARED.reset(before)


def kept(connection: psycopg.Connection[Any]) -> Kept:
    """Since when each grain is kept; asked before the sums of a transaction, which are then read by their indexes."""
    shared = _SHARED.get()
    if shared is None or shared.connection is not connection:
        return _opening(connection)
    if shared.kept is None:
        shared.kept = _opening(connection)
    return shared.kept


def _opening(connection: psycopg.Connection[Any]) -> Kept:
    return {row.grain: row.since for row in ask(connection, "opening", {})}


def ask(
    connection: psycopg.Connection[Any], name: str, values: Mapping[str, Any], **parts: str
) -> list[Row]:
    """The rows of a statement; `parts` stand for what is in braces there."""
    statement = QUERIES[name].format(**parts) if parts else QUERIES[name]
    cursor: psycopg.Cursor[Any] = connection.cursor(row_factory=namedtuple_row)
    return cursor.execute(statement.encode(), values).fetchall()
