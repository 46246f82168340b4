"""Requests: the list under its filters, pages, columns, chart, downloads, and what each role sees of it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask.testing import FlaskClient

from dwctl.clock import uuid7
from tests.cast import Cast
from tests.dashboard import forms
from tests.identity.doors import insert_key
from tests.request_log.conftest import Log
from tests.usage.deltas import add

PAGE = "/requests"
HOSTILE = ("<script>alert(1)</script>", '" onmouseover="x', "{{ 7 * 7 }}", "a/b c%2F?#&", "ü" * 200, "\u202egnp")  # fmt: skip

Sql = psycopg.Connection[Any]


@pytest.fixture
def log(sql: Sql, cast: Cast) -> Log:
    sql.execute("TRUNCATE http_analytics, usage_deltas, account_rollups, caller_rollups, model_rollups, latency_histograms")  # fmt: skip
    return Log(sql)


@pytest.fixture
def show(client: FlaskClient) -> Callable[..., str]:
    """A page's HTML."""

    def show(who: str = "viewer", path: str = PAGE, **query: Any) -> str:
        answer = forms.get(client, who, path, **({"query_string": query} if query else {}))
        assert answer.status_code == 200, answer.text
        return answer.text

    return show


def rows(html: str) -> list[UUID]:
    """The calls of a page, in their order."""
    return [UUID(id) for id in re.findall(r'<tr data-row="([^"]+)"', html)]


def link(html: str, rel: str) -> str:
    found = re.search(rf'rel="{rel}" href="([^"]+)"', html)
    assert found, f"no link {rel}"
    return unescape(found[1])


def key_of(sql: Sql, user: UUID) -> UUID:
    """A new key of somebody."""
    insert_key(sql, user)
    row = sql.execute("SELECT id FROM api_keys WHERE user_id = %s ORDER BY created_at DESC LIMIT 1", (user,)).fetchone()  # fmt: skip
    assert row
    id: UUID = row[0]
    return id


class TestFilters:
    def test_each_narrows_and_shows_how_to_take_it_off(self, show: Any, log: Log, cast: Cast, sql: Sql) -> None:  # fmt: skip
        key, batch = key_of(sql, cast["alice"]), uuid7()
        sold = log.call(model="large", status_code=503, duration_ms=9000, user_id=cast["alice"], api_key_id=key)  # fmt: skip
        line = log.call(ago_s=1, user_id=cast["bob"], fusillade_batch_id=batch, request_origin="fusillade", batch_sla="24h")  # fmt: skip
        flex = log.call(ago_s=2, batch_sla="1h", status_code=429)
        assert rows(show()) == [sold, line, flex]
        for query, expected in (
            ({"model": "large"}, [sold]),
            ({"status": "error"}, [sold, flex]),
            ({"status": "ok"}, [line]),
            ({"status": "4xx"}, [flex]),
            ({"status": "5xx"}, [sold]),
            ({"status": "429"}, [flex]),
            ({"tier": "batch"}, [line]),
            ({"tier": "flex"}, [flex]),
            ({"tier": "realtime"}, [sold]),
            ({"key": key}, [sold]),
            ({"user": cast["bob"]}, [line]),
            ({"batch": f"batch_{batch}"}, [line]),
            ({"min_ms": "9000"}, [sold]),
            ({"status": "error", "tier": "flex"}, [flex]),
        ):
            page = show(**query)
            assert rows(page) == expected, query
            assert page.count('class="chip"') == len(query)
        # A key and an account are called by their names, not by their ids.
        assert "alice@cast.example" in show(user=cast["alice"]).partition('class="chip"')[2][:300]

    def test_the_range_bounds_the_list_and_empty_filters_are_none(self, show: Any, log: Log) -> None:  # fmt: skip
        new, old = log.call(), log.call(ago_s=7200)
        assert rows(show(range="1h")) == [new]
        assert rows(show(range="6h", model="", status="", tier="")) == [new, old]
        assert rows(show(range="2020-01-01..2020-01-02")) == []

    def test_the_end_of_a_range_is_not_in_it(self, show: Any, log: Log) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        ends = [now - timedelta(seconds=ago) for ago in (90, 30)]
        inside, _outside = (log.call(at=end.timestamp()) for end in ends)
        assert rows(show(range="..".join(end.isoformat() for end in ends))) == [inside]

    @pytest.mark.parametrize(
        "query",
        [{"status": "x"}, {"status": "²²²"}, {"status": "99999"}, {"tier": "x"}, {"key": "x"}, {"batch": "x"}, {"min_ms": "x"}, {"min_ms": "9" * 30},
         {"range": "x"}, {"range": "2000-01-01..2020-01-01"}, {"model": "m" * 3000}, {"after": "x"}, {"q": "\x00"}],
    )  # fmt: skip
    def test_what_is_no_filter_is_said_in_words(self, client: FlaskClient, log: Log, query: dict[str, str]) -> None:  # fmt: skip
        answer = forms.get(client, "viewer", PAGE, query_string=query)
        assert answer.status_code == 400
        assert next(iter(query)) in answer.text

    def test_words_in_bodies_are_found_within_the_range(self, show: Any, log: Log) -> None:
        found = log.tracked('{"input":"a zebra"}', "{}")
        log.tracked('{"input":"a horse"}', "{}")
        page = show(q="zebra")
        assert rows(page) == [found]
        assert "data-live" not in page
        assert "/requests/export" not in page


class TestPages:
    def test_all_pages_have_each_call_once_newest_first(self, show: Any, log: Log) -> None:
        made = [log.call(ago_s=second, model="m") for second in range(120)]
        found, query = [], "?model=m&range=6h"
        for _page in range(3):
            html = show(path=PAGE + query)
            found += rows(html)
            if 'rel="next"' in html:
                query = link(html, "next")
        assert found == made
        assert "First page" in html

    def test_a_page_that_ended_early_says_how_far_it_came(self, show: Any, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
        monkeypatch.setattr("dwctl.request_log.pages._BUDGET_S", 0.0)
        monkeypatch.setattr("dwctl.request_log.pages._FEW_ROWS", 1)
        wanted = log.call(ago_s=300, model="rare")
        for second in range(200):
            log.call(ago_s=second)
        html = show(model="rare")
        assert rows(html) == []
        assert "None of the calls read so far fits" in html
        while not rows(html):
            html = show(path=PAGE + link(html, "next"))
        assert rows(html) == [wanted]

    def test_a_part_is_the_list_alone(self, client: FlaskClient, log: Log) -> None:
        call = log.call()
        headers = Cast.headers("viewer") | {"HX-Request": "true", "HX-Request-Type": "partial"}
        part = client.get(PAGE, headers=headers).text
        assert rows(part) == [call]
        assert "<html" not in part
        assert 'id="filters"' not in part

    def test_the_viewer_chooses_columns_in_the_address(self, client: FlaskClient, show: Any, log: Log) -> None:  # fmt: skip
        log.call(finish_reason="length")
        heads = lambda html: re.findall(r"<th [^>]*>([^<]+)</th>", html)  # noqa: E731
        assert heads(show())[:3] == ["Time", "Model", "Outcome"]
        assert heads(show(columns="finish,nonsense")) == ["Time", "Outcome", "Finish"]
        assert heads(show(columns="nonsense")) == heads(show())
        # A form without script sends its boxes one by one; the address has them once.
        answer = forms.get(client, "viewer", PAGE + "?columns=model&columns=cost&status=ok")
        assert answer.status_code == 302
        assert answer.headers["Location"] == "/requests?columns=model,cost&status=ok"

    def test_an_empty_log_says_how_to_make_a_call(self, show: Any, log: Log) -> None:
        html = show("alice")
        assert "/ai/v1/chat/completions" in html
        assert "on this page" not in html
        assert "No call fits" in show("alice", model="m")


class TestWho:
    def test_a_member_sees_own_calls_and_not_how_they_were_served(self, show: Any, log: Log, cast: Cast) -> None:  # fmt: skip
        own = log.call(user_id=cast["alice"], served_by="secret-gpu")
        log.call(user_id=cast["bob"])
        log.call()
        html = show("alice", columns="served_by,model")
        assert rows(html) == [own]
        assert "secret-gpu" not in html
        assert "secret-gpu" in show("viewer", columns="served_by,model")

    def test_a_manager_sees_own_calls_alone(self, show: Any, log: Log, cast: Cast) -> None:
        log.call(user_id=cast["bob"])
        own = log.call(user_id=cast["admin"])
        assert rows(show("admin")) == [own]

    @pytest.mark.parametrize("path", ["", "/live", "/export"])
    def test_others_calls_are_403_by_address(self, client: FlaskClient, log: Log, cast: Cast, path: str) -> None:  # fmt: skip
        answer = forms.get(client, "alice", f"{PAGE}{path}?user={cast['bob']}")
        assert answer.status_code == 403
        assert "Insufficient permissions" in answer.text

    def test_names_that_have_no_page_for_the_reader_are_no_links(self, show: Any, log: Log, cast: Cast) -> None:  # fmt: skip
        log.call(user_id=cast["alice"])
        assert f"/people/{cast['alice']}" not in show("viewer")

    @pytest.mark.parametrize("name", HOSTILE)
    def test_names_are_text(self, show: Any, log: Log, name: str) -> None:
        log.call(model=name, error_code="<b>", finish_reason="<i>", uri="/<u>", status_code=500)
        html = show(columns="model,path,finish,caller,id")
        assert unescape(re.search(r'<td class="model">(?:<a[^>]*>)?([^<]*)', html)[1]) == name  # type: ignore[index]
        assert not re.search(r"<(?:b|i|u)>", html)
        assert len(rows(show(model=name))) == 1


class TestChart:
    def points(self, html: str) -> dict[str, Any]:
        found = re.search(r"data-points='([^']*)'", html)
        assert found, html
        return {one["name"]: sum(one["values"]) for one in json.loads(unescape(found[1]))["series"]}

    def test_it_obeys_the_filters_that_sums_know(self, show: Any, log: Log, cast: Cast, sql: Sql) -> None:  # fmt: skip
        key = key_of(sql, cast["alice"])
        for model, user, with_key, status, times in (
            ("m", "alice", key, 200, 3), ("m", "alice", None, 500, 2), ("n", "bob", None, 200, 5), ("n", "bob", None, 404, 1),
        ):  # fmt: skip
            for _ in range(times):
                add(sql, datetime.now(UTC) - timedelta(minutes=5), model=model, user_id=cast[user], api_key_id=with_key or UUID(int=0), status_code=status)  # fmt: skip
        chart = lambda who="viewer", **query: self.points(show(who, PAGE + "/chart", **query))  # noqa: E731
        assert chart() == {"2xx": 8, "4xx": 1, "5xx": 2}
        assert chart(model="m") == {"2xx": 3, "5xx": 2}
        assert chart(key=key) == {"2xx": 3}
        assert chart(user=cast["bob"]) == {"2xx": 5, "4xx": 1}
        assert chart(status="error") == {"4xx": 1, "5xx": 2}
        assert chart(status="404", model="n") == {"4xx": 1}
        assert chart("alice") == {"2xx": 3, "5xx": 2}
        assert chart("alice", key=key) == {"2xx": 3}

    @pytest.mark.parametrize("query", [{"tier": "flex"}, {"min_ms": "5"}, {"q": "x"}, {"batch": "batch_0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47"}])  # fmt: skip
    def test_where_sums_know_a_filter_not_it_says_so(self, show: Any, log: Log, query: dict[str, str]) -> None:  # fmt: skip
        html = show("viewer", PAGE + "/chart", **query)
        assert "No chart: sums do not tell calls apart by" in html
        assert "data-points" not in html

    def test_how_long_calls_took_is_shown_where_percentiles_are_of_the_listed_calls(self, show: Any, log: Log, cast: Cast) -> None:  # fmt: skip
        log.call(model="m", duration_ms=900)
        for who, query, is_told in (("viewer", {}, True), ("viewer", {"model": "m"}, True), ("viewer", {"status": "error"}, False), ("alice", {}, False)):  # fmt: skip
            told = show(who, PAGE + "/times", **query)
            assert ("data-points" in told, "No chart: percentiles" in told) == (is_told, not is_told)  # fmt: skip
            assert ("Time taken" in show(who, PAGE + "/chart", **query)) is is_told

    def test_anothers_chart_is_refused(self, show: Any, log: Log, cast: Cast) -> None:
        html = show("alice", PAGE + "/chart", user=cast["bob"])
        assert "Insufficient permissions" in html
        assert "data-points" not in html


class TestDownloads:
    def test_it_is_what_the_list_shows(self, client: FlaskClient, log: Log, cast: Cast) -> None:
        made = [log.call(ago_s=second, user_id=cast["alice"], model="=1+1") for second in range(70)]
        log.call(user_id=cast["bob"])
        answer = forms.get(client, "alice", f"{PAGE}/export?model=%3D1%2B1")
        assert answer.headers["Content-Disposition"].startswith("attachment")
        found = list(csv.DictReader(io.StringIO(answer.text)))
        assert [UUID(row["request_id"]) for row in found] == made
        assert found[0]["model"] == "'=1+1"
        lines = forms.get(client, "alice", f"{PAGE}/export?format=jsonl&range=1h").text.splitlines()
        assert len(lines) == 70
        assert forms.get(client, "alice", f"{PAGE}/export?format=exe").status_code == 400

    def test_words_are_not_downloaded(self, client: FlaskClient, log: Log) -> None:
        assert forms.get(client, "alice", f"{PAGE}/export?q=zebra").status_code == 400

    def test_the_shown_call_is_that_of_the_page(self, client: FlaskClient, show: Any, log: Log) -> None:  # fmt: skip
        log.call(status_code=503)
        log.call()
        html = show(status="5xx", tier="realtime")
        shown = re.search(r"curl '[^/]*//[^/]*(/admin/api/v1/requests\?[^']*)'", unescape(html))
        assert shown
        url = shown[1]
        answer = client.get(url, headers=Cast.headers("viewer"))
        assert [UUID(entry["request_id"]) for entry in answer.json["entries"]] == rows(html)
