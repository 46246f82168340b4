"""`GET /requests`: what an entry holds, filters, order, pages, and pages whose time is over."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from dwctl.clock import uuid7
from dwctl.request_log import pages
from tests.cast import Cast
from tests.identity.doors import Doors, insert_key, insert_organization
from tests.request_log.conftest import LOG, Ask, Log, ids

CHAPTERS = {"id", "timestamp", "method", "uri", "model", "status_code", "duration_ms", "prompt_tokens", "completion_tokens", "total_tokens", "response_type"}  # fmt: skip


def moment(ago_s: float) -> str:
    return datetime.fromtimestamp(time.time() - ago_s, UTC).isoformat()


def follow(call: Doors, who: str = "viewer", path: str = LOG, **query: Any) -> list[Any]:
    """All pages, by their links."""
    found, answer = [], call(who, "GET", path, query_string=query)
    while True:
        assert answer.status_code == 200, answer.text
        found.append(answer.json)
        link = re.fullmatch(r"<(\?.*)>; rel=\"next\"", answer.headers.get("Link", ""))
        if link is None:
            return found
        answer = call(who, "GET", path + link[1])


class TestEntries:
    def test_what_is_known_is_there_and_the_rest_is_left_out(
        self, ask: Ask, log: Log, cast: Cast
    ) -> None:
        log.call(user_id=cast["alice"], input_price_per_token="0.001", output_price_per_token="0.002", total_cost="0.015", reasoning_tokens=2)  # fmt: skip
        log.call(ago_s=1)
        full, bare = ask()["entries"]
        assert bare.keys() >= CHAPTERS
        assert not bare.keys() & {"input_price_per_token", "reasoning_tokens", "custom_id", "fusillade_batch_id", "user_id", "total_cost", "error_code"}  # fmt: skip
        assert full["user_email"] == "alice@cast.example"
        assert full["reasoning_tokens"] == 2
        assert (full["input_price_per_token"], full["total_cost"]) == ("0.00100000", "0.015000000000000")  # fmt: skip

    def test_an_empty_log_is_an_empty_list(self, ask: Ask, log: Log) -> None:
        assert ask() == {"entries": []}


class TestFilters:
    def test_each_narrows(self, ask: Ask, log: Log, cast: Cast, sql: psycopg.Connection[Any]) -> None:  # fmt: skip
        batch, trace = uuid7(), uuid4().hex
        insert_key(sql, cast["alice"])
        key = sql.execute("SELECT id FROM api_keys WHERE user_id = %s LIMIT 1", (cast["alice"],)).fetchone()  # fmt: skip
        assert key
        new = log.call(method="GET", uri="/models?a_b=1", model="a%b", status_code=404, duration_ms=500, error_code="model_not_found", trace_id=trace, total_cost="0.5")  # fmt: skip
        old = log.call(ago_s=3600, user_id=cast["alice"], api_key_id=key[0], fusillade_batch_id=batch, custom_id="Line_1%", response_type="chat_completion", request_origin="fusillade", served_by="gpu")  # fmt: skip
        for query, expected in (
            ({"method": "GET"}, [new]),
            ({"uri_pattern": "/models%"}, [new]),
            ({"uri_pattern": "%"}, [new, old]),
            ({"uri_pattern": "%a\\_b%"}, [new]),
            ({"uri_pattern": "/chat/completion_"}, [old]),
            ({"uri_pattern": "/chat"}, []),
            ({"status_code": 404}, [new]),
            ({"status_code_min": 400}, [new]),
            ({"status_code_max": 399}, [old]),
            ({"status_code_min": 200, "status_code_max": 404}, [new, old]),
            ({"min_duration_ms": 500}, [new]),
            ({"max_duration_ms": 499}, [old]),
            ({"timestamp_after": moment(1800)}, [new]),
            ({"timestamp_before": moment(1800)}, [old]),
            ({"model": "a%b"}, [new]),
            ({"model": "a%"}, []),
            ({"fusillade_batch_id": batch}, [old]),
            ({"fusillade_batch_id": uuid4()}, []),
            ({"custom_id": "line_1%"}, [old]),
            ({"custom_id": "line_"}, [old]),
            ({"custom_id": "%"}, [old]),
            ({"custom_id": "lineX1"}, []),
            ({"user_id": cast["alice"]}, [old]),
            ({"user_id": cast["bob"]}, []),
            ({"api_key_id": key[0]}, [old]),
            ({"api_key_id": uuid4()}, []),
            ({"request_id": new}, [new]),
            ({"error_code": "model_not_found"}, [new]),
            ({"response_type": "chat_completion"}, [old]),
            ({"request_origin": "fusillade"}, [old]),
            ({"served_by": "gpu"}, [old]),
            ({"trace_id": trace}, [new]),
            ({"min_cost": "0.5"}, [new]),
            ({"max_cost": "0.49"}, [old]),
            ({"model": "m", "status_code": 200, "user_id": cast["alice"]}, [old]),
            ({"no_such_filter": "1"}, [new, old]),
        ):
            assert ids(ask(**query)) == expected, query

    def test_lines_of_a_batch_are_found_by_when_it_was_made(
        self, ask: Ask, log: Log, sql: psycopg.Connection[Any]
    ) -> None:
        sql.execute("SET dwctl.queue = own")
        row = sql.execute("INSERT INTO fusillade.batches (created_by, expires_at, total_requests, created_at) VALUES ('x', now(), 2, now() - interval '1 hour') RETURNING id, extract(epoch FROM created_at)").fetchone()  # fmt: skip
        assert row
        lines = [log.call(at=float(row[1]), fusillade_batch_id=row[0]) for _ in range(2)]
        # The first run of a line that its owner had run again was moved aside.
        log.call(at=float(row[1]) + 1e-6, fusillade_batch_id=row[0], request_id=lines[0])
        assert sorted(ids(ask(fusillade_batch_id=row[0]))) == sorted([*lines, lines[0]])

    @pytest.mark.parametrize(
        ("query", "named"),
        [
            ({"timestamp_after": "2026-02-01T00:00:00Z", "timestamp_before": "2026-01-01T00:00:00Z"}, "timestamp_after"),
            ({"timestamp_after": "yesterday"}, "timestamp_after"),
            ({"timestamp_before": "2026-02-30"}, "timestamp_before"),
            ({"status_code": "abc"}, "status_code"),
            ({"status_code": "1e3"}, "status_code"),
            ({"status_code_min": 500, "status_code_max": 400}, "status_code_min"),
            ({"min_duration_ms": 9, "max_duration_ms": 8}, "min_duration_ms"),
            ({"min_duration_ms": "9" * 25}, "min_duration_ms"),
            ({"min_cost": "NaN"}, "min_cost"),
            ({"min_cost": "1e400"}, "min_cost"),
            ({"min_cost": "2", "max_cost": "1"}, "min_cost"),
            ({"user_id": "me"}, "user_id"),
            ({"order_desc": "maybe"}, "order_desc"),
            ({"uri_pattern": "/a\\"}, "uri_pattern"),
            ({"uri_pattern": "x" * 1001}, "uri_pattern"),
            ({"body_contains": ""}, "body_contains"),
            ({"model": "a\0b"}, "model"),
            ({"skip": 10_001}, "skip"),
            ({"limit": "many"}, "limit"),
            ({"after": "x"}, "after"),
        ],
        ids=str,
    )  # fmt: skip
    def test_what_makes_no_sense_is_400_and_named(
        self, call: Doors, query: dict[str, Any], named: str
    ) -> None:
        answer = call("viewer", "GET", LOG, query_string=query)
        assert answer.status_code == 400
        assert answer.json["message"].startswith(named)

    def test_a_filter_that_there_is_not_is_named(self, call: Doors, log: Log) -> None:
        answer = call("viewer", "GET", LOG, query_string={"modle": "x", "model": "m"})
        assert answer.headers["x-ignored-fields"] == "modle"


class TestPages:
    @pytest.mark.parametrize("newest_first", [True, False])
    def test_each_call_comes_once_in_order_also_of_the_same_moment(
        self, call: Doors, log: Log, newest_first: bool
    ) -> None:
        at = time.time() - 100
        same = [log.call(at=at) for _ in range(7)]
        # Two days, so two partitions.
        written = [log.call(ago_s=200), *sorted(same), log.call(), log.call(ago_s=86_400)]
        in_order = [written[-1], *written[:-1]]
        asked = {"limit": 3, "order_desc": str(newest_first).lower()}
        shown = [id for page in follow(call, **asked) for id in ids(page)]
        assert shown == (in_order[::-1] if newest_first else in_order)

    def test_skip_and_limit_are_moved_into_their_range(self, ask: Ask, log: Log) -> None:
        written = [log.call(ago_s=n) for n in range(3)]
        assert ids(ask(limit=0)) == written[:1]
        assert ids(ask(skip=1, limit=1000)) == written[1:]
        assert ids(ask(skip=-1)) == written
        assert ask(skip=10) == {"entries": []}

    def test_what_is_written_meanwhile_moves_nothing(self, call: Doors, log: Log) -> None:
        written = [log.call(ago_s=n) for n in range(4)]
        first = call("viewer", "GET", LOG, query_string={"limit": 2})
        log.call()
        link = first.headers["Link"].partition(">")[0][1:]
        assert ids(call("viewer", "GET", LOG + link).json) == written[2:]

    def test_a_page_whose_time_is_over_says_how_far_it_came_and_goes_on_there(
        self, call: Doors, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pages, "_BUDGET_S", 0.0)
        monkeypatch.setattr(pages, "_FEW_ROWS", 5)
        monkeypatch.setattr(pages, "_SOME_ROWS", 5)
        rare = [log.call(ago_s=n, model="rare" if n % 9 == 4 else "m") for n in range(30)]
        shown = follow(call, model="rare", limit=2)
        assert [id for page in shown for id in ids(page)] == [rare[n] for n in (4, 13, 22)]
        assert any(not page["entries"] for page in shown)
        reached = [page["scanned_until"] for page in shown[:-1]]
        assert reached == sorted(reached, reverse=True)
        assert "scanned_until" not in shown[-1]

    def test_a_page_without_a_filter_never_ends_early(self, ask: Ask, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
        monkeypatch.setattr(pages, "_BUDGET_S", 0.0)
        written = [log.call(ago_s=n) for n in range(30)]
        assert ids(ask(limit=25)) == written[:25]


class TestWho:
    @pytest.mark.parametrize("path", [LOG, LOG + "/export", LOG + "/live", f"{LOG}/{uuid4()}"], ids=["list", "export", "live", "one"])  # fmt: skip
    @pytest.mark.parametrize(("who", "status"), [(None, 401), ("alice", 403), ("admin", 403), ("biller", 403)])  # fmt: skip
    def test_managers_of_the_platform_do_not_read_it(
        self, call: Doors, path: str, who: str | None, status: int
    ) -> None:
        answer = call(who, "GET", path)
        assert answer.status_code == status
        if status == 403:
            assert answer.json["message"] == "Insufficient permissions to Read Requests"

    def test_an_account_sees_its_own_calls_and_not_who_served_them(
        self, call: Doors, ask: Ask, log: Log, cast: Cast
    ) -> None:
        own = log.call(user_id=cast["alice"], served_by="gpu", provider_cost="1")
        log.call(user_id=cast["bob"])
        path = "/users/current/requests"
        (entry,) = ask(path, "alice")["entries"]
        assert entry["request_id"] == str(own)
        assert not entry.keys() & {"served_by", "provider_cost"}
        assert ask(path, "alice", user_id=cast["bob"]) == {"entries": []}
        assert call("alice", "GET", f"/users/{cast['bob']}/requests").status_code == 403
        assert call("alice", "GET", path, query_string={"served_by": "gpu"}).status_code == 403
        assert "served_by" in ask(f"/users/{cast['alice']}/requests")["entries"][0]

    @pytest.mark.parametrize(("role", "status"), [("owner", 200), ("admin", 200), ("member", 403)])
    def test_those_who_run_an_organisation_see_its_calls(
        self, call: Doors, log: Log, sql: psycopg.Connection[Any], person: Any, role: str, status: int
    ) -> None:  # fmt: skip
        name, id = person()
        theirs = insert_organization(sql, **{role: id})
        log.call(user_id=theirs)
        answer = call(name, "GET", f"/users/{theirs}/requests")
        assert answer.status_code == status
        if status == 200:
            assert len(answer.json["entries"]) == 1
        assert call(name, "GET", f"/users/{theirs}/requests/{uuid4()}").status_code == (404 if status == 200 else 403)  # fmt: skip
