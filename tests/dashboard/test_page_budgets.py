"""How many statements pages and their parts take: as many as `benchmarks/pages.py` promises, three beside the sign-in or a number with its reason.

A page that takes fewer lowers its number there; none raises it unseen. What only prepares others (pings of the pool, settings of a transaction) is not counted.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from flask import Flask

from benchmarks import logged
from benchmarks.pages import FRAGMENTS, PAGES, PART, STATEMENTS, Asked, counted, ids_of
from dwctl.dashboard.navigation import ITEMS
from tests.cast import Cast
from tests.dashboard import forms
from tests.identity.doors import NIL

SIGN_IN = 1
MODELS = 10
CALLS = 3000
_FILL = (
    "INSERT INTO inference_endpoints (id, name, url, created_by) VALUES (md5('one')::uuid, 'one', 'http://127.0.0.1:1/', %(nil)s)",
    "INSERT INTO deployed_models (model_name, alias, created_by, hosted_on) SELECT 'm', 'model-' || n, %(nil)s, md5('one')::uuid FROM generate_series(0, 9) n",
    "INSERT INTO deployment_groups (deployment_id, group_id) SELECT id, %(nil)s FROM deployed_models",
    "INSERT INTO api_keys (name, secret_hash, user_id, created_by) SELECT 'k' || n, sha256(n::text::bytea), %(admin)s, %(admin)s FROM generate_series(1, 10) n",
    "INSERT INTO groups (name, created_by) SELECT 'g' || n, %(nil)s FROM generate_series(1, 10) n",
)


_SUMS = """
INSERT INTO usage_deltas (at, model, user_id, api_key_id, status_code, calls, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens,
                          total_tokens, cost, duration_ms, ttfb_ms)
SELECT timestamp, model, user_id, api_key_id, status_code, 1, prompt_tokens, completion_tokens, 0, 0, total_tokens, coalesce(total_cost, 0),
       duration_ms, duration_to_first_byte_ms FROM http_analytics
"""


@pytest.fixture(scope="module")
def things(database_url: str, cast: Cast) -> dict[str, Any]:
    """Ten and more of what lists are of, and calls of a month: a statement for each row would show. The admin may see all. Gives the ids of one of each."""
    with psycopg.connect(database_url, autocommit=True) as sql:
        for statement in _FILL:
            sql.execute(statement, {"nil": NIL, "admin": cast["admin"]})
        sql.execute("UPDATE users SET is_admin = true WHERE id = %s", (cast["admin"],))
        logged.fill(sql, CALLS, with_bodies=10, models=MODELS)
        sql.execute(_SUMS)
        return ids_of(sql)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_takes_few_statements(app: Flask, things: dict[str, Any], name: str) -> None:
    _keeps_to(app, PAGES[name], things, {})


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_part_takes_few_statements(app: Flask, things: dict[str, Any], name: str) -> None:
    _keeps_to(app, FRAGMENTS[name], things, PART)


def _keeps_to(app: Flask, page: Asked, ids: dict[str, Any], headers: dict[str, str]) -> None:
    client, address = app.test_client(use_cookies=False), page.address.format(**ids)
    # (What a process reads once, and the note of a sign-in, are not the page's.)
    assert forms.get(client, "admin", address).status_code == 200
    with counted() as seen:
        assert client.get(address, headers=Cast.headers("admin") | headers).status_code == 200
    assert len(seen.own) <= page.statements, "\n".join(seen.own)
    assert len(seen.sign_in) <= SIGN_IN, "\n".join(seen.sign_in)


def test_more_than_three_statements_have_a_reason() -> None:
    assert all(page.why for page in (*PAGES.values(), *FRAGMENTS.values()) if page.statements > STATEMENTS)  # fmt: skip


def test_every_screen_has_a_budget(app: Flask) -> None:
    with app.test_request_context():
        screens = {app.url_for(f"ui_{item.name}.show") for item in ITEMS}
    assert screens <= {page.address for page in PAGES.values()}


def test_a_list_that_is_typed_into_asks_for_no_filters(app: Flask, things: dict[str, Any]) -> None:  # fmt: skip
    client = app.test_client(use_cookies=False)
    for headers, asks in (({}, True), (PART, False)):
        with counted() as seen:
            answer = client.get("/models?search=m", headers=Cast.headers("admin") | headers)
        assert ("<html" in answer.text) is asks
        assert any("unnest(models.capabilities)" in each for each in seen.own) is asks
