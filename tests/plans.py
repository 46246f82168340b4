"""How PostgreSQL runs what the application asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from sqlalchemy import event, text

from dwctl.db import db


def plan_of(app: Flask, ask: Callable[[Any], object], beginning: str) -> str:
    """How PostgreSQL runs the first statement that begins so, whether or not a table is large enough to need its index."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        seen.append((statement, values))

    with app.app_context():
        session = db.session()
        event.listen(db.engine, "before_cursor_execute", note)
        try:
            ask(session)
        finally:
            event.remove(db.engine, "before_cursor_execute", note)
        statement, values = next(one for one in seen if one[0].startswith(beginning))
        session.execute(text("SET LOCAL enable_seqscan = off"))
        session.execute(text("SET LOCAL enable_bitmapscan = off"))
        rows = session.connection().exec_driver_sql(f"EXPLAIN {statement}", values).all()
        session.rollback()
    return "\n".join(row[0] for row in rows)
