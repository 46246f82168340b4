"""What only the log shows of a call gives way under pressure; the bill does not. And a call that is not in the log costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import psycopg
import pytest

from dwctl import config
from dwctl.analytics import records
from dwctl.analytics.recorder import Recorder
from dwctl.analytics.records import Kept, line
from tests.analytics.made import ALICE, Calls, final, opening
from tests.analytics.test_recorder import soon

DETAILS = {
    "logged_request": "asked",
    "logged_response": "answered",
    "request_headers": '{"a":"b"}',
    "response_headers": '{"c":"d"}',
}


@pytest.fixture
def calls(sql: psycopg.Connection[Any]) -> Calls:
    return Calls(sql)


@pytest.fixture
def recorder(database_url: str, tmp_path: Path) -> Iterator[Recorder]:
    environ = {"DATABASE_URL": database_url, "DWCTL_RECORDER__SPOOL_DIR": str(tmp_path), "DWCTL_RECORDER__QUEUE_SIZE": "4"}  # fmt: skip
    made = Recorder(config.load(environ))
    yield made
    made.stop(0)


LOGGED = "SELECT bodies, request_body, response_body, request_headers, response_headers FROM http_analytics WHERE request_id = %s"


def test_under_pressure_details_are_shed_and_everything_else_is_written(
    recorder: Recorder, calls: Calls
) -> None:
    made = [calls.make(track=False) for _ in range(4)]
    waiting = [gevent.spawn(recorder.finish, final(call, **DETAILS)) for call in made]
    gevent.sleep(0)
    recorder.start()
    assert [one.get(timeout=10) for one in waiting] == [Kept.COMMITTED] * 4
    rows = [calls.one(LOGGED, call.id) for call in made]
    whole = (None, "asked", "answered", '{"a":"b"}', '{"c":"d"}')
    assert rows == [
        whole,
        whole,
        ("shed", None, None, None, None),
        ("shed", None, None, None, None),
    ]
    assert [calls.counts(call) for call in made] == [(1, 1)] * 4
    assert recorder.counts["details_shed"] == 2


def test_a_call_with_a_row_keeps_its_texts_when_its_headers_give_way(
    recorder: Recorder, calls: Calls
) -> None:
    made = [calls.make() for _ in range(3)]
    heads = {name: DETAILS[name] for name in ("request_headers", "response_headers")}
    waiting = [gevent.spawn(recorder.finish, final(call, **heads)) for call in made]
    gevent.sleep(0)
    recorder.start()
    for one in waiting:
        one.get(timeout=10)
    assert calls.one(LOGGED, made[2].id) == (None, None, None, None, None)
    body = "SELECT response_body FROM fusillade.requests WHERE id = %s"
    assert calls.one(body, made[2].id) == ('{"answer":1}',)


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("opened", [True, False])
def test_what_is_not_in_the_log_costs_nothing_and_is_found_all_the_same(
    recorder: Recorder, calls: Calls, tracked: bool, opened: bool
) -> None:
    recorder.start()
    call, before = calls.make(track=tracked), calls.balance(ALICE)
    if tracked and opened:
        assert recorder.open(opening(call)) is Kept.COMMITTED
    assert recorder.finish(final(call, unlogged=True)) is Kept.COMMITTED
    assert calls.counts(call) == (0, 0)
    assert calls.state(call) == ("completed" if tracked else None)
    assert calls.balance(ALICE) == before


def test_a_refusal_that_is_not_in_the_log_is_not_written_at_all(
    recorder: Recorder, calls: Calls
) -> None:
    recorder.start()
    call = calls.make(track=False)
    recorder.note(final(call, unlogged=True))
    other = calls.make(track=False)
    recorder.note(final(other))
    soon(lambda: calls.counts(other) == (1, 1))
    assert recorder.counts["flushed"] == 1


def test_details_that_are_too_large_for_the_database_are_left_out(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MOST_BYTES", 20_000)
    call = calls.make(track=False)
    text = line(final(call, logged_response="x" * 30_000, request_headers="y"))
    assert len(text) < 20_000
    assert b'"bodies":"shed"' in text
    assert b"request_headers" not in text
