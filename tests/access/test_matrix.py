"""Every route as everybody, on what is theirs and what is not, against docs/permissions.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from dwctl.access.caller import Caller
from dwctl.access.permissions import ROLES, Operation, Resource, may_all, may_own
from dwctl.clock import uuid7
from dwctl.sources import sealing
from dwctl.web import current
from tests.access import page
from tests.access.page import KEYS_ONLY, LETTERS, MEMBERSHIPS, OPEN, PURPOSES, Row
from tests.cast import Cast
from tests.identity.doors import NOBODY, insert_key, insert_organization, insert_user, unique

Sql = psycopg.Connection[Any]
Headers = dict[str, str]
ROWS = list(page.rows())
_SOURCE = {"bucket": "b", "region": "eu-1", "endpoint_url": "http://127.0.0.1:1/", "access_key_id": "x", "secret_access_key": "x"}  # fmt: skip

# Where an empty body is refused before it is known whose things they are.
BODIES = {"POST /ai/v1/batches/{batch}/retry-requests": {"request_ids": ["x"]}}

# --- the page is complete


def test_every_route_has_a_row(app: Flask) -> None:
    routes = {
        (method, page.shape(rule.rule)): rule.rule
        for rule in app.url_map.iter_rules()
        # Pages run the operations that have rows here, under the same rules (tests/dashboard).
        if not rule.endpoint.startswith("ui_")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    written = {row.route for row in ROWS}
    missing = [f"| {method} {path.partition('/admin/api/v1')[2] or path} | ? | | | | |" for (method, at), path in sorted(routes.items()) if (method, at) not in written]  # fmt: skip
    hint = f"say in {page.PAGE} who may use these (roles, own, organisation's, else, keys):\n"
    assert not missing, hint + "\n".join(missing)
    gone = [str(row) for row in ROWS if row.route not in routes]
    assert not gone, f"{page.PAGE} names routes that are not there:\n" + "\n".join(gone)
    assert len(written) == len(ROWS)


def test_the_permissions_of_each_role_are_those_of_the_page() -> None:
    assert set(LETTERS.values()) == set(ROLES)
    said = {(resource, role): (reach, operations) for resource, role, reach, operations in page.permissions()}  # fmt: skip
    assert {resource for resource, _ in said} == set(Resource)
    for resource in Resource:
        for role in ROLES:
            caller = Caller(UUID(NOBODY), "x", "x", frozenset({role}), False, "test")
            everybodys, own = (
                "".join(o[0] for o in Operation if may(caller, resource, o))
                for may in (may_all, may_own)
            )
            reach, operations = said.get((resource, role), ("own", ""))
            assert own == operations, (resource, role)
            assert everybodys == (operations if reach == "all" else ""), (resource, role)


# --- and true


@dataclass
class People:
    """Who comes: each role alone, an administrator, members of an organisation, keys of each purpose. Name to id and headers."""

    roles: dict[str, tuple[UUID, Headers]]
    admin: tuple[UUID, Headers]
    other: UUID
    organization: UUID
    members: dict[str, tuple[UUID, Headers]]
    keys: dict[str, Headers]


@dataclass
class Things:
    """Makes what a path names, for an owner; `creator` is whose of an organisation's keys it is."""

    sql: Sql
    app: Flask
    people: People

    def make(self, kind: str, owner: UUID, creator: UUID) -> str:
        maker = getattr(self, f"_{kind}", None)
        return str(maker(owner, creator)) if maker else NOBODY

    def _one(self, statement: str, *values: Any) -> Any:
        row = self.sql.execute(statement, values).fetchone()  # type: ignore[arg-type]
        assert row
        return row[0]

    def _user(self, owner: UUID, _creator: UUID) -> UUID:
        return owner

    def _organization(self, owner: UUID, _creator: UUID) -> UUID:
        if owner == self.people.organization:
            return owner
        return insert_organization(self.sql, owner=self.people.other)

    def _left(self, owner: UUID, creator: UUID) -> UUID:
        """Another one, as its member is gone then."""
        if owner == self.people.organization:
            return insert_organization(self.sql, owner=self.people.other, member=creator)
        return self._organization(owner, creator)

    def _entry(self, _owner: UUID, _creator: UUID) -> int:
        return 1

    def _key(self, owner: UUID, creator: UUID) -> UUID:
        secret = insert_key(self.sql, creator, owner, "realtime")
        return self._one("SELECT id FROM api_keys WHERE secret_hash = sha256(%s)", secret.encode())  # type: ignore[no-any-return]  # fmt: skip

    def _model(self, owner: UUID, _creator: UUID) -> UUID:
        model, group = (
            self._one("INSERT INTO deployed_models (model_name, alias, created_by, is_composite) VALUES ('m', %s, %s, true) RETURNING id", unique("m"), owner),
            self._one("INSERT INTO groups (name, created_by) VALUES (%s, %s) RETURNING id", unique("g"), owner),
        )  # fmt: skip
        self.sql.execute("INSERT INTO user_groups (user_id, group_id) VALUES (%s, %s)", [owner, group])  # fmt: skip
        self.sql.execute("INSERT INTO deployment_groups (deployment_id, group_id) VALUES (%s, %s)", [model, group])  # fmt: skip
        return model  # type: ignore[no-any-return]

    def _transaction(self, owner: UUID, _creator: UUID) -> UUID:
        return self._one("INSERT INTO credits_transactions (user_id, transaction_type, amount, source_id) VALUES (%s, 'admin_grant', 1, %s) RETURNING id", owner, unique())  # type: ignore[no-any-return]  # fmt: skip

    def _file(self, owner: UUID, _creator: UUID) -> UUID:
        return self._one("INSERT INTO fusillade.files (name, purpose, uploaded_by) VALUES ('f', 'batch', %s) RETURNING id", str(owner))  # type: ignore[no-any-return]  # fmt: skip

    def _batch(self, owner: UUID, _creator: UUID) -> UUID:
        return self._one("INSERT INTO fusillade.batches (created_by, expires_at, requests_started_at, total_requests) VALUES (%s, now() + interval '1 day', now(), 1) RETURNING id", str(owner))  # type: ignore[no-any-return]  # fmt: skip

    def _request(self, owner: UUID, _creator: UUID) -> UUID:
        values = {"id": uuid7(), "owner": str(owner)}
        for statement in (
            "INSERT INTO fusillade.request_templates (id, endpoint, method, path, body, model, single) VALUES (%(id)s, '', 'POST', '/v1/responses', '{\"input\":\"x\"}', 'm', true)",
            "INSERT INTO fusillade.batches (id, created_by, expires_at, total_requests, single) VALUES (%(id)s, %(owner)s, now() + interval '1 day', 1, true)",
            "INSERT INTO fusillade.requests (id, batch_id, template_id, model, state, service_tier, started_at, response_status, response_body, completed_at)"
            " VALUES (%(id)s, %(id)s, %(id)s, 'm', 'completed', 'priority', now(), 200, '{}', now())",
        ):
            self.sql.execute(statement, values)
        return values["id"]  # type: ignore[return-value]

    def _response(self, owner: UUID, creator: UUID) -> str:
        return f"resp_{self._request(owner, creator)}"

    def _call(self, owner: UUID, _creator: UUID) -> UUID:
        return self._one("INSERT INTO http_analytics (request_id, timestamp, method, uri, status_code, duration_ms, user_id) VALUES (gen_random_uuid(), now(), 'POST', '/', 200, 1, %s) RETURNING request_id", owner)  # type: ignore[no-any-return]  # fmt: skip

    def _connection(self, owner: UUID, creator: UUID) -> UUID:
        sealed = sealing.seal(_SOURCE, current.parts(self.app).settings)
        return self._one("INSERT INTO connections (owner_id, created_by, provider, name, config_sealed) VALUES (%s, %s, 's3', 'c', %s) RETURNING id", owner, creator, sealed)  # type: ignore[no-any-return]  # fmt: skip

    def path(self, row: Row, owner: UUID, creator: UUID) -> str:
        """The row's path with everything in it made for this owner."""
        path, made = row.path, ""
        for kind in [part.partition("}")[0] for part in row.path.split("{")[1:]]:
            if kind == "sync":
                id = self._one("INSERT INTO sync_operations (connection_id, created_by, strategy, endpoint, completion_window) VALUES (%s, %s, 'snapshot', '/v1/chat/completions', '24h') RETURNING id", made, creator)  # fmt: skip
                made = str(id)
            else:
                made = {"surface": "chat/completions", "other": "rerank"}.get(kind) or self.make(kind, owner, creator)  # fmt: skip
            path = path.replace("{" + kind + "}", made, 1)
        return path


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_OUTBOUND__SOURCES": "public"}


@pytest.fixture(scope="module")
def own_sql(database_url: str) -> Iterator[Sql]:
    with psycopg.connect(database_url, autocommit=True, options="-c dwctl.queue=own") as sql:
        yield sql


@pytest.fixture(scope="module")
def people(own_sql: Sql, cast: Cast) -> People:
    sql = own_sql

    def person(*roles: str, **columns: Any) -> tuple[UUID, Headers]:
        email = f"{unique()}@matrix.example"
        id = insert_user(sql, *roles, email=email, external_user_id=email, **columns)
        return id, {"x-doubleword-user": email}

    everywhere = ("STANDARDUSER", "BATCHAPIUSER", "CONNECTIONSUSER")
    members = {role: person(*everywhere) for role in MEMBERSHIPS}
    admin = person("CONNECTIONSUSER", is_admin=True)
    organization = insert_organization(sql, **{role: id for role, (id, _) in members.items()})
    return People(
        roles={letter: person(role.upper()) for letter, role in LETTERS.items()},
        admin=admin,
        other=person(*everywhere)[0],
        organization=organization,
        members=members,
        keys={p: {"Authorization": f"Bearer {insert_key(sql, admin[0], purpose=p)}"} for p in PURPOSES},
    )  # fmt: skip


@pytest.fixture(scope="module")
def knock(app: Flask, own_sql: Sql, people: People) -> Iterator[Callable[..., TestResponse]]:
    """Calls a row's route on an owner's things. Inference needs the routing value: it is read once."""
    things = Things(own_sql, app, people)
    client = app.test_client(use_cookies=False)
    gateway = app.extensions["dwctl.gateway"]
    gateway.started = True
    gateway.snapshot.start(gateway.wakeups)
    assert gateway.snapshot.wait_loaded(20)

    def knock(row: Row, headers: Headers, owner: UUID, creator: UUID | None = None) -> TestResponse:
        body = BODIES.get(str(row), {}) if row.method in ("POST", "PUT", "PATCH") else None
        path = things.path(row, owner, creator or owner)
        return client.open(path, method=row.method, json=body, headers=headers)

    yield knock
    gateway.snapshot.stop()


def assert_let_in(row: Row, answer: TestResponse, who: str) -> None:
    """Not refused, whatever the route then says to an empty body or an unknown id."""
    refused = (401, 403, 404) if row.is_about_an_owner and row.otherwise else (401, 403)
    assert answer.status_code not in refused, f"{row} refuses {who}: {answer.text[:300]}"
    assert answer.status_code < 500 or answer.status_code == 502, f"{row}: {answer.text[:300]}"


def assert_refused(row: Row, answer: TestResponse, who: str, status: int) -> None:
    assert answer.status_code == status, f"{row} lets in {who}: {answer.status_code} {answer.text[:300]}"  # fmt: skip
    said = answer.json.get("error", answer.json)
    assert said["message"], f"{row} refuses {who} without a word"


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_who_may_use_a_route(row: Row, knock: Callable[..., TestResponse], people: People) -> None:
    if row.everybodys == OPEN:
        assert_let_in(row, knock(row, {}, people.other), "strangers")
        return
    assert_refused(row, knock(row, {}, people.other), "strangers", 401)
    for letter, (id, headers) in people.roles.items():
        role = LETTERS[letter]
        if row.everybodys == KEYS_ONLY:
            assert_refused(row, knock(row, headers, people.other), role, 401)
            continue
        answer = knock(row, headers, people.other)
        if letter in row.everybodys.split():
            assert_let_in(row, answer, role)
        else:
            assert_refused(row, answer, role, row.refusal(letter))
        if letter in row.own.split():
            assert_let_in(row, knock(row, headers, id), f"{role} at their own")
        elif row.is_about_an_owner and letter not in row.everybodys.split():
            assert_refused(row, knock(row, headers, id), f"{role} at their own", row.refusal(letter))  # fmt: skip


@pytest.mark.parametrize("row", [row for row in ROWS if row.everybodys != OPEN], ids=str)
def test_administrators_and_keys(row: Row, knock: Callable[..., TestResponse], people: People) -> None:  # fmt: skip
    id, headers = people.admin
    has_something = row.everybodys or row.own
    if not has_something:
        assert_refused(row, knock(row, headers, people.other), "an administrator", row.refusal(""))
    elif row.everybodys != KEYS_ONLY:
        assert_let_in(row, knock(row, headers, id), "an administrator")
        answer = knock(row, headers, people.other)
        if row.everybodys:
            assert_let_in(row, answer, "an administrator at anybody's")
        else:
            assert_refused(row, answer, "an administrator at anybody's", 404)
    for purpose, key in people.keys.items():
        answer = knock(row, key, id)
        if purpose in row.keys.split() and has_something:
            assert_let_in(row, answer, f"{purpose} keys")
        elif purpose not in row.keys.split():
            status = 403 if row.path.startswith("/ai/") else 401
            assert_refused(row, answer, f"{purpose} keys", status)


@pytest.mark.parametrize("row", [row for row in ROWS if row.is_about_an_owner], ids=str)
def test_what_members_of_an_organisation_may(row: Row, knock: Callable[..., TestResponse], people: People) -> None:  # fmt: skip
    organization = people.organization
    least = MEMBERSHIPS.index(row.least) if row.least else len(MEMBERSHIPS)
    for rank, membership in enumerate(MEMBERSHIPS):
        id, headers = people.members[membership]
        acting = headers | {"X-Organization-Id": str(organization)}
        answer = knock(row, acting, organization, id)
        if rank >= least:
            assert_let_in(row, answer, f"{membership} of the organisation")
        else:
            assert_refused(row, answer, f"{membership} of the organisation", 403)
