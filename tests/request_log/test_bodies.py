"""One call with its bodies, and calls by the words in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from dwctl.config import RequestLogging
from dwctl.request_log import pages, routes
from dwctl.request_log.pages import Words
from tests.cast import Cast
from tests.identity.doors import Doors
from tests.request_log.conftest import LOG, Ask, Log, ids
from tests.request_log.test_listing import follow

SHOWN = RequestLogging().max_body_size


class TestDetail:
    def test_a_tracked_call_with_all_that_is_known(self, ask: Ask, log: Log, cast: Cast) -> None:
        id = log.tracked(
            '{"q":1}', '{"a":"é"}', user_id=cast["alice"], prompt_tokens=10, cached_tokens=4, completion_tokens=5, reasoning_tokens=2,
            input_price_per_token="0.1", output_price_per_token="1", cached_input_price_per_token="0.01", total_cost="5.64",
            duration_to_first_byte_ms=1000, request_headers='{"a":"b"}', attempts='[{"endpoint":"e","model":"m","ms":3}]',
        )  # fmt: skip
        found = ask(f"{LOG}/{id}")
        assert (found["request_body"], found["response_body"]) == ('{"q":1}', '{"a":"é"}')
        assert (found["request_body_size"], found["response_body_size"]) == (7, 10)
        assert found["bodies"] is None
        assert found["request_headers"] == {"a": "b"}
        assert found["response_headers"] is None
        assert found["attempts"] == [{"endpoint": "e", "model": "m", "ms": 3}]
        assert {name: float(part) for name, part in found["cost_parts"].items()} == {
            "input": 0.6, "cached_input": 0.04, "output": 3, "reasoning": 2,
        }  # fmt: skip
        assert found["response_id"] == f"resp_{id}"
        queue = found["queue"]
        assert (queue["state"], queue["service_tier"]) == ("completed", "priority")
        assert queue["started_at"] < queue["first_byte_at"]
        assert "custom_id" not in found

    def test_its_owner_does_not_see_who_served_it(self, ask: Ask, log: Log, cast: Cast) -> None:
        id = log.tracked("{}", "{}", user_id=cast["alice"], served_by="gpu", provider_cost="1", attempts="[]")  # fmt: skip
        found = ask(f"/users/current/requests/{id}", "alice")
        assert found["request_body"] == "{}"
        assert found["attempts"] is None
        assert found["queue"]["process_id"] is None
        assert not found.keys() & {"served_by", "provider_cost"}

    def test_another_accounts_call_is_404(self, call: Doors, log: Log, cast: Cast) -> None:
        id = log.tracked("{}", "{}", user_id=cast["bob"])
        assert call("alice", "GET", f"/users/current/requests/{id}").status_code == 404
        assert call("viewer", "GET", f"/users/{cast['alice']}/requests/{id}").status_code == 404

    def test_bodies_of_an_untracked_call_stand_in_the_log(self, ask: Ask, log: Log) -> None:
        found = ask(f"{LOG}/{log.call(request_body='in', response_body='out', status_code=403)}")
        assert (found["request_body"], found["response_body"], found["queue"]) == ("in", "out", None)  # fmt: skip

    def test_what_the_log_does_not_show_is_not_shown(self, ask: Ask, log: Log) -> None:
        found = ask(f"{LOG}/{log.tracked('secret', 'secret', bodies='not_sampled')}")
        assert (found["request_body"], found["response_body"], found["bodies"]) == (None, None, "not_sampled")  # fmt: skip
        assert found["request_body_size"] is None
        # What a provider said may quote what it was asked.
        assert found["queue"]["error"] is None

    def test_why_there_is_none(self, ask: Ask, log: Log) -> None:
        assert ask(f"{LOG}/{log.call()}")["bodies"] == "not_kept"

    def test_a_long_body_is_cut_and_its_size_told(self, ask: Ask, log: Log) -> None:
        found = ask(f"{LOG}/{log.tracked('x' * (SHOWN + 1), '{}')}")
        assert len(found["request_body"]) == SHOWN
        assert found["request_body_size"] == SHOWN + 1

    @pytest.mark.parametrize("version", [4, 7])
    def test_rows_written_by_hand_are_found_whatever_their_id(
        self, ask: Ask, log: Log, version: int
    ) -> None:
        id = uuid4() if version == 4 else UUID("0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47")
        log.call(request_id=id)
        assert ask(f"{LOG}/{id}")["request_id"] == str(id)

    @pytest.mark.parametrize(
        ("id", "status"),
        [("0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47", 404), ("ffffffff-ffff-7fff-bfff-ffffffffffff", 404), ("x", 400), ("aggregates", 400)],
    )  # fmt: skip
    def test_what_is_not_there(self, call: Doors, log: Log, id: str, status: int) -> None:
        assert log
        assert call("viewer", "GET", f"{LOG}/{id}").status_code == status

    def test_of_a_line_that_was_run_again_the_run_that_counts(self, ask: Ask, log: Log) -> None:
        id = log.call()
        log.sql.execute("INSERT INTO http_analytics (request_id, timestamp, method, uri, status_code, duration_ms) SELECT request_id, timestamp + interval '1 microsecond', 'POST', '/', 500, 1 FROM http_analytics WHERE request_id = %s", (id,))  # fmt: skip
        assert ask(f"{LOG}/{id}")["status_code"] == 200


class TestSearch:
    @pytest.mark.parametrize(
        ("text", "request_body", "is_found"),
        [
            ("Zebra crossing", '{"c":"a ZEBRA CROSSING b"}', True),
            ("100%", '{"c":"100%"}', True),
            ("100%", '{"c":"1000"}', False),
            ("a_b", '{"c":"axb"}', False),
            ('say "hi"', '{"c":"say \\"hi\\""}', True),
            ("back\\slash", '{"c":"back\\\\slash"}', True),
            ("two\nlines", '{"c":"two\\nlines"}', True),
            ("CAFÉ", '{"c":"café"}', True),
            ("café", '{"c":"caf\\u00e9"}', True),
            ("😀", '{"c":"\\ud83d\\ude00"}', True),
            ("zebra", '{"c":"giraffe"}', False),
        ],
        ids=str,
    )
    def test_words_are_found_as_json_spells_them(
        self, ask: Ask, log: Log, text: str, request_body: str, is_found: bool
    ) -> None:
        id = log.tracked(request_body, "{}")
        assert ids(ask(body_contains=text)) == ([id] if is_found else [])

    def test_answers_and_bodies_in_the_log_are_searched_too(self, ask: Ask, log: Log) -> None:
        tracked = log.tracked("{}", '{"c":"zebra"}', ago_s=2)
        bare = log.call(response_body="a zebra", ago_s=1)
        log.call()
        body = ask(body_contains="zebra")
        assert ids(body) == [bare, tracked]
        assert body["scanned_until"]

    def test_what_the_log_does_not_show_is_not_found(self, ask: Ask, log: Log) -> None:
        log.tracked("zebra", "zebra", bodies="off")
        log.tracked("x" * SHOWN + "zebra", "{}")
        assert ids(ask(body_contains="zebra")) == []

    def test_the_last_hour_or_since_when_one_says(self, ask: Ask, log: Log) -> None:
        old = log.tracked("zebra", "{}", ago_s=4000)
        assert ids(ask(body_contains="zebra")) == []
        assert ids(ask(body_contains="zebra", timestamp_after="2026-01-01T00:00:00Z")) == [old]
        assert ids(ask(body_contains="zebra", timestamp_before="0001-01-01T00:00:00Z")) == []

    def test_other_filters_hold_as_well(self, ask: Ask, log: Log, cast: Cast) -> None:
        log.tracked("zebra", "{}", user_id=cast["bob"])
        own = log.tracked("zebra", "{}", user_id=cast["alice"], model="other")
        log.tracked("zebra", "{}", user_id=cast["alice"])
        found = ask("/users/current/requests", "alice", body_contains="zebra", model="other")
        assert ids(found) == [own]

    @pytest.mark.parametrize("newest_first", [True, False])
    @pytest.mark.parametrize(("rows", "most_bytes"), [(3, 10**6), (1000, 150)])
    def test_a_search_whose_budget_is_spent_goes_on_by_its_link(
        self, call: Doors, log: Log, monkeypatch: pytest.MonkeyPatch, newest_first: bool, rows: int, most_bytes: int
    ) -> None:  # fmt: skip
        monkeypatch.setattr(pages, "_SEARCH_BUDGET_S", 0.0)
        monkeypatch.setattr(pages, "_SEARCHED_ROWS", rows)
        monkeypatch.setattr(pages, "_SEARCHED_BYTES", most_bytes)
        written = [log.tracked("zebra" if n % 5 == 2 else "{}", "y" * 100, ago_s=n) for n in range(13)]  # fmt: skip
        query = {"body_contains": "zebra", "limit": 2, "order_desc": str(newest_first).lower(), "timestamp_after": "2026-01-01T00:00:00Z"}  # fmt: skip
        shown = follow(call, **query)
        expected = [written[n] for n in (2, 7, 12)]
        assert [id for page in shown for id in ids(page)] == expected[:: 1 if newest_first else -1]
        assert len(shown) > 3
        assert all("scanned_until" in page for page in shown[:-1])

    def test_a_third_search_at_once_is_429(self, call: Doors, log: Log) -> None:
        with _searching(None, None):
            answer = call("viewer", "GET", LOG, query_string={"body_contains": "x"})
        assert answer.status_code == 429
        assert answer.json["code"] == "too_many_searches"
        assert answer.headers["Retry-After"] == "1"
        assert call("viewer", "GET", LOG, query_string={"body_contains": "x"}).status_code == 200

    def test_one_who_searches_own_calls_keeps_nobody_from_searching(
        self, call: Doors, log: Log, cast: Cast
    ) -> None:
        own = f"/users/current{LOG}"
        with _searching(cast["alice"]):
            answers = [
                call(who, "GET", path, query_string={"body_contains": "x"}).status_code
                for who, path in (("alice", own), ("bob", own), ("viewer", LOG), ("viewer", own))
            ]
        assert answers == [429, 200, 200, 200]
        with _searching(cast["alice"], cast["bob"]):
            assert call("viewer", "GET", LOG, query_string={"body_contains": "x"}).status_code == 200  # fmt: skip

    def test_a_search_that_takes_too_long_is_503_and_says_what_to_do(
        self, call: Doors, log: Log, sql: psycopg.Connection[Any], database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:  # fmt: skip
        monkeypatch.setattr(pages, "_STATEMENT_MS", 50)
        with psycopg.connect(database_url) as other:
            other.execute("LOCK TABLE http_analytics")
            answer = call("viewer", "GET", LOG, query_string={"body_contains": "x"})
        assert (answer.status_code, answer.json["code"]) == (503, "request_log_slow")
        assert "timestamp_after" in answer.json["message"]


def test_forms_of_words_are_only_those_that_differ() -> None:
    assert Words.of("plain", 9).patterns == ("%plain%",)
    assert len(Words.of('"é', 9).patterns) == 3


@contextmanager
def _searching(*people: UUID | None) -> Iterator[None]:
    routes._searching.extend(people)
    try:
        yield
    finally:
        routes._searching.clear()
