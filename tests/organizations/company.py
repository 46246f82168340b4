"""Organisations and people of one test: made by SQL, calling by key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
import psycopg
from flask import Flask
from werkzeug.test import TestResponse

from dwctl.encryption import Sealer
from tests.conftest import SECRET
from tests.identity.doors import Doors, insert_key, insert_organization, insert_user, unique


@dataclass
class Person:
    """Somebody with a platform key."""

    app: Flask
    id: UUID
    email: str
    key: str

    def __call__(self, method: str, path: str, json: Any = None, **more: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        return Doors(self.app)(None, method, path, json, headers=headers, **more)


@dataclass
class Company:
    """An organisation with one person for each name."""

    app: Flask
    sql: psycopg.Connection
    id: UUID
    people: dict[str, Person] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Person:
        return self.people[name]

    @property
    def path(self) -> str:
        return f"/organizations/{self.id}"

    def member(self, name: str) -> str:
        return f"{self.path}/members/{self[name].id}"

    def invite(self, email: str, role: str = "member") -> str:
        """Invite by the owner; gives the token of the mail."""
        answer = self["owner"]("POST", f"{self.path}/invites", {"email": email, "role": role})
        assert answer.status_code == 201, answer.text
        return token_for(self.sql, email)

    def roles(self) -> dict[UUID, str]:
        """Who is an active member, as what."""
        rows = self.sql.execute(
            "SELECT user_id, role FROM user_organizations WHERE organization_id = %s AND status = 'active'",
            (self.id,),
        )
        return dict(rows.fetchall())


def person(app: Flask, sql: psycopg.Connection, **columns: Any) -> Person:
    email = columns.pop("email", f"{unique('p')}@people.example")
    id = insert_user(sql, email=email, **columns)
    return Person(app, id, email, insert_key(sql, id))


def company(app: Flask, sql: psycopg.Connection, **roles: str) -> Company:
    """People by their name, with their role: company(app, sql, owner="owner", ann="member")."""
    made = Company(app, sql, insert_organization(sql))
    for name, role in ({"owner": "owner"} | roles).items():
        made.people[name] = person(app, sql)
        sql.execute(
            "INSERT INTO user_organizations (user_id, organization_id, role) VALUES (%s, %s, %s)",
            (made[name].id, made.id, role),
        )
    return made


def mails(sql: psycopg.Connection, email: str) -> Iterator[dict[str, str]]:
    """What the mails to an address are filled with, the newest first."""
    rows = sql.execute(
        "SELECT values_sealed FROM outgoing_mails WHERE recipient = %s ORDER BY created_at DESC, expires_at DESC",
        (email,),
    )
    for (sealed,) in rows:
        yield orjson.loads(Sealer([SECRET]).open(sealed))


def token_for(sql: psycopg.Connection, email: str) -> str:
    return next(mails(sql, email))["link"].partition("token=")[2]
