"""Tells the database who acts, once in each transaction that changes something: the audit triggers read it there.

It stands in a setting that ends with the transaction (`dwctl.actor`), so it passes a transaction pooler and is never left to the next
borrower of a connection. Transactions that only read pay nothing, neither do those of nobody: duties, recorder, migrations.
"""

from __future__ import annotations

import re
from typing import Any
from weakref import WeakSet

from flask import Flask
from sqlalchemy import Connection, event
from sqlalchemy.engine import RootTransaction, Transaction
from sqlalchemy.orm import Session

from dwctl.audit import actors
from dwctl.db import db

_OF_A_SESSION = "dwctl_of_a_session"
_WRITES = re.compile(r"\b(?:INSERT\s+INTO|DELETE\s+FROM|MERGE\s+INTO|UPDATE\s[^;]*?\sSET)\b", re.I)
_STAMPED: WeakSet[Transaction] = WeakSet()


def init_app(app: Flask) -> None:
    """Stamp what the app's sessions change."""
    event.listen(db.session, "after_begin", _mark)
    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", _stamp)


def _mark(_session: Session, _transaction: Any, connection: Connection) -> None:
    """Migrations use connections of the same engine; what they move is no change that somebody has made."""
    connection.execution_options(**{_OF_A_SESSION: True})


def _stamp(
    connection: Connection,
    _cursor: Any,
    statement: str,
    _parameters: Any,
    context: Any,
    _executemany: bool,
) -> None:
    if not _changes(statement, context) or not _is_unstamped(connection):
        return
    actor = actors.current()
    if actor is not None:
        connection.exec_driver_sql(
            "SELECT set_config('dwctl.actor', %s, true)", (actor.as_setting(),)
        )


def _changes(statement: str, context: Any) -> bool:
    if context.isinsert or context.isupdate or context.isdelete:
        return True
    # A statement that was compiled as a SELECT may hold others only where it has common table expressions.
    may_hide_it = context.compiled is None or context.is_text or "WITH " in statement
    return may_hide_it and _WRITES.search(statement) is not None


def _is_unstamped(connection: Connection) -> bool:
    """Whether it is a session's, and nobody was named yet. A savepoint that is rolled back takes the name with it, so each counts for itself."""
    if not connection.get_execution_options().get(_OF_A_SESSION):
        return False
    root: RootTransaction | None = connection.get_transaction()
    innermost = connection.get_nested_transaction() or root
    if innermost is None or innermost in _STAMPED or root in _STAMPED:
        return False
    _STAMPED.add(innermost)
    return True
