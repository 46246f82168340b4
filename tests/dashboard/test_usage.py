"""Usage: what is displayed is what the ledger took, in whatever zone it is read, and opens the rows that make it."""

from __future__ import annotations

import csv
import html
import io
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest
from flask.testing import FlaskClient

from dwctl.analytics import writing
from dwctl.usage import folding
from tests.analytics.made import Made, final
from tests.cast import Cast
from tests.dashboard import forms
from tests.identity.doors import insert_key

ZONES = ("UTC", "Pacific/Auckland", "America/Los_Angeles", "Asia/Kolkata")
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"

Sql = psycopg.Connection[Any]


def call(at: datetime, owner: UUID, cost: str, model: str = "m", **more: Any) -> None:
    """A call that is written down and charged."""
    made = Made(uuid4(), owner, track=False, created_at=at.timestamp(), model=model)
    record = final(made, tokens=1, **({"cost": Decimal(cost), "ttfb_ms": 40} | more))
    writing.record(_connection(), [record])


_connections: list[Sql] = []


def _connection() -> Sql:
    return _connections[-1]


@pytest.fixture(autouse=True)
def _written(sql: Sql, cast: Cast) -> Any:
    sql.execute(
        "TRUNCATE usage_deltas, account_rollups, caller_rollups, model_rollups, latency_histograms"
    )
    sql.execute("SELECT make_log_partitions((now() AT TIME ZONE 'UTC')::date - 40, 41)")
    _connections.append(sql)
    yield
    _connections.pop()


def page(client: FlaskClient, who: str = "viewer", *, zone: str = "UTC", **query: Any) -> str:
    client.set_cookie("dw_zone", zone)
    answer = client.get("/usage", headers=Cast.headers(who), query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.text


def tile(text: str, label: str) -> tuple[Decimal, str]:
    """A tile's exact figure, and where it leads."""
    found = re.search(rf'<a class="tile" href="([^"]*)">\s*<span class="tile-label">{label}</span>\s*<span class="tile-value[^>]*title="\$?([\d.,]+)"', text)  # fmt: skip
    assert found, label
    return Decimal(found[2].replace(",", "")), html.unescape(found[1])


def ledger(sql: Sql, since: datetime, until: datetime) -> Decimal:
    """What was taken for the calls that arrived in a time, from the ledger's own entries."""
    row = sql.execute(
        "SELECT coalesce(sum(t.amount), 0) FROM credits_transactions t JOIN http_analytics a ON t.source_id = a.request_id::text"
        " WHERE t.transaction_type = 'usage' AND a.timestamp >= %s AND a.timestamp < %s",
        (since, until),
    ).fetchone()  # fmt: skip
    assert row
    return abs(Decimal(row[0]))


def rows_behind(client: FlaskClient, address: str) -> Decimal:
    """The sum of what the log lists where a figure leads, by the API with the same range."""
    (range,) = parse_qs(urlsplit(address).query)["range"]
    since, until = range.split("..")
    query = {"timestamp_after": since, "timestamp_before": until, "limit": 100}
    entries = client.get("/admin/api/v1/requests", headers=Cast.headers("viewer"), query_string=query).json["entries"]  # type: ignore[index]  # fmt: skip
    inside = [one for one in entries if one["timestamp"] < until]
    return sum((Decimal(one.get("total_cost") or 0) for one in inside), Decimal(0))


@pytest.mark.parametrize(
    ("zone", "folded"), [*((zone, False) for zone in ZONES), (ZONES[-1], True), (ZONES[1], True)]
)
def test_a_days_total_is_the_ledgers_and_that_of_its_rows(client: FlaskClient, sql: Sql, cast: Cast, zone: str, folded: bool) -> None:  # fmt: skip
    there = ZoneInfo(zone)
    day = NOON.astimezone(there).date()
    begins, ends = (datetime.combine(date, datetime.min.time(), tzinfo=there).astimezone(UTC) for date in (day, day + timedelta(days=1)))  # fmt: skip
    for number, edge in enumerate((begins, ends)):
        for seconds in (-61, -1, 1, 61):
            call(edge + timedelta(seconds=seconds), cast["alice"], f"0.{number + 1}00000{61 + seconds + 1:03}")  # fmt: skip
    call(NOON, cast["bob"], "0.000000001", status_code=499, error_code="cut")
    if folded:
        folding.fold(sql, most=1000)
    text = page(client, zone=zone, range=f"{day}T00:00..{day + timedelta(days=1)}T00:00")
    total, leads_to = tile(text, "Spend")
    assert total == ledger(sql, begins, ends) > 0
    assert rows_behind(client, leads_to) == total
    assert tile(text, "Calls")[0] == 5
    assert zone in text
    sql.execute("DELETE FROM http_analytics")


@pytest.mark.parametrize(
    ("by", "order"),
    [
        ("model", "cost"),
        ("user", "requests"),
        ("key", "tokens"),
        ("status", "cost"),
        ("group", "requests"),
    ],
)
def test_rows_come_to_the_total_that_is_displayed(client: FlaskClient, sql: Sql, cast: Cast, by: str, order: str) -> None:  # fmt: skip
    for number in range(9):
        call(NOON + timedelta(minutes=number), cast[("alice", "bob")[number % 2]], f"0.01{number}", f"m{number % 3}", status_code=(200, 502)[number % 4 == 3])  # fmt: skip
    text = page(client, by=by, order=order, range="7d")
    table = text.rpartition("<table>")[2]
    sums = [Decimal(one) for one in re.findall(r'<span class="money" title="\$([\d.]+)"', table)]
    total, _ = tile(text, "Spend")
    if by != "group":
        assert sum(sums[:-1]) == sums[-1] == total == Decimal("0.126")
    assert tile(text, "Failed")[0] == 2


def test_the_download_comes_to_the_same(client: FlaskClient, cast: Cast) -> None:
    call(NOON, cast["alice"], "0.25")
    call(NOON, cast["alice"], "0.5", status_code=499, error_code="cut")
    for who, by in (("alice", "model"), ("viewer", "user")):
        text = page(client, who, by=by, range="7d")
        (href,) = re.findall(r'href="([^"]*/usage/export[^"]*)"', text)
        rows = list(csv.DictReader(io.StringIO(forms.get(client, who, html.unescape(href)).text)))
        assert sum(Decimal(row["cost"]) for row in rows) == tile(text, "Spend")[0] == Decimal("0.75")  # fmt: skip


def test_a_member_sees_their_own_alone(client: FlaskClient, cast: Cast) -> None:
    call(NOON, cast["alice"], "0.25", "mine")
    call(NOON, cast["bob"], "0.5", "theirs")
    text = page(client, "alice", range="7d")
    assert tile(text, "Spend")[0] == Decimal("0.25")
    assert "theirs" not in text
    assert 'value="user"' not in text
    for by in ("user", "group"):
        assert forms.get(client, "alice", f"/usage?by={by}").status_code == 400


def test_the_time_before_is_compared_with(client: FlaskClient, cast: Cast) -> None:
    call(NOON - timedelta(days=7), cast["alice"], "1")
    call(NOON, cast["alice"], "3")
    assert "+200\u202f%</span> against $1.00" in page(client, range="7d")


def test_a_hostile_name_is_text(client: FlaskClient, cast: Cast) -> None:
    call(NOON, cast["alice"], "1", HOSTILE)
    text = page(client, range="7d")
    assert "<img" not in text
    assert str(html.escape(HOSTILE)) in text.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")
    assert "<img" not in page(client, range="7d", model=HOSTILE)


@pytest.mark.parametrize(
    "query",
    ["by=colour", "order=x", "kind=pie", "range=yesterday", "range=2026-01-02..2026-01-01", "model=" + "x" * 600, "model=%00"],
)  # fmt: skip
def test_an_address_that_cannot_be_meant_is_said_to_be_wrong(client: FlaskClient, cast: Cast, query: str) -> None:  # fmt: skip
    answer = forms.get(client, "admin", f"/usage?{query}")
    assert answer.status_code == 400
    assert answer.mimetype == "text/html"


def test_without_calls_it_says_what_to_do(client: FlaskClient, cast: Cast) -> None:
    assert "Nothing was called in this time" in page(client)


def test_a_key_and_a_person_lead_to_their_pages(client: FlaskClient, sql: Sql, cast: Cast) -> None:  # fmt: skip
    insert_key(sql, cast["alice"], cast["alice"])
    row = sql.execute("SELECT id FROM api_keys WHERE user_id = %s", (cast["alice"],)).fetchone()
    assert row
    call(NOON, cast["alice"], "1", api_key_id=row[0])
    assert f"/keys/{row[0]}" in page(client, "admin", by="key", range="7d")
    assert f"/people/{cast['alice']}" in page(client, "admin", by="user", range="7d")
    # Who reads calls alone may open neither.
    assert f'/usage?range=7d&amp;key={row[0]}"' in page(client, by="key", range="7d")
    assert f"/people/{cast['alice']}" not in page(client, by="user", range="7d")
