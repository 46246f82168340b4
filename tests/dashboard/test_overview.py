"""Overview: its figures are the API's, each leads to what it is made of, and the first steps are there as long as they are needed."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask.testing import FlaskClient

from benchmarks.pages import counted
from tests.cast import Cast
from tests.dashboard import forms
from tests.identity.doors import app_with, insert_key
from tests.usage.deltas import NOBODY, add

NOW = datetime.now(UTC)

Sql = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def _nothing_there(sql: Sql, cast: Cast) -> None:
    sql.execute(
        "TRUNCATE usage_deltas, account_rollups, caller_rollups, model_rollups, latency_histograms"
    )
    sql.execute("DELETE FROM api_keys WHERE NOT hidden")


def page(client: FlaskClient, who: str = "admin", path: str = "/") -> str:
    answer = forms.get(client, who, path)
    assert answer.status_code == 200, answer.text
    return answer.text


def figures(text: str) -> dict[str, str]:
    found = re.findall(r'tile-label">([^<]*)</span>\s*<span class="tile-value[^>]*>([^<]*)<', text)
    return dict(found)


def test_figures_are_those_of_the_api(client: FlaskClient, sql: Sql, cast: Cast) -> None:
    for number in range(4):
        add(sql, NOW - timedelta(hours=number), user_id=cast["alice"], status_code=200 if number else 500, cost=Decimal("0.25"))  # fmt: skip
    add(sql, NOW - timedelta(hours=30), cost=Decimal("0.5"))
    api = client.get("/admin/api/v1/requests/breakdown?compare=true", headers=Cast.headers("admin")).json  # fmt: skip
    assert api is not None
    text = page(client)
    shown = figures(text)
    assert (shown["Calls"], shown["Failed"], shown["Spend"], shown["Tokens"]) == ("4", "1", "$1.00", "60")  # fmt: skip
    assert (api["total"]["requests"], api["total"]["errors"], Decimal(api["total"]["cost"]), api["total"]["total_tokens"]) == (4, 1, 1, 60)  # fmt: skip
    assert shown["First token, p95"].split("\u202f")[0] == f"{api['total']['p95_ttfb_ms']:.0f}"
    assert "+100\u202f%</span> on before" in text
    assert "alice@cast.example" in text


def test_the_chart_is_the_same_with_and_without_script(client: FlaskClient, sql: Sql, cast: Cast) -> None:  # fmt: skip
    for number in range(8):
        add(sql, NOW - timedelta(hours=2), model=f"m{number}", status_code=500 if number == 3 else 200)  # fmt: skip
    text = page(client)
    chart = forms.get(client, "admin", "/overview/calls.json").json
    assert chart is not None
    assert [one["name"] for one in chart["series"]] == [*(f"m{number}" for number in range(6)), "Other"]  # fmt: skip
    assert [sum(one["values"]) for one in chart["series"]] == [1] * 6 + [2]
    assert sum(chart["errors"]) == 1
    assert len({one["color"] for one in chart["series"]}) == 7
    assert sum(len(one["values"]) for one in chart["series"]) + len(chart["errors"]) <= 1500
    table = text.partition('class="chart-table"')[2].partition("</table>")[0]
    assert re.findall(r"<th>([^<]*)</th>", table)[1:] == [*(one["name"] for one in chart["series"]), "Errors"]  # fmt: skip
    assert re.findall(r"<td>([^<]*)", table)[1:] == ["1"] * 6 + ["2", "1"]


def test_a_member_sees_their_own_and_what_is_left(client: FlaskClient, sql: Sql, cast: Cast) -> None:  # fmt: skip
    add(sql, NOW, user_id=cast["bob"], model="theirs")
    add(sql, NOW, user_id=cast["alice"], model="mine", cost=Decimal(2))
    grant = {"user_id": str(cast["alice"]), "transaction_type": "admin_grant", "amount": "20", "source_id": "overview"}  # fmt: skip
    assert client.post("/admin/api/v1/transactions", json=grant, headers=Cast.headers("biller")).status_code == 201  # fmt: skip
    text = page(client, "alice")
    shown = figures(text)
    assert (shown["Calls"], shown["Spend"], shown["Balance"]) == ("1", "$2.00", "$20.00")
    assert "about 10\u202fd at this rate" in text
    assert "Waiting" not in shown
    assert "theirs" not in text
    assert "Queue and workers" not in text


def test_the_first_steps_are_ticked_off_and_go_away(client: FlaskClient, sql: Sql, cast: Cast) -> None:  # fmt: skip
    def states(who: str) -> list[str]:
        return re.findall(r'<li class="(done|todo)">', page(client, who))

    assert states("admin") == ["todo"] * 3
    assert states("alice") == ["todo"] * 2
    assert "dwctl keys create admin@cast.example" in page(client, "admin")
    assert "dwctl" not in re.sub(
        r"<[^>]*>", "", page(client, "alice").partition("First steps")[2].partition("</ol>")[0]
    )
    insert_key(sql, cast["alice"], purpose="realtime")
    assert states("alice") == ["done", "todo"]
    add(sql, NOW, user_id=cast["alice"], status_code=500)
    assert states("alice") == ["done", "todo"]
    part = {"HX-Request": "true", "HX-Request-Type": "partial"}
    ticked = client.get("/overview/first-run", headers=Cast.headers("alice") | part)
    assert "HX-Refresh" not in ticked.headers
    assert "<html" not in ticked.text
    add(sql, NOW - timedelta(days=40), user_id=cast["alice"])
    assert states("alice") == []
    assert client.get("/overview/first-run", headers=Cast.headers("alice") | part).headers["HX-Refresh"] == "true"  # fmt: skip


def test_the_model_of_the_first_call_is_looked_for_once(client: FlaskClient, sql: Sql, cast: Cast) -> None:  # fmt: skip
    alias = f"first-{uuid4().hex[:8]}"
    sql.execute("INSERT INTO deployed_models (model_name, alias, type, created_by, is_composite) VALUES ('m', %s, 'CHAT', %s, true)", (alias, cast["admin"]))  # fmt: skip
    sql.execute("INSERT INTO deployment_groups (deployment_id, group_id, granted_by) SELECT id, %s, %s FROM deployed_models WHERE alias = %s", (NOBODY, cast["admin"], alias))  # fmt: skip
    (src,) = re.findall(r'data-src="(/overview/first-run[^"]*)"', page(client, "alice"))
    part = {"HX-Request": "true", "HX-Request-Type": "partial"}

    def asked(url: str) -> tuple[bool, str]:
        with counted() as seen:
            answer = client.get(url, headers=Cast.headers("alice") | part)
        return any("deployed_models.alias" in each for each in seen.own), answer.text

    assert asked("/overview/first-run")[0]
    looks, shown = asked(html.unescape(src))
    assert not looks
    assert f'"model": "{alias}"' in html.unescape(shown)
    sql.execute("DELETE FROM deployed_models WHERE alias = %s", (alias,))


@pytest.mark.parametrize("path", ["/overview/now", "/overview/failed", "/overview/first-run"])
@pytest.mark.parametrize("who", ["admin", "viewer", "biller", "alice"])
def test_parts_are_pages_for_who_opens_them(client: FlaskClient, cast: Cast, path: str, who: str) -> None:  # fmt: skip
    answer = forms.get(client, who, path)
    assert answer.status_code == 200
    assert "<html" in answer.text
    assert page(client, who)


def test_what_readiness_has_to_say_is_for_those_who_run_the_place(client: FlaskClient, cast: Cast) -> None:  # fmt: skip
    assert "no worker process is alive" in page(client)
    for who in ("alice", "viewer", "biller"):
        assert "no worker process is alive" not in page(client, who)


def test_a_range_that_is_none_is_said_to_be(client: FlaskClient, cast: Cast) -> None:
    for path in ("/", "/overview/now", "/overview/failed", "/overview/calls.json"):
        assert forms.get(client, "admin", f"{path}?range=soon").status_code == 400


def test_names_of_nobody_are_words(client: FlaskClient, sql: Sql, cast: Cast) -> None:
    add(sql, NOW, model="", user_id=NOBODY)
    text = page(client)
    assert "No known model" in text
    assert "Nobody" in text
    assert str(NOBODY) not in text


def test_a_panel_that_cannot_be_read_fails_alone(environ: dict[str, str], sql: Sql, cast: Cast, database_url: str) -> None:  # fmt: skip
    """Somebody locks the queue's tables for longer than a statement may wait."""
    add(sql, NOW)
    with app_with(environ, database__statement_timeout="0.3") as app, psycopg.connect(database_url) as locking:  # fmt: skip
        locking.execute("LOCK TABLE fusillade.daemons IN ACCESS EXCLUSIVE MODE")
        text = page(app.test_client())
    assert "This part cannot be shown right now" in text
    assert figures(text)["Calls"] == "1"
