"""The models that an account may use, read from the database: a snapshot may be a moment behind a grant (ruling 29)."""

from __future__ import annotations

from uuid import UUID

import psycopg

from dwctl import sql
from dwctl.files.lines import UsableModel

_QUERIES = sql.load("dwctl.files")


def usable_by(connection: psycopg.Connection, owner: UUID) -> dict[str, UsableModel]:
    """By alias."""
    rows = connection.execute(_QUERIES["usable_models"], {"owner": owner}).fetchall()
    return {
        alias: UsableModel(type, frozenset(adapted or [adapter]), refuses_tools)
        for alias, type, refuses_tools, adapted, adapter in rows
    }
