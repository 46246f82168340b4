"""Who comes by trusted header, and the organisation named like the domain of their address."""

import psycopg
import pytest
from flask import Flask

from tests.identity.doors import insert_organization, insert_user, unique
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
