"""Who comes by trusted header, and the organisation named like the domain of their address."""

from concurrent.futures import ThreadPoolExecutor

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


def test_of_those_who_come_first_at_once_one_owns_it(app: Flask, sql: psycopg.Connection) -> None:
    domain = f"{unique('d')}.example"
    with ThreadPoolExecutor(4) as pool:
        came = [a.status_code for a in pool.map(lambda n: come(app, f"{n}@{domain}"), "abcd")]
    assert came == [200] * 4
    roles = sql.execute("SELECT role FROM user_organizations m JOIN users o ON o.id = m.organization_id WHERE o.username = %s ORDER BY role", (domain,)).fetchall()  # fmt: skip
    assert roles == [("member",)] * 3 + [("owner",)]
