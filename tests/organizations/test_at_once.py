"""What must hold however many do it at the same time: real requests in parallel, on a real database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.identity.doors import Doors, insert_key, waits_for_lock
from tests.organizations.company import Company, company, person

Ask = Callable[[], TestResponse]


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_DATABASE__POOL_SIZE": "12"}


@pytest.fixture
def held(database_url: str) -> Callable[..., Any]:
    """Somebody else's lock: what is asked meanwhile comes at the same time, for certain."""

    @contextmanager
    def hold(statement: str, *values: Any) -> Iterator[None]:
        with psycopg.connect(database_url) as other:
            other.execute(statement, values)  # type: ignore[arg-type]
            yield

    return hold


def at_once(sql: psycopg.Connection, hold: Any, *asked: Ask) -> Counter[int]:
    """All of them wait for one lock, and go on together: how often which status."""
    with ThreadPoolExecutor(len(asked)) as pool:
        with hold:
            running = [pool.submit(ask) for ask in asked]
            waits_for_lock(sql, len(asked))
        return Counter(done.result().status_code for done in running)


ORGANIZATION = "SELECT 1 FROM users WHERE id = %s FOR UPDATE"


@pytest.mark.parametrize("way", ["demote", "remove", "leave", "mixed"])
def test_the_last_owner_stays(app: Flask, sql: psycopg.Connection, held: Any, way: str) -> None:
    acme = company(app, sql, one="owner", two="owner", three="owner")

    def go(name: str, how: str) -> Ask:
        return {
            "demote": lambda: acme[name]("PATCH", acme.member(name), {"role": "member"}),
            "remove": lambda: acme[name]("DELETE", acme.member(name)),
            "leave": lambda: acme[name]("POST", f"{acme.path}/leave"),
        }[how]

    ways = ["demote", "remove", "leave", "demote"] if way == "mixed" else [way] * 4
    asked = [
        go(name, how) for name, how in zip(("owner", "one", "two", "three"), ways, strict=True)
    ]
    statuses = at_once(sql, held(ORGANIZATION, acme.id), *asked)
    assert statuses[400] == 1
    assert list(acme.roles().values()).count("owner") == 1


def test_the_last_owner_stays_while_accounts_are_deleted(
    call: Doors, app: Flask, sql: psycopg.Connection, held: Any
) -> None:
    acme = company(app, sql, one="owner", two="owner", ann="member")
    asked = [lambda name=name: call("admin", "DELETE", f"/users/{acme[name].id}") for name in ("owner", "one")]  # fmt: skip
    statuses = at_once(
        sql, held(ORGANIZATION, acme.id), *asked, lambda: acme["two"]("POST", f"{acme.path}/leave")
    )
    assert statuses == {204: 2, 400: 1}
    assert sorted(acme.roles().values()) == ["member", "owner"]


def test_owners_who_remove_each_other(app: Flask, sql: psycopg.Connection, held: Any) -> None:
    acme = company(app, sql, other="owner")
    asked = [
        lambda: acme["owner"]("DELETE", acme.member("other")),
        lambda: acme["other"]("DELETE", acme.member("owner")),
    ]
    # Whoever is second is no member by then.
    assert at_once(sql, held(ORGANIZATION, acme.id), *asked) == {204: 1, 403: 1}
    assert list(acme.roles().values()) == ["owner"]


def test_who_is_demoted_meanwhile_demotes_nobody(
    app: Flask, sql: psycopg.Connection, database_url: str
) -> None:
    acme = company(app, sql, adam="admin", ann="member")
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute(ORGANIZATION, (acme.id,))
        other.execute("UPDATE user_organizations SET role = 'member' WHERE user_id = %s", (acme["adam"].id,))  # fmt: skip
        asked = pool.submit(acme["adam"], "DELETE", acme.member("ann"))
        waits_for_lock(sql)
        other.commit()
        assert asked.result().status_code == 403
    assert acme["ann"].id in acme.roles()


def test_three_memberships_at_most(app: Flask, sql: psycopg.Connection, held: Any) -> None:
    ben = person(app, sql)
    companies = [company(app, sql) for _ in range(4)]
    tokens = [c.invite(ben.email) for c in companies[:2]]
    accept = [lambda t=t: ben("POST", f"/organizations/invites/{t}/accept") for t in tokens]
    add = [lambda c=c: c["owner"]("POST", f"{c.path}/members", {"user_id": str(ben.id)}) for c in companies[2:]]  # fmt: skip
    create = [lambda n=n: ben("POST", "/organizations", {"name": f"{n}.{ben.id}", "email": "a@b.example"}) for n in "ab"]  # fmt: skip
    # Shared, so that they still can be signed in.
    statuses = at_once(sql, held("SELECT 1 FROM users WHERE id = %s FOR SHARE", ben.id), *accept, *add, *create)  # fmt: skip
    assert sum(statuses[s] for s in (200, 201)) == 3
    assert statuses[400] == 3
    assert ben("GET", "/organizations").json["total_count"] == 3


def test_one_invitation(app: Flask, sql: psycopg.Connection, held: Any) -> None:
    acme = company(app, sql)
    email = f"x@{acme.id}.example"
    asked = [lambda e=e: acme["owner"]("POST", f"{acme.path}/invites", {"email": e}) for e in (email, email.upper(), email)]  # fmt: skip
    assert at_once(sql, held(ORGANIZATION, acme.id), *asked) == {201: 1, 409: 2}


def test_an_invitation_is_answered_once(app: Flask, sql: psycopg.Connection, held: Any) -> None:
    acme = company(app, sql)
    ben = person(app, sql)
    path = f"/organizations/invites/{acme.invite(ben.email)}"
    asked = [lambda verb=verb: ben("POST", f"{path}/{verb}") for verb in ("accept", "decline", "accept")]  # fmt: skip
    assert at_once(sql, held(ORGANIZATION, acme.id), *asked) == {200: 1, 404: 2}


def test_nobody_is_added_twice(app: Flask, sql: psycopg.Connection, held: Any) -> None:
    acme = company(app, sql)
    ben = {"user_id": str(person(app, sql).id)}
    asked = [lambda: acme["owner"]("POST", f"{acme.path}/members", ben)] * 3
    assert at_once(sql, held(ORGANIZATION, acme.id), *asked) == {201: 1, 409: 2}


def _living_keys(sql: psycopg.Connection, acme: Company) -> int:
    row = sql.execute("SELECT count(*) FROM api_keys WHERE user_id = %s AND NOT is_deleted", (acme.id,)).fetchone()  # fmt: skip
    assert row
    return int(row[0])


@pytest.mark.parametrize("how", ["remove", "delete"])
def test_a_key_that_is_being_made_ends_with_the_membership(
    call: Doors, app: Flask, sql: psycopg.Connection, database_url: str, how: str
) -> None:
    acme = company(app, sql, ann="member")
    ann = acme["ann"]
    insert_key(sql, ann.id, acme.id)
    with psycopg.connect(database_url) as making, ThreadPoolExecutor(1) as pool:
        # As the route does it: the membership is held until the key is there.
        making.execute("SELECT 1 FROM user_organizations WHERE user_id = %s FOR SHARE", (ann.id,))
        asked = pool.submit(call, "admin", "DELETE", acme.member("ann") if how == "remove" else acme.path)  # fmt: skip
        waits_for_lock(sql)
        making.execute("INSERT INTO api_keys (name, user_id, created_by, secret_hash) VALUES ('late', %s, %s, %s)", (acme.id, ann.id, how.encode()))  # fmt: skip
        making.commit()
        assert asked.result().status_code == 204
    assert _living_keys(sql, acme) == 0


def test_no_key_is_made_once_the_membership_is_gone(
    app: Flask, sql: psycopg.Connection, database_url: str
) -> None:
    acme = company(app, sql, ann="member")
    with psycopg.connect(database_url) as removing, ThreadPoolExecutor(1) as pool:
        removing.execute("DELETE FROM user_organizations WHERE user_id = %s", (acme["ann"].id,))
        asked = pool.submit(acme["ann"], "POST", f"/users/{acme.id}/api-keys", {"name": "late"})
        waits_for_lock(sql)
        removing.commit()
        assert asked.result().status_code == 403
    assert _living_keys(sql, acme) == 0


def test_keys_are_made_while_members_are_changed(
    call: Doors, app: Flask, sql: psycopg.Connection, held: Any
) -> None:
    acme = company(app, sql)
    path = f"/users/{acme.id}/api-keys"
    with held("SELECT 1 FROM users WHERE id = %s FOR NO KEY UPDATE", acme.id):
        assert acme["owner"]("POST", path, {"name": "k"}).status_code == 201
        assert call("admin", "POST", path, {"name": "k"}).status_code == 201


def test_an_invitation_that_a_duty_forgets_meanwhile_is_not_sent_again(
    app: Flask, sql: psycopg.Connection, held: Any
) -> None:
    acme = company(app, sql)
    wanted = {"email": "late@invited.example", "role": "member"}
    id = acme["owner"]("POST", f"{acme.path}/invites", wanted).json["id"]
    statuses = at_once(
        sql,
        held("DELETE FROM user_organizations WHERE id = %s", id),
        lambda: acme["owner"]("POST", f"{acme.path}/invites/{id}/resend"),
    )
    assert statuses == {503: 1}
