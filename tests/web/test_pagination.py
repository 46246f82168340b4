"""Lists page by page: every row once, whatever comes and goes meanwhile, in each order; and what a cursor is good for."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import psycopg
import pytest
from flask import Flask
from sqlalchemy import select
from werkzeug.http import parse_options_header
from werkzeug.test import TestResponse

from dwctl.catalog.search import ORDERS
from dwctl.identity.tables import User
from dwctl.web.keyset import Order
from tests.cast import Cast
from tests.identity.doors import ADMIN, NIL, NOBODY, app_with, insert_organization, unique

Sql = psycopg.Connection[Any]
Ask = Callable[..., TestResponse]
N = 7


@pytest.fixture(scope="module")
def ask(app: Flask, cast: Cast) -> Ask:
    client = app.test_client(use_cookies=False)

    def ask(path: str, who: str = "admin") -> TestResponse:
        return client.get(urljoin(ADMIN + "/", path.lstrip("/")), headers=Cast.headers(who))

    return ask


def next_of(answer: TestResponse) -> str | None:
    """The URL of the next page, as a client finds it: relative to the one that was asked."""
    link = answer.headers.get("Link")
    if link is None:
        return None
    target, _ = parse_options_header(link)
    assert link.endswith('>; rel="next"')
    assert target.startswith("<?")
    return urljoin(answer.request.url, target.strip("<>"))


def rows_of(answer: TestResponse) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found = answer.json if isinstance(answer.json, list) else answer.json["data"]
    rows: list[dict[str, Any]] = found
    return rows


def walk(ask: Ask, path: str, meanwhile: Callable[[], object] = lambda: None) -> Iterator[str]:
    """The ids of all pages."""
    url: str | None = path
    pages = 0
    while url is not None:
        answer = ask(url)
        yield from (row["id"] for row in rows_of(answer))
        meanwhile()
        pages += 1
        assert pages < 300
        url = next_of(answer)


@pytest.fixture(scope="module")
def lists(database_url: str, cast: Cast) -> dict[str, str]:
    """Some of everything, many with the same time. Name to path."""
    with psycopg.connect(database_url, autocommit=True) as sql:
        sql.execute(
            "INSERT INTO users (username, email) SELECT 'page' || n, 'page' || n || '@x.example' FROM generate_series(1, %s) n",
            [N],
        )
        sql.execute(
            "INSERT INTO groups (name, created_by) SELECT 'page' || n, %s FROM generate_series(1, %s) n",
            [NIL, N],
        )
        sql.execute(
            "INSERT INTO api_keys (name, secret_hash, user_id, created_by) SELECT 'page' || n, sha256(n::text::bytea), %s, %s FROM generate_series(1, %s) n",
            [cast["bob"], cast["bob"], N],
        )
        sql.execute(
            "INSERT INTO inference_endpoints (name, url, created_by) SELECT 'page' || n, 'http://127.0.0.1:1/', %s FROM generate_series(1, %s) n",
            [NIL, N],
        )
        # Of each measure some have the same, and some have none; versions of JSON numbers that are equal are equal.
        sql.execute(
            """
            INSERT INTO deployed_models (model_name, alias, created_by, hosted_on, metadata)
            SELECT 'page', 'page' || n, %s, (SELECT id FROM inference_endpoints LIMIT 1),
                   CASE WHEN n %% 3 = 0 THEN '{}' ELSE jsonb_build_object(
                       'intelligence_index', CASE WHEN n %% 2 = 0 THEN 1.0 ELSE 1 + n / 5 END, 'context_window', 1000 * (n %% 4),
                       'released_at', '2025-01-0' || (1 + n %% 3), 'provider', CASE n %% 2 WHEN 0 THEN 'Acme' ELSE 'acme' END) END
              FROM generate_series(1, %s) n
            """,
            [NIL, 3 * N],
        )
        sql.execute(
            "INSERT INTO model_tariffs (deployed_model_id, name, input_price_per_token, output_price_per_token, api_key_purpose)"
            " SELECT id, 't', (length(alias) - 5) * 0.0000001, 0, 'realtime' FROM deployed_models WHERE alias < 'page5'"
        )
        sql.execute(
            "INSERT INTO credits_transactions (user_id, transaction_type, amount, source_id)"
            " SELECT %s, 'admin_grant', n, 'page' || n FROM generate_series(1, %s) n",
            [cast["bob"], N],
        )
    return {
        "users": "/users",
        "groups": "/groups",
        "keys": f"/users/{cast['bob']}/api-keys",
        "endpoints": "/endpoints",
        "transactions": f"/transactions?user_id={cast['bob']}",
        "everybody's transactions": "/transactions?all=true",
    }


LISTS = ("users", "groups", "keys", "endpoints", "transactions", "everybody's transactions")


def with_(path: str, more: str) -> str:
    return path + ("&" if "?" in path else "?") + more


@pytest.mark.parametrize("name", LISTS)
def test_pages_hold_every_row_once_in_the_lists_order(ask: Ask, lists: dict[str, str], name: str) -> None:  # fmt: skip
    path = lists[name]
    whole = [row["id"] for row in rows_of(ask(with_(path, "limit=100")))]
    assert len(whole) >= N
    for limit in (1, 3):
        assert list(walk(ask, with_(path, f"limit={limit}"))) == whole


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("sort", sorted(ORDERS))
def test_models_page_in_each_order(ask: Ask, lists: dict[str, str], sort: str, direction: str) -> None:  # fmt: skip
    path = f"/models?sort={sort}&sort_direction={direction}"
    whole = [row["id"] for row in rows_of(ask(with_(path, "limit=100")))]
    assert len(whole) == 3 * N
    # Places where a value begins or ends, and where those begin that have none, fall on the edges of pages.
    assert list(walk(ask, with_(path, "limit=3"))) == whole


def test_rows_that_come_and_go_move_no_other(ask: Ask, lists: dict[str, str], sql: Sql) -> None:
    before = [row["id"] for row in rows_of(ask("/users?limit=100"))]
    seen: list[str] = []

    def meanwhile() -> None:
        """Somebody new comes in front; whoever was shown last goes."""
        name = unique()
        sql.execute(
            "INSERT INTO users (username, email) VALUES (%s, %s)", [name, f"{name}@x.example"]
        )
        sql.execute("UPDATE users SET is_deleted = true WHERE id = %s AND username LIKE 'page%%'", [seen[-1]])  # fmt: skip

    for id in walk(ask, "/users?limit=2", meanwhile):
        seen.append(id)
    assert seen == before
    sql.execute("UPDATE users SET is_deleted = false WHERE username LIKE 'page%'")


def test_a_list_ends_without_a_link(ask: Ask, lists: dict[str, str]) -> None:
    total = ask("/groups").json["total_count"]
    for query in (f"?limit={total}", f"?skip={total - 1}", f"?skip={total}", "?search=nothing", "?skip=9999999999999999999999", "?limit=101"):  # fmt: skip
        assert "Link" not in ask("/groups" + query).headers, query
    assert "Link" in ask(f"/groups?limit={total - 1}").headers
    # As ever: out of range is moved into it.
    assert ask("/groups?limit=0").json["limit"] == 1
    beyond = ask("/groups?skip=5000").json
    assert (beyond["data"], beyond["total_count"], beyond["skip"]) == ([], total, 5000)


def test_a_link_keeps_what_was_asked(ask: Ask, lists: dict[str, str]) -> None:
    answer = ask("/users?search=page&include=groups%2Cbilling&skip=2&limit=2")
    url = next_of(answer)
    assert url is not None
    asked = parse_qs(urlsplit(url).query)
    assert asked.pop("after")
    assert asked == {"search": ["page"], "include": ["groups,billing"], "limit": ["2"]}
    following = ask(url)
    assert {"groups", "credit_balance"} <= following.json["data"][0].keys()
    assert following.json["total_count"] == answer.json["total_count"] == N
    # What is shown of a row may change from page to page, and skip counts from the cursor.
    shown = ask(url.replace("include=groups%2Cbilling", "include=") + "&skip=1").json["data"]
    assert shown[0]["id"] == following.json["data"][1]["id"]


def test_a_bare_list_says_its_total(ask: Ask, lists: dict[str, str]) -> None:
    answer = ask("/endpoints?limit=2")
    assert len(answer.json) == 2
    assert int(answer.headers["X-Total-Count"]) == N
    assert next_of(answer)


def cursor_of(answer: TestResponse) -> str:
    url = next_of(answer)
    assert url
    return parse_qs(urlsplit(url).query)["after"][0]


OTHERS = {
    "another list": "/groups?after={}",
    "another filter": "/users?search=page&after={}",
    "a filter that changes nothing": "/users?search=&after={}",
    "somebody's list": f"/users/{NOBODY}/api-keys?after={{}}",
}


@pytest.mark.parametrize("path", OTHERS.values(), ids=OTHERS.keys())
def test_a_cursor_of_another_list_is_refused(ask: Ask, lists: dict[str, str], path: str) -> None:
    answer = ask(path.format(cursor_of(ask("/users?limit=2"))))
    assert answer.status_code == 400
    assert "a cursor of another list" in answer.json["message"]
    assert "Ask without `after`" in answer.json["message"]


def test_a_cursor_of_another_order_is_refused(ask: Ask, lists: dict[str, str]) -> None:
    cursor = cursor_of(ask("/models?limit=2&sort=alias"))
    for other in ("", "&sort=provider", "&sort=alias&sort_direction=desc"):
        assert ask(f"/models?limit=2{other}&after={cursor}").status_code == 400
    assert ask(f"/models?limit=5&sort=alias&include=groups&after={cursor}").status_code == 200


def test_a_cursor_that_was_changed_is_refused(ask: Ask, lists: dict[str, str]) -> None:
    good = cursor_of(ask("/users?limit=2"))
    raw = bytearray(base64.urlsafe_b64decode(good + "=" * (-len(good) % 4)))
    changed = [bytes(raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :]) for i in (0, 11, 12, 25, len(raw) - 1)]  # fmt: skip
    texts = [base64.urlsafe_b64encode(one).rstrip(b"=").decode() for one in changed]
    for text in (*texts, good[:-4], good + "AAAA", "x", "%00", "%F0%9F%98%80", NOBODY, "%3D%3D%3D%3D"):  # fmt: skip
        answer = ask(f"/users?limit=2&after={text}")
        assert answer.status_code == 400, text
        assert "after" in answer.json["message"]
    assert ask("/users?limit=2&after=" + "x" * 9000).status_code == 400
    assert ask("/users?limit=2&after=").json == ask("/users?limit=2").json


def test_a_cursor_outlives_its_row_and_a_rotation_of_the_secret(
    ask: Ask, lists: dict[str, str], environ: dict[str, str], cast: Cast
) -> None:
    cursor = cursor_of(ask("/users?limit=2"))
    rest = ask(f"/users?limit=2&after={cursor}").json
    for previous, status in ((environ["DWCTL_SECRET_KEY"], 200), ("", 400)):
        with app_with(environ, secret_key="a-new-secret-key-for-tests", secret_key_previous=previous) as rotated:  # fmt: skip
            answer = rotated.test_client().get(f"{ADMIN}/users?limit=2&after={cursor}", headers=Cast.headers("admin"))  # fmt: skip
            assert answer.status_code == status
            if status == 200:
                assert answer.json == rest


def test_a_cursor_opens_nothing(ask: Ask, lists: dict[str, str], cast: Cast) -> None:
    cursor = cursor_of(ask("/users?limit=2"))
    assert ask(f"/users?limit=2&after={cursor}", "alice").status_code == 403


def test_a_statement_stays_as_it_was_while_a_batch_goes_on(ask: Ask, sql: Sql, cast: Cast) -> None:
    account = insert_organization(sql)
    batch = sql.execute("SELECT gen_random_uuid()").fetchone()
    assert batch

    def use(batch_id: Any, source: str) -> None:
        sql.execute(
            "WITH t AS (INSERT INTO credits_transactions (user_id, transaction_type, amount, source_id, fusillade_batch_id)"
            " VALUES (%s, 'usage', 1, %s, %s) RETURNING seq)"
            " INSERT INTO user_balance_checkpoints (user_id, checkpoint_seq, balance) SELECT %s, seq, -1 FROM t"
            " ON CONFLICT (user_id) DO UPDATE SET balance = user_balance_checkpoints.balance - 1",
            [account, unique(source), batch_id, account],
        )

    use(batch[0], "line")
    for _ in range(4):
        use(None, "call")
    path = f"/transactions?user_id={account}&group_batches=true&limit=2"
    whole = [row["id"] for row in rows_of(ask(path.replace("limit=2", "limit=100")))]
    assert whole[-1] == str(batch[0])
    seen, balances, url = [], [], path
    while url:
        answer = ask(url)
        seen += [row["id"] for row in rows_of(answer)]
        balances.append(answer.json["page_start_balance"])
        # More of the batch: on a new first page it would now stand in front.
        use(batch[0], "line")
        url = next_of(answer) or ""
    assert seen == whole
    assert [float(balance) for balance in balances] == [-5, -3, -1]


def test_requests_of_batches_page_by_state_and_by_time(ask: Ask, sql: Sql, cast: Cast) -> None:
    batch = sql.execute(
        "INSERT INTO fusillade.batches (created_by, expires_at, requests_started_at, total_requests) VALUES (%s, now() + interval '1 day', now(), 0) RETURNING id",
        [str(cast["bob"])],
    ).fetchone()
    assert batch
    for state in ("canceled", "pending", "canceled", "pending", "canceled"):
        template = sql.execute(
            "INSERT INTO fusillade.request_templates (endpoint, method, path, body, model) VALUES ('', 'POST', '/v1/chat/completions', '{}', 'paged') RETURNING id"
        ).fetchone()
        assert template
        more = {"canceled": ", canceled_at"}.get(state, "")
        sql.execute(
            f"INSERT INTO fusillade.requests (batch_id, template_id, model, state{more}) VALUES (%s, %s, 'paged', %s{', now()' if more else ''})",
            [batch[0], template[0], state],
        )
    for active_first in ("true", "false"):
        path = f"/batches/requests?model=paged&active_first={active_first}"
        whole = [row["id"] for row in rows_of(ask(with_(path, "limit=100")))]
        assert len(whole) == 5
        for limit in (1, 2, 4):
            assert list(walk(ask, with_(path, f"limit={limit}"))) == whole
    cursor = cursor_of(ask("/batches/requests?model=paged&limit=2"))
    after = f"/batches/requests?model=paged&limit=2&after={cursor}"
    whole = [row["id"] for row in rows_of(ask("/batches/requests?model=paged&limit=100"))]
    assert [row["id"] for row in rows_of(ask(after + "&skip=2"))] == whole[4:]


def test_an_order_that_is_none_is_refused_when_it_is_written() -> None:
    for query in (
        select(User),
        select(User).order_by(User.created_at),
        select(User).order_by(User.display_name.desc(), User.id),
    ):
        with pytest.raises(TypeError):
            Order.of(query)
    name = Order.of(select(User).order_by(User.display_name.desc().nulls_last(), User.id)).name
    assert name == "display_name desc, id asc"
