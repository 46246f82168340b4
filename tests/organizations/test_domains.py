"""Who comes by trusted header, and the organisation named like the domain of their address."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from flask import Flask

from tests.identity.doors import ADMIN, Doors, insert_organization, insert_user, register, unique
from tests.identity.test_trusted_headers import come


@pytest.mark.parametrize(
    ("address", "source", "joins"),
    [
        ("boss@{}", "proxy-header", True),
        ("BOSS@{}", "system", True),
        ("boss@{}", "native", False),
        ("boss@gmail.com", "proxy-header", False),
        ("boss@sub.{}", "proxy-header", False),
    ],
)
def test_strangers_join_only_who_is_of_that_domain(
    app: Flask, sql: psycopg.Connection, address: str, source: str, joins: bool
) -> None:
    domain = f"{unique('d')}.example"
    owner = insert_user(sql, email=address.format(domain), auth_source=source)
    organization = insert_organization(sql, owner=owner)
    sql.execute("UPDATE users SET username = %s WHERE id = %s", (domain, organization))
    user = come(app, f"ann@{domain}")
    assert user.status_code == 200
    roles = dict(sql.execute("SELECT user_id::text, role FROM user_organizations WHERE organization_id = %s", (organization,)).fetchall())  # fmt: skip
    assert roles.get(user.json["id"]) == ("member" if joins else None)


@pytest.mark.parametrize("adds", ["founder", "administrator", "invitation"])
def test_an_owner_who_was_not_asked_brings_no_strangers(
    app: Flask, call: Doors, sql: psycopg.Connection, adds: str
) -> None:
    domain = f"{unique('d')}.example"
    founder, user = register(app)
    body = {"name": domain, "email": user["email"]}
    organization = founder.post(f"{ADMIN}/organizations", json=body).json["id"]
    boss = str(insert_user(sql, email=f"boss@{domain}"))
    members = f"/organizations/{organization}/members"
    given = {"user_id": boss, "role": "owner"}
    if adds == "administrator":
        assert call("admin", "POST", members, given).status_code == 201
    else:
        assert founder.post(f"{ADMIN}{members}", json=given).status_code == 201
    if adds == "invitation":
        gone = "UPDATE user_organizations SET user_id = NULL, status = 'pending', invite_email = %s, invite_token_hash = %s, expires_at = now() + interval '1 hour' WHERE user_id = %s"
        sql.execute(gone, (f"boss@{domain}", hashlib.sha256(b"token").hexdigest(), boss))
        accepting = f"{ADMIN}/organizations/invites/token/accept"
        came = {"x-doubleword-user": f"boss@{domain}"}
        assert app.test_client(use_cookies=False).post(accepting, headers=came).status_code == 200
    ann = come(app, f"ann@{domain}").json["id"]
    joined = "SELECT count(*) FROM user_organizations WHERE user_id = %s AND organization_id = %s"
    row = sql.execute(joined, (ann, organization)).fetchone()
    assert row == (0 if adds == "founder" else 1,)


def test_of_those_who_come_first_at_once_one_owns_it(app: Flask, sql: psycopg.Connection) -> None:
    domain = f"{unique('d')}.example"
    with ThreadPoolExecutor(4) as pool:
        came = [a.status_code for a in pool.map(lambda n: come(app, f"{n}@{domain}"), "abcd")]
    assert came == [200] * 4
    roles = sql.execute("SELECT role FROM user_organizations m JOIN users o ON o.id = m.organization_id WHERE o.username = %s ORDER BY role", (domain,)).fetchall()  # fmt: skip
    assert roles == [("member",)] * 3 + [("owner",)]
