"""The one guard around a run: whatever happens inside, the call ends, is written down once, and is charged for what is known.

A real upstream, a real recorder and a real database, without a server in front.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import orjson
import psycopg
import pytest
from flask import Flask
from msgspec.structs import replace

from dwctl.ai import relay
from dwctl.ai.admission import Admitted, admit
from dwctl.ai.gateway import Gateway
from dwctl.ai.in_progress import Flight
from dwctl.ai.outcomes import Reason
from dwctl.analytics.recorder import Overloaded
from dwctl.analytics.records import Kept, Record
from dwctl.protocols.surfaces import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, Surface
from dwctl.web import current
from tests.ai.values import a_key, a_model, a_request, a_routing, a_target
from tests.fake_upstream import FakeUpstream

ALICE = a_key()


@pytest.fixture(scope="module")
def here(app: Flask) -> Iterator[Gateway]:
    made = Gateway(current.parts(app), {"type": "onwards"})
    made.start()
    yield made
    made.stop(0.0)


def admitted(
    upstream: FakeUpstream, name: str, surface: Surface = CHAT, **content: Any
) -> Admitted:
    model = a_model("m", target=a_target(name, upstream.url))
    request = a_request(surface, "m", **content)
    return admit(a_routing(model, funded=(ALICE,)), ALICE, request, strict=False)


def left(sql: psycopg.Connection[Any], call: Admitted) -> SimpleNamespace:
    """What is in the database of a call."""
    id = call.request.id
    rows = sql.execute(
        "SELECT state, error FROM fusillade.requests WHERE id = %s", (id,)
    ).fetchall()
    logs = sql.execute(
        "SELECT status_code, error_code, prompt_tokens, completion_tokens, usage_source, total_cost"
        " FROM http_analytics WHERE request_id = %s",
        (id,),
    ).fetchall()
    charges = sql.execute(
        "SELECT amount FROM credits_transactions WHERE source_id = %s", (str(id),)
    ).fetchall()
    opened = sql.execute("SELECT FROM fusillade.open_calls WHERE id = %s", (id,)).fetchall()
    return SimpleNamespace(rows=rows, logs=logs, charges=charges, open=opened)


class Broken:
    """A treatment with a bug of ours in it."""

    def __init__(self, treatment: Any, where: str) -> None:
        self._treatment = treatment
        self._where = where

    def __getattr__(self, name: str) -> Any:
        if name == self._where:
            raise ZeroDivisionError("a bug of ours")
        return getattr(self._treatment, name)


class BrokenSurface:
    """Chat, as a surface whose treatment breaks."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __getattr__(self, name: str) -> Any:
        return getattr(CHAT, name)

    def treat(self, *arguments: Any, **named: Any) -> Broken:
        return Broken(CHAT.treat(*arguments, **named), self._where)


def broken(call: Admitted, where: str) -> Admitted:
    asked = replace(call.request.asked, surface=BrokenSurface(where))
    return replace(call, request=replace(call.request, asked=asked))


def test_an_answer_is_recorded_and_charged_before_it_leaves(
    here: Gateway, upstream: FakeUpstream, sql: psycopg.Connection[Any]
) -> None:
    call = admitted(upstream, "ok")
    answer = relay.answer(here, call, Flight(call.request.id))
    assert answer.status == 200
    assert isinstance(answer.body, bytes)
    assert orjson.loads(answer.body)["choices"]
    found = left(sql, call)
    assert [state for state, _ in found.rows] == ["completed"]
    assert len(found.logs) == len(found.charges) == 1
    assert here.in_progress.flights == {}


@pytest.mark.parametrize(
    ("where", "paid"), [("request_body", False), ("complete", True)], ids=["before", "after"]
)
def test_a_bug_of_ours_is_a_final_failure_that_pays_for_what_the_upstream_did(
    here: Gateway, upstream: FakeUpstream, sql: psycopg.Connection[Any], where: str, paid: bool
) -> None:
    call = broken(admitted(upstream, "ok"), where)
    answer = relay.answer(here, call, Flight(call.request.id))
    assert answer.status == 500
    assert isinstance(answer.body, bytes)
    assert orjson.loads(answer.body)["error"]["code"] == "internal_error"
    found = left(sql, call)
    ((state, error),) = found.rows
    assert (state, orjson.loads(error)["type"]) == ("failed", "InternalError")
    ((status, code, prompt, completion, _, _),) = found.logs
    assert (status, code, (prompt, completion) != (0, 0)) == (500, "internal_error", paid)
    assert len(found.charges) == (1 if paid else 0)
    assert here.in_progress.flights == {}


@pytest.mark.parametrize("asked", [{}, {"stream": True}], ids=["whole", "stream"])
@pytest.mark.parametrize("adapter", [True, False], ids=["adapted", "native"])
@pytest.mark.parametrize(
    "surface", [CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES], ids=lambda surface: surface.path
)
def test_an_answer_of_nothing_is_no_answer(
    here: Gateway, upstream: FakeUpstream, sql: psycopg.Connection[Any],
    surface: Surface, adapter: bool, asked: dict[str, Any],
) -> None:  # fmt: skip
    model = a_model("m", target=a_target("empty", upstream.url), adapter=adapter)
    request = a_request(surface, "m", **asked)
    call = admit(a_routing(model, funded=(ALICE,)), ALICE, request, strict=False)
    run = relay.stream if asked else relay.answer
    answer = run(here, call, Flight(call.request.id))
    assert answer.status == 502
    assert isinstance(answer.body, bytes)
    assert orjson.loads(answer.body)["error"]["code"] == "http_502"
    found = left(sql, call)
    assert [state for state, _ in found.rows] in ([], ["failed"])
    assert ([row[0] for row in found.logs], found.charges) == ([502], [])


def test_a_bug_before_a_stream_begins_is_an_answer_in_one_piece(
    here: Gateway, upstream: FakeUpstream, sql: psycopg.Connection[Any]
) -> None:
    call = broken(admitted(upstream, "ok", stream=True), "request_body")
    answer = relay.stream(here, call, Flight(call.request.id))
    assert (answer.status, type(answer.body)) == (500, bytes)
    assert [state for state, _ in left(sql, call).rows] == ["failed"]


def test_a_bug_where_a_stream_begins_leaves_no_row_in_progress(
    here: Gateway, upstream: FakeUpstream, sql: psycopg.Connection[Any]
) -> None:
    call = broken(admitted(upstream, "ok", stream=True), "stream")
    answer = relay.stream(here, call, Flight(call.request.id))
    assert (answer.status, type(answer.body)) == (500, bytes)
    found = left(sql, call)
    assert [state for state, _ in found.rows] == ["failed"]
    assert (len(found.logs), found.open) == (1, [])
    assert here.in_progress.flights == {}


def test_a_stream_that_nobody_can_write_down_is_not_in_progress(
    here: Gateway, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_record: object) -> Kept:
        raise Overloaded

    monkeypatch.setattr(here.recorder, "open", refuse)
    monkeypatch.setattr(here.recorder, "finish", refuse)
    call = admitted(upstream, "ok", stream=True)
    with pytest.raises(Overloaded):
        relay.stream(here, call, Flight(call.request.id))
    assert here.in_progress.flights == {}


def test_a_stream_whose_end_nobody_takes_is_offered_again(
    here: Gateway,
    upstream: FakeUpstream,
    sql: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = admitted(upstream, "ok", stream=True)
    answer = relay.stream(here, call, Flight(call.request.id))
    assert [state for state, _ in left(sql, call).rows] == ["processing"]
    refusals, finish = [Overloaded(), Overloaded()], here.recorder.finish

    def refuse(record: Record) -> Kept:
        if refusals:
            raise refusals.pop()
        return finish(record)

    monkeypatch.setattr(here.recorder, "finish", refuse)
    with pytest.raises(Overloaded):
        list(answer.body)
    until = time.monotonic() + 10
    while not (found := left(sql, call)).logs:
        assert time.monotonic() < until
        gevent.sleep(0.05)
    assert [state for state, _ in found.rows] == ["completed"]
    assert (len(found.charges), found.open) == (1, [])


@pytest.mark.parametrize("surface", [CHAT, RESPONSES], ids=repr)
def test_a_stream_that_nobody_ever_reads_ends_when_it_is_closed(
    here: Gateway, upstream: FakeUpstream, sql: psycopg.Connection[Any], surface: Surface
) -> None:
    call = admitted(upstream, "chunks-50", surface, stream=True)
    answer = relay.stream(here, call, Flight(call.request.id))
    assert not isinstance(answer.body, bytes)
    answer.body.close()  # type: ignore[attr-defined]
    found = left(sql, call)
    assert [state for state, _ in found.rows] == ["failed"]
    assert (len(found.logs), found.open) == (1, [])
    assert here.in_progress.flights == {}


def test_a_stream_that_is_stopped_pays_for_what_it_delivered(
    here: Gateway, upstream: FakeUpstream, sql: psycopg.Connection[Any]
) -> None:
    call = admitted(upstream, "chunks-6+hold-stream", stream=True)
    flight = Flight(call.request.id)
    answer = relay.stream(here, call, flight)
    assert not isinstance(answer.body, bytes)
    seen = b""
    while b"w1 " not in seen:
        seen += next(answer.body)
    gevent.spawn_later(0.05, flight.stop, Reason.DRAINED)
    seen += b"".join(answer.body)
    assert seen.endswith(b"data: [DONE]\n\n")
    assert b"error" in seen
    found = left(sql, call)
    ((status, code, prompt, completion, source, cost),) = found.logs
    assert (status, code, source) == (503, "drained", "estimated")
    assert prompt > 0
    assert completion > 0
    assert [amount for (amount,) in found.charges] == [cost]


def test_the_last_words_of_a_stream_are_kept_with_its_row(
    here: Gateway, upstream: FakeUpstream, sql: psycopg.Connection[Any]
) -> None:
    call = admitted(upstream, "chunks-6+hold-stream", stream=True)
    flight = Flight(call.request.id)
    answer = relay.stream(here, call, flight)
    assert not isinstance(answer.body, bytes)
    seen = b""
    while b"w1 " not in seen:
        seen += next(answer.body)
    assert flight.last_words is not None
    flight.last_words()
    words = None
    while words is None:
        gevent.sleep(0.05)
        ((words,),) = sql.execute(
            "SELECT last_words FROM fusillade.open_calls WHERE id = %s", (call.request.id,)
        ).fetchall()
    record = orjson.loads(words)
    assert record["completion_tokens"] > 0
    assert record["error_code"] == "interrupted"
    answer.body.close()  # type: ignore[attr-defined]
