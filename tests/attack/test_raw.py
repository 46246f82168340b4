"""Every raw request of the table gets what it must, in the shape that it must have, and the process stays whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.attack import raw
from tests.attack.raw_cases import CASES, HOT, KEY, MAX_BODY, MODEL, REFUSALS, WHO, Case
from tests.gateway import Gateway

pytestmark = pytest.mark.usefixtures("lives_on")


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_LIMITS__REQUESTS__MAX_BODY_SIZE": str(MAX_BODY)}


@pytest.fixture(scope="module")
def lives_on(stage: Gateway) -> Iterator[None]:
    """The workers at the end are those of the beginning, and have printed a line for each refusal at most."""
    stage.model(MODEL)
    web = stage.service.webs[0]
    workers = web.worker_pids()
    yield
    assert web.worker_pids() == workers
    assert len(web.output().splitlines()) <= 2 * len(CASES)
    for word in ("Traceback", "[ERROR]", "[CRITICAL]"):
        assert word not in web.output()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_raw_request_gets_what_it_must(stage: Gateway, case: Case) -> None:
    web = stage.service.webs[0]
    who = b"%05d" % CASES.index(case)
    steps = [_filled(step, {KEY: stage.alice.key.encode(), WHO: who}) for step in case.steps]
    finals = max(sum(min(one) >= 200 for one in way) for way in case.ways)
    patience_s = raw.PATIENCE_S if case.closes is None else 2 * raw.PATIENCE_S
    found = raw.exchange(web.port, steps, expected=finals, heads=case.heads, patience_s=patience_s)
    shown = f"expected {case.expects}, got {found}"
    assert any(_fits(found.statuses, way) for way in case.ways), shown
    assert not found.after, shown
    for answer in found.answers:
        assert answer.whole, shown
        if answer.status >= 400 and answer.body:
            assert_error(answer, case.shape)
    refused = bool(found.answers) and found.answers[-1].status in REFUSALS
    if case.closes or (case.closes is None and refused and not _may_be_routed(case)):
        assert found.end == "closed", shown
        assert not found.answers or found.answers[-1].closes or case.closes, shown
    elif case.closes is None and not refused and not found.answers[-1].closes:
        assert found.end == "open", shown


def _filled(step: raw.Step, values: dict[bytes, bytes]) -> raw.Step:
    for name, value in values.items():
        match step:
            case bytes():
                step = step.replace(name, value)
            case raw.Trickle():
                step = raw.Trickle(step.data.replace(name, value))
    return step


def _fits(statuses: tuple[int, ...], way: list[frozenset[int]]) -> bool:
    return len(statuses) == len(way) and all(s in one for s, one in zip(statuses, way, strict=True))


def _may_be_routed(case: Case) -> bool:
    """Whether the refusal may be a route's own, which closes nothing."""
    return "404" in case.expects or "405" in case.expects


def assert_error(answer: raw.Answer, shape: str) -> None:
    """The body of a refusal is JSON, in one of the two shapes."""
    body: Any = answer.json()
    if shape == "openai" or (shape == "either" and "error" in body):
        assert set(body) == {"error"}, body
        assert set(body["error"]) == {"message", "type", "param", "code"}, body
        assert all(isinstance(body["error"][name], str) for name in ("message", "type", "code"))
    else:
        assert {"code", "message", "request_id"} <= set(body), body


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
        b"@@@\r\n\r\n",
        HOT.head(b"Content-Length: 2") + b"{}",
    ],
    ids=["answered", "not found", "malformed", "hot"],
)
def test_every_answer_has_its_manners(stage: Gateway, request_: bytes) -> None:
    found = raw.exchange(stage.service.webs[0].port, [request_])
    (answer,) = found.answers
    assert answer.all("x-content-type-options") == ["nosniff"]
    assert len(answer.all("date")) == 1
    assert answer.framing == "length"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
        b"POST /ai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\n",
        b"POST /ai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ],
    ids=["malformed", "stranger", "coding"],
)
def test_a_refusal_arrives_although_the_caller_goes_on_sending(stage: Gateway, head: bytes) -> None:
    """A connection that is closed with bytes unread is reset, and a reset throws away what had come before it."""
    with raw.Connection(stage.service.webs[0].port) as connection:
        connection.send(head)
        with contextlib.suppress(OSError):  # it may have stopped taking
            for _ in range(64):
                connection.send(b"x" * 65536)
        answer = connection.receive()
        assert answer.status in REFUSALS | {401}
        assert answer.whole
        assert_error(answer, "either")
        assert answer.closes
