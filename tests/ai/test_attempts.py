"""A call with a choice of targets: what is tried, what the caller gets, what is written down.

A real upstream, a real recorder and a real database, without a server in front; the models are made by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import gevent
import psycopg
import pytest
from flask import Flask

from dwctl.ai import relay
from dwctl.ai.admission import Admitted, admit
from dwctl.ai.gateway import Gateway
from dwctl.ai.in_progress import Flight
from dwctl.ai.outcomes import Reason
from dwctl.catalog.routing import Fallback, Model
from dwctl.protocols.surfaces import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, Surface
from dwctl.upstream.target import Target, Timeouts
from dwctl.web import current
from tests.ai.values import a_key, a_pool, a_request, a_routing
from tests.fake_upstream import SECRET, FakeUpstream
from tests.processes import free_port

ALICE = a_key()
# Of targets that hang; the others may take their time where the machine is busy.
NO_HEAD, NO_BODY = Timeouts(first_byte_s=0.3), Timeouts(idle_s=0.4)


@pytest.fixture(scope="module")
def here(app: Flask) -> Iterator[Gateway]:
    made = Gateway(current.parts(app), {"type": "onwards"})
    made.start()
    yield made
    made.stop(0.0)


@pytest.fixture
def scene(
    here: Gateway, upstream: FakeUpstream, sql: psycopg.Connection[Any]
) -> Iterator[SimpleNamespace]:
    """`pool(names)` makes a composite model of targets that behave as they are called; `call` runs a call to it."""

    def target(name: str, number: int, timeouts: Timeouts | None) -> Target:
        hangs_later = "hang-stream" in name or "first-9" in name
        timeouts = timeouts or (
            NO_BODY if hangs_later else NO_HEAD if "hang" in name else Timeouts()
        )
        url = f"http://127.0.0.1:{free_port()}/v1" if name == "nowhere" else upstream.url
        return Target(url, name, None, timeouts, uuid4(), f"server-{number}", False)

    def pool(
        *names: str,
        parts: Sequence[dict[str, Any]] = (),
        timeouts: Timeouts | None = None,
        **more: Any,
    ) -> Model:
        made = a_pool(
            *(target(name, number, timeouts) for number, name in enumerate(names)), **more
        )
        if not parts:
            return made
        components = tuple(
            replace(one, model=replace(one.model, **part))
            for one, part in zip(made.components, parts, strict=True)
        )
        return replace(made, components=components)

    def admitted(
        model: Model, surface: Surface = CHAT, *, strict: bool = False, **content: Any
    ) -> Admitted:
        request = a_request(surface, "m", **content)
        return admit(a_routing(model, funded=(ALICE,)), ALICE, request, strict=strict)

    def call(model: Model, surface: Surface = CHAT, **content: Any) -> SimpleNamespace:
        call = admitted(model, surface, **content)
        run = relay.stream if content.get("stream") else relay.answer
        answer = run(here, call, Flight(call.request.id))
        body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
        return SimpleNamespace(
            status=answer.status, headers=dict(answer.headers), body=body, **left(call)
        )

    def left(call: Admitted) -> dict[str, Any]:
        id = call.request.id
        ((state,),) = sql.execute("SELECT state FROM fusillade.requests WHERE id = %s", (id,))
        ((served_by, attempts, status, code),) = sql.execute(
            "SELECT served_by, attempts, status_code, error_code FROM http_analytics WHERE request_id = %s",
            (id,),
        )
        charges = sql.execute(
            "SELECT amount FROM credits_transactions WHERE source_id = %s", (str(id),)
        )
        return {
            "state": state,
            "served_by": served_by,
            "attempts": attempts,
            "logged": (status, code),
            "charges": charges.fetchall(),
        }

    upstream.reset()
    here.health.forget()
    yield SimpleNamespace(pool=pool, call=call, admitted=admitted, left=left)
    assert here.in_progress.flights == {}


ILL = [
    "fail-500", "fail-503", "fail-429", "nowhere", "reset", "drop", "hang", "hang-in-head", "not-http",
    "error-in-200", "empty", "html",
]  # fmt: skip


@pytest.mark.parametrize("surface", [CHAT, RESPONSES, EMBEDDINGS], ids=repr)
@pytest.mark.parametrize("name", [*ILL, "cut", "wrong-json"])
def test_what_one_target_cannot_answer_the_next_one_does(
    scene: SimpleNamespace, name: str, surface: Surface
) -> None:
    found = scene.call(scene.pool(name, "ok"), surface)
    assert (found.status, found.state) == (200, "completed")
    assert found.served_by == "server-1"
    first, second = found.attempts
    assert (first["endpoint"], first["model"], second["endpoint"]) == ("server-0", name, "server-1")
    assert first["next"]
    assert first["failure"]
    assert second["status"] == 200
    assert "next" not in second
    assert len(found.charges) == 1


@pytest.mark.parametrize("surface", [CHAT, RESPONSES], ids=repr)
@pytest.mark.parametrize("name", [*ILL, "error-first", "first-900ms", "json-anyway+error-in-200"])
def test_a_stream_that_fails_before_its_first_event_is_had_from_the_next(
    scene: SimpleNamespace, name: str, surface: Surface
) -> None:
    found = scene.call(scene.pool(name, "ok"), surface, stream=True)
    assert (found.status, found.state, found.served_by) == (200, "completed", "server-1")
    assert found.body.count(b"[DONE]") == 1
    assert b"error" not in found.body.replace(b'"error":null', b"")
    assert [bool(one.get("next")) for one in found.attempts] == [True, False]


@pytest.mark.parametrize("surface", [CHAT, RESPONSES], ids=repr)
@pytest.mark.parametrize(
    "name", ["cut+chunks-20", "error-in-stream+chunks-8+gap-20ms", "half", "hang-stream"]
)
def test_a_stream_that_has_shown_something_is_not_sent_again(
    scene: SimpleNamespace, upstream: FakeUpstream, name: str, surface: Surface
) -> None:
    found = scene.call(scene.pool(name, "ok"), surface, stream=True)
    assert (found.status, found.state, found.served_by) == (200, "failed", "server-0")
    assert len(upstream.seen()) == 1
    assert [one["endpoint"] for one in found.attempts] == ["server-0"]
    assert found.body.endswith(b"data: [DONE]\n\n")


# --- how each target is spoken to


def test_each_target_is_spoken_to_in_its_own_way(
    scene: SimpleNamespace, upstream: FakeUpstream
) -> None:
    model = scene.pool("fail-500", "ok", parts=[{"adapter": False}, {"adapter": True}])
    found = scene.call(model, RESPONSES)
    assert (found.status, found.served_by) == (200, "server-1")
    assert [seen["path"] for seen in upstream.seen()] == ["/v1/responses", "/v1/chat/completions"]


@pytest.mark.parametrize(
    ("strict", "parts", "sanitise", "shown"),
    [
        (True, [{"trusted": False}, {"trusted": True}], False, True),
        (True, [{"trusted": True}, {"trusted": False}], False, False),
        (False, [{}, {}], False, True),
        (False, [{}, {"sanitise": True}], False, True),
        (False, [{}, {"trusted": True}], True, False),
    ],
)
def test_errors_are_disclosed_as_the_target_they_are_of_and_sanitised_as_the_pool_says(
    scene: SimpleNamespace, strict: bool, parts: list[dict[str, Any]], sanitise: bool, shown: bool
) -> None:
    model = scene.pool("fail-500", "fail-422", parts=parts, sanitise=sanitise, fallback=Fallback(on_status=(4, 5)))  # fmt: skip
    found = scene.call(model, strict=strict)
    assert found.status == 422
    assert (SECRET in found.body.decode()) is shown


# --- odd streams


@pytest.mark.parametrize("surface", [CHAT, RESPONSES], ids=repr)
@pytest.mark.parametrize(
    "name",
    ["comments+error-first", "comments+first-900ms", "bytewise+error-first", "bytewise+comments+error-first", "crlf+error-first", "joined+error-in-stream"],
)  # fmt: skip
def test_however_a_stream_begins_nothing_of_a_failed_one_is_shown(
    scene: SimpleNamespace, name: str, surface: Surface
) -> None:
    found = scene.call(scene.pool(name, "ok"), surface, stream=True)
    assert (found.status, found.state, found.served_by) == (200, "completed", "server-1")
    assert SECRET not in found.body.decode()


@pytest.mark.parametrize("surface", [CHAT, RESPONSES], ids=repr)
@pytest.mark.parametrize(
    "name", ["comments+chunks-3", "bytewise", "joined", "json-anyway", "no-usage", "first-100ms"]
)
def test_a_stream_of_a_pool_is_that_of_its_target(
    scene: SimpleNamespace, name: str, surface: Surface
) -> None:
    found = scene.call(scene.pool(name, "fail-500"), surface, stream=True)
    assert (found.status, found.state, found.served_by) == (200, "completed", "server-0")
    assert found.body.count(b"[DONE]") == 1
    assert len(found.charges) == 1


@pytest.mark.parametrize("surface", [CHAT, COMPLETIONS], ids=repr)
@pytest.mark.parametrize("name", ["comments+crlf", "remarks", "remarks+crlf"])
def test_comments_keep_no_event_back(
    scene: SimpleNamespace, here: Gateway, upstream: FakeUpstream, name: str, surface: Surface
) -> None:
    model = scene.pool(f"{name}+chunks-8+hold-stream", "fail-500", timeouts=Timeouts(idle_s=3))
    call = scene.admitted(model, surface, stream=True, prompt="Hello")
    body = iter(relay.stream(here, call, Flight(call.request.id)).body)
    assert b'"choices"' in next(filter(None, body))
    upstream.release()
    assert bytes(b"".join(body)).endswith(b"data: [DONE]\n\n")
    assert scene.left(call)["served_by"] == "server-0"


# --- time


def test_the_longest_total_of_the_targets_bounds_the_whole(scene: SimpleNamespace) -> None:
    slow = Timeouts(connect_s=5, first_byte_s=5, idle_s=5, total_s=0.4)
    model = scene.pool("hang", "hang", "hang", "ok", timeouts=slow)
    found = scene.call(model)
    assert found.status == 504
    assert [one["failure"] for one in found.attempts] == ["upstream_total_timeout"]


@pytest.mark.parametrize("names", [("nowhere", "hang", "ok"), ("fail-500", "hang-in-head", "ok")])
def test_a_call_that_is_stopped_goes_no_further(
    scene: SimpleNamespace, here: Gateway, upstream: FakeUpstream, names: tuple[str, ...]
) -> None:
    call = scene.admitted(scene.pool(*names, timeouts=Timeouts(first_byte_s=20)))
    flight = Flight(call.request.id)
    gevent.spawn_later(0.3, flight.stop, Reason.LEFT)
    answer = relay.answer(here, call, flight)
    assert answer.status == 499
    left = scene.left(call)
    assert left["logged"] == (499, "client_disconnected")
    assert [one["failure"] for one in left["attempts"]][1:] == ["stopped"]
    assert left["charges"] == []
    assert "ok" not in [seen["body"]["model"] for seen in upstream.seen()]


def test_many_calls_at_once_probe_with_one(
    scene: SimpleNamespace, here: Gateway, upstream: FakeUpstream
) -> None:
    model = scene.pool("hang", "ok")
    (sick, _) = [part.model.target for part in model.components]
    for _ in range(here.settings.upstream.circuit.failures):
        here.health.failed_with(sick, "upstream_unreachable")
    here.health._states[(sick.endpoint_id, "hang")].out_until = 0.0
    upstream.reset()
    calls = [gevent.spawn(scene.call, model) for _ in range(10)]
    assert [call.get().status for call in calls] == [200] * 10
    assert sum(seen["body"]["model"] == "hang" for seen in upstream.seen()) == 1


def test_a_probe_whose_answer_is_too_large_leaves_the_question_to_the_next_call(
    scene: SimpleNamespace, here: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = scene.pool("big-64", "ok")
    (sick, _) = [part.model.target for part in model.components]
    for _ in range(here.settings.upstream.circuit.failures):
        here.health.failed_with(sick, "upstream_unreachable")
    assert here.health.is_left_out(sick)
    here.health._states[(sick.endpoint_id, "big-64")].out_until = 0.0
    small = replace(here.settings.upstream, max_answer_size=1024)
    monkeypatch.setattr(here, "settings", replace(here.settings, upstream=small))
    assert scene.call(model).status == 502
    assert not here.health.is_left_out(sick)


def test_the_usage_of_a_failed_attempt_is_not_billed(scene: SimpleNamespace) -> None:
    found = scene.call(scene.pool("error-in-200+usage-500-500", "ok+usage-1-1"))
    ((amount,),) = found.charges
    assert float(amount) == pytest.approx(0.003)


# --- what is learnt of the targets


def sick(here: Gateway, model: Model) -> Target:
    """The first target, which has failed so often that the next call is to find out whether it still does."""
    target = model.components[0].model.target
    assert target is not None
    for _ in range(here.settings.upstream.circuit.failures):
        here.health.failed_with(target, "upstream_unreachable")
    here.health._states[(target.endpoint_id, target.model_name)].out_until = 0.0
    return target


def test_an_answer_that_is_too_large_says_nothing_of_its_target(
    scene: SimpleNamespace, here: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = here.settings
    small = replace(settings, upstream=replace(settings.upstream, max_answer_size=2000))
    monkeypatch.setattr(here, "settings", small)
    model = scene.pool("ok+big-4", "ok")
    target = sick(here, model)
    assert scene.call(model).logged == (502, "upstream_response_too_large")
    assert not here.health.is_left_out(target)  # the next call may find out


def test_an_error_of_the_callers_in_a_200_is_no_failure_of_the_target(
    scene: SimpleNamespace, here: Gateway, upstream: FakeUpstream
) -> None:
    model = scene.pool("error-in-200-400", "ok")
    for _ in range(here.settings.upstream.circuit.failures + 1):
        assert scene.call(model).served_by == "server-0"
    assert list(here.health.left_out()) == []


def test_reasons_that_upstreams_invent_are_not_counted_one_by_one(
    scene: SimpleNamespace, here: Gateway
) -> None:
    here.health.failed.clear()
    for name in ("error-in-stream+chunks-8+gap-20ms", "cut+chunks-20"):
        scene.call(scene.pool(name, "ok"), stream=True)
    assert {reason for _, _, reason in here.health.failed} == {"upstream_error", "upstream_bad_response"}  # fmt: skip
