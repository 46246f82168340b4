"""The cast: users inserted by SQL with few columns, as an operator would.

admin is a platform manager, alice and bob are standard users; each signs in by the trusted header (`headers("alice")`).
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import psycopg

ROLES = {
    "admin": ("PLATFORMMANAGER", "STANDARDUSER"),
    "alice": ("STANDARDUSER", "BATCHAPIUSER"),
    "bob": ("STANDARDUSER", "BATCHAPIUSER"),
    "viewer": ("REQUESTVIEWER", "STANDARDUSER"),
    "biller": ("BILLINGMANAGER", "STANDARDUSER"),
}


@dataclass(frozen=True)
class Cast:
    """Name to user id."""

    ids: dict[str, UUID]

    @classmethod
    def create(cls, database_url: str) -> Cast:
        """Insert them (username, email and external id only) with their roles."""
        ids: dict[str, UUID] = {}
        with psycopg.connect(database_url, autocommit=True) as sql:
            for name, roles in ROLES.items():
                email = f"{name}@cast.example"
                row = sql.execute(
                    "INSERT INTO users (username, email, external_user_id) VALUES (%s, %s, %s) RETURNING id",
                    (name, email, email),
                ).fetchone()
                assert row
                ids[name] = row[0]
                for role in roles:
                    sql.execute(
                        "INSERT INTO user_roles (user_id, role) VALUES (%s, %s)", (ids[name], role)
                    )
        return cls(ids)

    def __getitem__(self, name: str) -> UUID:
        return self.ids[name]

    @staticmethod
    def headers(name: str) -> dict[str, str]:
        """The trusted header by which one of them signs in."""
        return {"x-doubleword-user": f"{name}@cast.example"}
