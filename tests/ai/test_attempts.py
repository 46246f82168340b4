"""A call with a choice of targets: what is tried, what the caller gets, what is written down.

A real upstream, a real recorder and a real database, without a server in front; the models are made by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask

from dwctl.ai import relay
from dwctl.ai.admission import Admitted, admit
from dwctl.ai.gateway import Gateway
from dwctl.ai.in_progress import Flight
from dwctl.catalog.routing import Model
from dwctl.protocols.surfaces import CHAT, EMBEDDINGS, RESPONSES, Surface
from dwctl.upstream.target import Target, Timeouts
from dwctl.web import current
from tests.ai.values import a_key, a_pool, a_request, a_routing
from tests.fake_upstream import FakeUpstream
from tests.processes import free_port

ALICE = a_key()
QUICK = Timeouts(connect_s=0.3, first_byte_s=0.3, idle_s=0.3)


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

    def target(name: str, number: int, timeouts: Timeouts = QUICK) -> Target:
        url = f"http://127.0.0.1:{free_port()}/v1" if name == "nowhere" else upstream.url
        return Target(url, name, None, timeouts, uuid4(), f"server-{number}", False)

    def pool(*names: str, **more: Any) -> Model:
        return a_pool(*(target(name, number) for number, name in enumerate(names)), **more)

    def admitted(model: Model, surface: Surface = CHAT, **content: Any) -> Admitted:
        request = a_request(surface, "m", **content)
        return admit(a_routing(model, funded=(ALICE,)), ALICE, request, strict=False)

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
