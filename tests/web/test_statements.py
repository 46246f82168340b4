"""How many statements a list takes: as many for one row as for fifty."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import event

from dwctl.db import db
from tests.cast import Cast
from tests.identity.doors import ADMIN, NIL

N = 50
LISTS = {
    "users": "/users?include=groups,billing,organizations",
    "keys": "/users/{bob}/api-keys?",
    "groups": "/groups?include=users,models",
    "endpoints": "/endpoints?",
    "models": "/models?include=groups,metrics,status,pricing,endpoints,components,facets",
    "models by price": "/models?sort=price_from&include=groups,components",
    "organizations": "/organizations?",
    "members": "/organizations/{company}/members?",
    "sessions": "/users/{bob}/sessions?",
    "audit log": "/audit-log?",
    "transactions": "/transactions?all=true",
    "one's transactions": "/transactions?user_id={bob}&group_batches=true",
}
_FILL = (
    "INSERT INTO users (username, email) SELECT 'row' || n, 'row' || n || '@x.example' FROM generate_series(1, %(n)s) n",
    "INSERT INTO users (username, email, user_type) SELECT 'org' || n, 'org' || n || '@x.example', 'organization' FROM generate_series(1, %(n)s) n",
    "INSERT INTO user_organizations (user_id, organization_id, role, status) SELECT p.id, o.id, 'member', 'active' FROM users p, users o"
    " WHERE p.username LIKE 'row%%' AND o.username = 'org1'",
    "INSERT INTO login_sessions (user_id, token_hash, expires_at) SELECT %(bob)s, sha256(n::text::bytea), now() + interval '1 hour' FROM generate_series(1, %(n)s) n",
    "INSERT INTO audit_log (action, through, resource_type, resource_id) SELECT 'user.updated', 'command', 'user', n::text FROM generate_series(1, %(n)s) n",
    "INSERT INTO user_roles (user_id, role) SELECT id, 'STANDARDUSER' FROM users WHERE username LIKE 'row%%'",
    "INSERT INTO groups (name, created_by) SELECT 'row' || n, %(nil)s FROM generate_series(1, %(n)s) n",
    "INSERT INTO user_groups (user_id, group_id) SELECT u.id, g.id FROM users u JOIN groups g ON g.name = u.username",
    "INSERT INTO api_keys (name, secret_hash, user_id, created_by) SELECT 'row' || n, sha256(n::text::bytea), %(bob)s, %(bob)s FROM generate_series(1, %(n)s) n",
    "INSERT INTO inference_endpoints (name, url, created_by) SELECT 'row' || n, 'http://127.0.0.1:1/', %(nil)s FROM generate_series(1, %(n)s) n",
    "INSERT INTO deployed_models (model_name, alias, created_by, hosted_on) SELECT 'row', e.name, %(nil)s, e.id FROM inference_endpoints e",
    "INSERT INTO deployed_models (model_name, alias, created_by, is_composite) SELECT 'row', 'all of ' || e.name, %(nil)s, true FROM inference_endpoints e",
    "INSERT INTO deployed_model_components (composite_model_id, deployed_model_id) SELECT c.id, m.id FROM deployed_models c JOIN deployed_models m ON c.alias = 'all of ' || m.alias",
    "INSERT INTO deployment_groups (deployment_id, group_id) SELECT m.id, g.id FROM deployed_models m JOIN groups g ON g.name = m.alias",
    "INSERT INTO model_tariffs (deployed_model_id, name, input_price_per_token, output_price_per_token, api_key_purpose) SELECT id, 't', 1, 1, 'realtime' FROM deployed_models",
    "INSERT INTO model_traffic_rules (deployed_model_id, api_key_purpose, action) SELECT id, 'playground', 'deny' FROM deployed_models",
    "INSERT INTO credits_transactions (user_id, transaction_type, amount, source_id, fusillade_batch_id)"
    " SELECT %(bob)s, 'usage', 1, 'row' || n, CASE WHEN n %% 5 = 0 THEN gen_random_uuid() END FROM generate_series(1, 2 * %(n)s) n",
)


@pytest.fixture(scope="module")
def named(database_url: str, cast: Cast) -> dict[str, Any]:
    """The ids in paths; there are many rows of each kind."""
    with psycopg.connect(database_url, autocommit=True) as sql:
        for statement in _FILL:
            sql.execute(statement, {"n": N, "nil": NIL, "bob": cast["bob"]})
        found = sql.execute("SELECT id FROM users WHERE username = 'org1'").fetchone()
    assert found
    return {"bob": cast["bob"], "company": found[0]}


@contextmanager
def counted(app: Flask) -> Iterator[list[str]]:
    """The statements that are sent meanwhile."""
    seen: list[str] = []
    with app.app_context():
        engine = db.engine

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_takes_as_many_statements_for_fifty_rows_as_for_one(app: Flask, named: dict[str, Any], name: str) -> None:  # fmt: skip
    client = app.test_client(use_cookies=False)
    path = f"{ADMIN}{LISTS[name].format(**named)}"
    numbers = []
    # (The first call notes the sign-in; a page that ends the list saves the counting.)
    client.get(f"{ADMIN}/config", headers=Cast.headers("admin"))
    # (Ten rows have some of each kind.)
    for limit in (10, N - 1):
        with counted(app) as seen:
            answer = client.get(f"{path}&limit={limit}", headers=Cast.headers("admin"))
        assert answer.status_code == 200, answer.text
        rows = answer.json if isinstance(answer.json, list) else answer.json["data"]
        assert len(rows) == limit
        numbers.append(len(seen))
    assert numbers[0] == numbers[1], "\n".join(seen)
    assert numbers[0] <= 25
