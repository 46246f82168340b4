"""Figures are doors: where one leads stand the very calls that were added up for it, and it leads nowhere where they may not be seen."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask.testing import FlaskClient

import dwctl.dashboard
from dwctl.analytics import writing
from dwctl.dashboard import ranges
from tests.analytics.made import Made, final
from tests.cast import Cast
from tests.identity.doors import insert_key, insert_organization

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
ODD = f"{NOON:%Y-%m-%d}T12:00:30Z..{NOON:%Y-%m-%d}T12:20:30Z"
"""Begins and ends within a minute, and sums know no seconds."""

Sql = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def _empty(sql: Sql, cast: Cast) -> Iterator[None]:
    sql.execute(
        "TRUNCATE usage_deltas, account_rollups, caller_rollups, model_rollups, latency_histograms"
    )
    sql.execute("SELECT make_log_partitions((now() AT TIME ZONE 'UTC')::date - 10, 11)")
    yield
    sql.execute("DELETE FROM http_analytics")
    sql.execute("DELETE FROM user_roles WHERE user_id = %s AND role = 'PLATFORMMANAGER'", (cast["viewer"],))  # fmt: skip
    sql.execute("DELETE FROM inference_endpoints WHERE name = 'doors'")


@pytest.fixture
def organization(sql: Sql, cast: Cast) -> UUID:
    """One of which alice is the owner and bob a member."""
    return insert_organization(sql, owner=cast["alice"], member=cast["bob"])


def called(sql: Sql, owner: UUID, *, seconds: int = 60, **more: Any) -> None:
    """A call that long after noon."""
    at = NOON + timedelta(seconds=seconds)
    made = Made(
        uuid4(), owner, track=False, created_at=at.timestamp(), model=more.pop("model", "m")
    )
    writing.record(sql, [final(made, tokens=1, **({"cost": Decimal("0.5"), "ttfb_ms": 9} | more))])


def shown(client: FlaskClient, who: str, path: str, **more: Any) -> str:
    answer = client.get(path, headers=Cast.headers(who) | more.pop("headers", {}), **more)
    assert answer.status_code == 200, answer.text
    return answer.text


def figures(text: str) -> dict[str, tuple[int, str | None]]:
    """Tiles that count calls: how many, and where each leads."""
    found = re.findall(r'<(?:a class="tile" href="([^"]*)"|div class="tile")>\s*<span class="tile-label">(Calls|Failed)</span>\s*<span [^>]*>([\d,]+)<', text)  # fmt: skip
    return {label: (int(value), html.unescape(href) or None) for href, label, value in found}


def rows(client: FlaskClient, who: str, path: str, **more: Any) -> int:
    return shown(client, who, path, **more).count("<tr data-row=")


def key_of(sql: Sql, owner: UUID, creator: UUID) -> UUID:
    insert_key(sql, creator, owner)
    row = sql.execute("SELECT id FROM api_keys WHERE user_id = %s ORDER BY created_at DESC LIMIT 1", (owner,)).fetchone()  # fmt: skip
    assert row
    id: UUID = row[0]
    return id


@pytest.mark.parametrize("who", ["viewer", "alice"])
@pytest.mark.parametrize("screen", ["/?", "/usage?", "/usage?model=m&", "KEY?"])
def test_what_is_counted_is_what_is_listed(client: FlaskClient, sql: Sql, cast: Cast, screen: str, who: str) -> None:  # fmt: skip
    key = key_of(sql, cast["alice"], cast["alice"])
    if who == "viewer":
        sql.execute("INSERT INTO user_roles (user_id, role) VALUES (%s, 'PLATFORMMANAGER') ON CONFLICT DO NOTHING", (cast["viewer"],))  # fmt: skip
    for seconds in (-1, 5, 29, 1231, 1255, 1261):
        called(sql, cast["alice"], seconds=seconds, api_key_id=key)
        called(sql, cast["alice"], seconds=seconds, api_key_id=key, model="", status_code=404)
        called(sql, cast["bob"], seconds=seconds, status_code=302)
    path = screen.replace("KEY", f"/keys/{key}") + f"range={ODD}"
    found = figures(shown(client, who, path))
    assert {*found} == {"Calls", "Failed"}
    for number, leads_to in found.values():
        assert leads_to
        assert rows(client, who, leads_to) == number
    assert found["Calls"][0] == {"/?": 12, "/usage?": 12, "/usage?model=m&": 8, "KEY?": 8}[screen] if who == "viewer" else 4 <= found["Calls"][0] <= 8  # fmt: skip


def test_what_no_filter_finds_is_no_door(client: FlaskClient, sql: Sql, cast: Cast) -> None:
    """Calls on no model are a row of the sums; the list without a filter has others, too."""
    called(sql, cast["alice"])
    called(sql, cast["alice"], model="", status_code=404)
    for path in ("/", "/usage"):
        table = shown(client, "viewer", f"{path}?range={ODD}").partition("No known model")[2]
        assert "/requests" not in table.partition("</tr>")[0]


def test_who_may_see_sums_alone_is_not_led_to_other_calls(client: FlaskClient, sql: Sql, cast: Cast) -> None:  # fmt: skip
    key = key_of(sql, cast["alice"], cast["alice"])
    called(sql, cast["alice"], api_key_id=key)
    called(sql, cast["alice"], status_code=500)
    for path in ("/?", "/usage?", f"/usage?user={cast['alice']}&", f"/keys/{key}?"):
        found = figures(shown(client, "admin", f"{path}range={ODD}"))
        assert found["Calls"][0]
        assert [leads_to for _, leads_to in found.values()] == [None, None]
    assert "Your last failed calls" in shown(client, "admin", "/")


def test_usage_is_that_of_the_account_and_the_key_that_are_asked_for(client: FlaskClient, sql: Sql, cast: Cast) -> None:  # fmt: skip
    key = key_of(sql, cast["alice"], cast["alice"])
    called(sql, cast["alice"], api_key_id=key)
    called(sql, cast["alice"])
    called(sql, cast["bob"])
    for query, number in ((f"user={cast['alice']}", 2), (f"key={key}", 1), (f"user={cast['bob']}&key={key}", 0)):  # fmt: skip
        text = shown(client, "viewer", f"/usage?{query}&range={ODD}")
        count, leads_to = figures(text)["Calls"]
        assert count == number
        assert leads_to
        assert rows(client, "viewer", leads_to) == number
    text = shown(client, "viewer", f"/usage?user={cast['alice']}&key={key}&range={ODD}")
    assert text.count('title="Take this filter off"') == 2
    (file,) = re.findall(r'href="([^"]*/usage/export[^"]*)"', text)
    (_, row, *more) = shown(client, "viewer", html.unescape(file)).splitlines()
    assert not more
    assert "m,1," in row
    assert client.get(f"/usage?user={cast['bob']}", headers=Cast.headers("alice")).status_code == 403  # fmt: skip


def test_a_day_costs_what_was_charged_for_calls_that_failed_too(client: FlaskClient, sql: Sql, cast: Cast) -> None:  # fmt: skip
    called(sql, cast["alice"], status_code=499, error_code="cut", cost=Decimal(7))
    called(sql, cast["bob"], cost=Decimal(70))
    for who, query in (("alice", ""), ("viewer", "")):
        assert ('title="$1' in shown(client, who, f"/credits{query}")) == (who == "alice")


def test_in_an_organisations_name_the_list_is_its_calls(client: FlaskClient, sql: Sql, cast: Cast, organization: UUID) -> None:  # fmt: skip
    called(sql, organization)
    called(sql, organization, status_code=500)
    called(sql, cast["alice"])
    acting = {"X-Organization-Id": str(organization)}
    found = figures(shown(client, "alice", f"/?range={ODD}", headers=acting))
    assert {label: number for label, (number, _) in found.items()} == {"Calls": 2, "Failed": 1}
    for number, leads_to in found.values():
        assert leads_to
        assert rows(client, "alice", leads_to, headers=acting) == number
    assert shown(client, "alice", f"/overview/failed?range={ODD}", headers=acting).count("/requests/") == 1  # fmt: skip
    # Its members know what it spends; single calls are for those who manage it.
    found = figures(shown(client, "bob", f"/?range={ODD}", headers=acting))
    assert found == {"Calls": (2, None), "Failed": (1, None)}
    for path in ("/requests", "/overview/failed", "/requests/chart"):
        assert shown(client, "bob", path, headers=acting)


def test_a_link_says_nothing_that_its_page_does_not_read() -> None:
    """A filter that a page does not know would be left out without a word, and the figures there be those of all."""
    known = {
        "usage": {"range", "by", "order", "kind", "model", "user", "key"},
        "requests": {"range", "model", "key", "user", "status", "tier", "batch", "q", "min_ms", "columns"},
        "credits": {"user", "of", "kind", "q", "lines"},
        "keys": {"q", "purpose", "state", "user"},
    }  # fmt: skip
    looked_at = 0
    for template in (Path(dwctl.dashboard.__file__).parent / "templates").rglob("*.html"):
        for screen, given in re.findall(r"""url_for\(["']ui_(\w+)\.show["']((?:[^()]|\([^()]*\))*)\)""", template.read_text()):  # fmt: skip
            names = set(re.findall(r"[,\s](\w+)=", given))
            assert names <= known.get(screen, names), template.name
            looked_at += screen in known and bool(names)
    assert looked_at > 10


def test_the_chart_of_failures_knows_any_number_of_statuses(client: FlaskClient, sql: Sql, cast: Cast) -> None:  # fmt: skip
    statuses = (200, 400, 401, 402, 404, 409, 429, 499, 500, 502, 503, 504)
    for status in statuses:
        called(sql, cast["alice"], status_code=status)
    for asked, series in (("", {"2xx": 1, "4xx": 7, "5xx": 4}), ("error", {"4xx": 7, "5xx": 4}), ("5xx", {"5xx": 4}), ("ok", {"2xx": 1})):  # fmt: skip
        text = html.unescape(shown(client, "viewer", f"/requests/chart?status={asked}&range={ODD}"))
        (points,) = re.findall(r"\{.*\"series\".*\}", text)
        found = {one["name"]: sum(one["values"]) for one in json.loads(points)["series"]}
        assert found == series
        assert sum(found.values()) == rows(client, "viewer", f"/requests?status={asked}&range={ODD}")  # fmt: skip


@pytest.mark.parametrize("screen", ["/models?", "/models/m?"])
def test_a_models_figures_end_where_the_range_does(client: FlaskClient, sql: Sql, cast: Cast, screen: str) -> None:  # fmt: skip
    sql.execute("INSERT INTO user_roles (user_id, role) VALUES (%s, 'PLATFORMMANAGER') ON CONFLICT DO NOTHING", (cast["viewer"],))  # fmt: skip
    sql.execute("INSERT INTO inference_endpoints (name, url, created_by) VALUES ('doors', 'http://doors.invalid/v1', %s)", (cast["admin"],))  # fmt: skip
    sql.execute("INSERT INTO deployed_models (model_name, alias, created_by, hosted_on) SELECT 'm', 'm', created_by, id FROM inference_endpoints WHERE name = 'doors'")  # fmt: skip
    for seconds in (-1, 5, 1255, 1261, 7200):
        called(sql, cast["alice"], seconds=seconds, status_code=500)
    text = shown(client, "viewer", f"{screen}range={ODD}")
    links = [html.unescape(one) for one in re.findall(r'href="(/requests\?[^"]*model=m[^"]*)"', text)]  # fmt: skip
    of_range = [one for one in links if "12:00:00" in one or "12%3A00%3A00" in one]
    assert len(of_range) == 2
    assert [rows(client, "viewer", one) for one in of_range] == [2, 2]
    assert re.search(r">2</(a|span)>", text)


@pytest.mark.parametrize(
    ("text", "hour"),
    [("T10:00 13:00..{}T23:00 13:00", 21), ("T10:00+05:30..{}T23:00Z", 4), (" 09:00..{} 23:00", 9)],
)
def test_a_range_with_any_zone_is_read(text: str, hour: int) -> None:
    day = f"{NOON:%Y-%m-%d}"
    assert ranges.parsed(day + text.format(day), datetime.now(UTC)).since.hour == hour


def test_what_a_list_names_and_no_page_shows_any_more_leads_to_its_calls(
    client: FlaskClient, cast: Cast, sql: Sql
) -> None:
    sql.execute("INSERT INTO user_roles (user_id, role) VALUES (%s, 'PLATFORMMANAGER') ON CONFLICT DO NOTHING", (cast["viewer"],))  # fmt: skip
    person = uuid4()
    called(sql, person, model="gone")
    for path in (f"/people/{person}", f"/keys/{uuid4()}", "/models/gone"):
        page = client.get(path, headers=Cast.headers("viewer"))
        assert page.status_code == 404
        main = page.text.partition("<main")[2]
        assert "There is nothing here" in page.text
        for screen in ("/requests?", "/usage?"):
            (href,) = re.findall(rf'href="({re.escape(screen)}[^"]*)"', main)
            assert path.rpartition("/")[2] in href
            assert (
                client.get(html.unescape(href), headers=Cast.headers("viewer")).status_code == 200
            )


def test_each_tab_of_a_deleted_model_is_a_page(client: FlaskClient, cast: Cast) -> None:
    headers = Cast.headers("admin")
    server = client.post("/admin/api/v1/endpoints", json={"name": "doors", "url": "http://127.0.0.1:9/v1", "sync": False}, headers=headers).json  # fmt: skip
    model = {"type": "standard", "model_name": "m", "alias": f"over-{uuid4()}", "hosted_on": server["id"]}  # fmt: skip
    made = client.post("/admin/api/v1/models", json=model, headers=headers).json
    assert client.delete(f"/admin/api/v1/models/{made['id']}", headers=headers).status_code < 300
    text = client.get(f"/models/{model['alias']}", headers=headers).text
    tabs = set(re.findall(rf'href="(/models/{model["alias"]}\?tab=\w+)"', text))
    assert len(tabs) > 2
    assert [tab for tab in tabs if client.get(tab, headers=headers).status_code != 200] == []
