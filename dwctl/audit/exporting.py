"""Entries of a query, a page at a time, with no connection held while they are read."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Engine, Select
from sqlalchemy.orm import Session

from dwctl.audit import reading
from dwctl.audit.reading import Row, Scope
from dwctl.audit.tables import AuditEntry
from dwctl.web import exporting

PAGE = 500


def stream(
    engine: Engine, scope: Scope, query: Select[AuditEntry], *, format: str
) -> Iterator[bytes]:
    """The entries of a query in its order (newest first), as JSON lines or CSV. Raises what SQLAlchemy raises, in the middle too."""
    return exporting.lines(_pages(engine, scope, query), reading.COLUMNS, format=format)


def _pages(engine: Engine, scope: Scope, query: Select[AuditEntry]) -> Iterator[list[Row]]:
    last: int | None = None
    while True:
        # A session and a transaction for each page: whoever reads slowly holds nothing.
        with Session(engine) as session:
            behind = query if last is None else query.where(AuditEntry.id < last)
            reading.plan_anew(session)
            page = session.scalars(behind.limit(PAGE)).all()
            rows = reading.as_rows(session, scope, page)
        yield rows
        if len(rows) < PAGE:
            return
        last = rows[-1]["id"]
