"""How many statements a page takes: three beside its sign-in, or the reason stands here. A page that takes fewer lowers its number; none raises it unseen.

What only prepares others (pings of the pool, settings of a transaction) is not counted. Time: `benchmarks/pages.py`.
"""

from __future__ import annotations

import psycopg
import pytest
from flask import Flask

from benchmarks.pages import counted
from tests.cast import Cast
from tests.dashboard import forms
from tests.identity.doors import NIL

SIGN_IN = 1
MOST = {
    # (Not the overview: with nothing called yet it is the first steps. With calls it takes eight.)
    "/requests": 2,
    "/playground": 3,
    # Since when sums are kept, the sums, their times, and what was before: of one moment, in one transaction.
    "/usage": 4,
    # One for each thing that stands beside a model (rules, groups, sums of three times, tariffs, endpoint), and one for each filter.
    "/models": 13,
    "/models/m1": 10,
    "/models/m1?tab=routing": 5,
    "/models/m1?tab=prices": 4,
    "/models/m1?tab=access": 7,
    # With the models of all and their calls of an hour.
    "/endpoints": 4,
    # The page and how many there are, their retired secrets, owners and makers.
    "/keys": 4,
    # The page and how many there are, their roles, groups and balances.
    "/people": 5,
    # Of one person the groups, the balance, the sign-ins, what they may call and by which groups; and the names of all groups.
    "/people/{admin}": 7,
    "/people/groups": 1,
    "/people/organizations": 1,
    "/batches": 2,
    "/files": 1,
    "/queue": 2,
    # Entries, account, balance, and what a day costs (two).
    "/credits": 5,
    "/settings": 1,
    "/settings/audit": 1,
    "/account": 2,
}
_FILL = (
    "INSERT INTO inference_endpoints (id, name, url, created_by) VALUES (md5('one')::uuid, 'one', 'http://127.0.0.1:1/', %(nil)s)",
    "INSERT INTO deployed_models (model_name, alias, created_by, hosted_on) SELECT 'm', 'm' || n, %(nil)s, md5('one')::uuid FROM generate_series(1, 10) n",
    "INSERT INTO api_keys (name, secret_hash, user_id, created_by) SELECT 'k' || n, sha256(n::text::bytea), %(admin)s, %(admin)s FROM generate_series(1, 10) n",
    "INSERT INTO groups (name, created_by) SELECT 'g' || n, %(nil)s FROM generate_series(1, 10) n",
)


@pytest.fixture(scope="module", autouse=True)
def things(database_url: str, cast: Cast) -> None:
    """Ten of what lists are of: a statement for each row of a list would show."""
    with psycopg.connect(database_url, autocommit=True) as sql:
        for statement in _FILL:
            sql.execute(statement, {"nil": NIL, "admin": cast["admin"]})


@pytest.mark.parametrize("path", MOST)
def test_a_page_takes_few_statements(app: Flask, cast: Cast, path: str) -> None:
    client, address = app.test_client(use_cookies=False), path.format(**cast.ids)
    # (What a process reads once, and the note of a sign-in, are not the page's.)
    assert forms.get(client, "admin", address).status_code == 200
    with counted() as seen:
        assert forms.get(client, "admin", address).status_code == 200
    assert len(seen.own) <= MOST[path], "\n".join(seen.own)
    assert len(seen.sign_in) <= SIGN_IN, "\n".join(seen.sign_in)


def test_a_list_that_is_typed_into_asks_for_no_filters(app: Flask, cast: Cast) -> None:
    client = app.test_client(use_cookies=False)
    part = {"HX-Request": "true", "HX-Request-Type": "partial"}
    for headers, asks in (({}, True), (part, False)):
        with counted() as seen:
            answer = client.get("/models?search=m", headers=Cast.headers("admin") | headers)
        assert ("<html" in answer.text) is asks
        assert any("unnest(models.capabilities)" in each for each in seen.own) is asks
