"""A query's order as keys, and the condition that finds the rows behind a position in it.

Unlike `OFFSET`, that costs the same on every page, and rows that come or go meanwhile move no other row to another page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import Column, ColumnElement, Select, Text, and_, cast, literal, or_, tuple_
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.types import NullType

from dwctl.web.cursors import Position


@dataclass(frozen=True, slots=True)
class Key:
    """One expression of an order. Rows without a value stand last."""

    value: ColumnElement[Any]
    descending: bool
    nullable: bool

    @classmethod
    def of(cls, clause: ColumnElement[Any]) -> Self:
        """The key that a clause of ORDER BY stands for."""
        descending = nulls_last = False
        while isinstance(clause, UnaryExpression) and clause.modifier is not None:
            descending |= clause.modifier is operators.desc_op
            nulls_last |= clause.modifier is operators.nulls_last_op
            clause = clause.element
        nullable = not _is_never_null(clause)
        if nullable and descending and not nulls_last:
            raise TypeError(f"{clause}: rows without a value must stand last (nulls_last)")
        return cls(clause, descending, nullable)

    @property
    def name(self) -> str:
        """What of it makes one order different from another."""
        named = getattr(self.value, "key", None) or type(self.value).__name__
        return f"{named} {'desc' if self.descending else 'asc'}"

    @property
    def text(self) -> ColumnElement[str]:
        """The value as a text that is exact, to be read back by `typed`."""
        return cast(self.value, Text())

    def behind(self, value: str) -> ColumnElement[bool]:
        """Which values come later, among those that are there."""
        typed = self.typed(value)
        return self.value < typed if self.descending else self.value > typed

    def typed(self, text: str) -> ColumnElement[Any]:
        """The value that `text` gave."""
        kind = self.value.type
        return literal(text, Text()) if isinstance(kind, NullType) else cast(literal(text, Text()), kind)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Order:
    """All keys of an order; the last one is a primary key, so that no two rows have the same position."""

    keys: tuple[Key, ...]

    @classmethod
    def of(cls, query: Select[Any]) -> Self:
        """The order of a query. TypeError for one in which two rows may have the same place."""
        keys = tuple(map(Key.of, query._order_by_clauses))
        if not keys or not _is_primary(keys[-1].value):
            raise TypeError("a list is ordered by its primary key in the end")
        return cls(keys)

    @property
    def name(self) -> str:
        """What a cursor is bound to."""
        return ", ".join(key.name for key in self.keys)

    def behind(self, position: Position) -> ColumnElement[bool]:
        """The rows that come later. (Where a row comparison can say it, an index can be entered at that very place.)"""
        first, *_ = self.keys
        if any(key.nullable or key.descending != first.descending for key in self.keys):
            return _behind(self.keys, position)
        values = [key.typed(text or "") for key, text in zip(self.keys, position, strict=True)]
        row, place = tuple_(*(key.value for key in self.keys)), tuple_(*values)
        return row < place if first.descending else row > place


def _behind(keys: Sequence[Key], position: Position) -> ColumnElement[bool]:
    (key, *others), (text, *rest) = keys, position
    if text is None:
        return and_(key.value.is_(None), _behind(others, rest))
    later = [key.behind(text)]
    if key.nullable:
        later.append(key.value.is_(None))
    if others:
        later.append(and_(key.value == key.typed(text), _behind(others, rest)))
    return or_(*later)


def _column(value: ColumnElement[Any]) -> Column[Any] | None:
    found = getattr(value, "expression", value)
    return found if isinstance(found, Column) else None


def _is_never_null(value: ColumnElement[Any]) -> bool:
    column = _column(value)
    return column is not None and not column.nullable


def _is_primary(value: ColumnElement[Any]) -> bool:
    column = _column(value)
    return column is not None and column.primary_key
