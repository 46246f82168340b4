"""SIGTERM, whatever a connection is doing: who keeps one is hung up on, who has begun is answered for the last time, and the process ends."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import orjson
import pytest

from tests.attack import raw
from tests.gateway import HELLO, Gateway
from tests.processes import Process, Service, eventually

GRACE_S = 10.0
PATIENCE_S = 20.0
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """`before` is sent, then the process is told to end, then `after` is sent. `{key}` is Alice's, of models `hold` and `hold-stream`
    each call is held until the process knows."""

    before: bytes
    after: bytes
    status: int | None
    """Of the last answer; None for no answer after the signal."""
    answered_before: int = 0


def _call(model: str, *, stream: bool = False) -> bytes:
    body = orjson.dumps({"model": model, "messages": HELLO, "stream": stream})
    return (
        b"POST /ai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


_WHO = orjson.dumps({"email": "nobody@cast.example", "password": "not-the-password"})
_LOGIN = (
    b"POST /authentication/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_WHO), _WHO)
)
_OK = _call("ok")
_CHUNKED = _OK[: _OK.index(b"Content-Length")] + b"Transfer-Encoding: chunked\r\n\r\n"
_BODY = _OK.partition(b"\r\n\r\n")[2]

CASES: dict[str, Case] = {
    "new": Case(b"", b"", None),
    "kept": Case(GET, b"", None, answered_before=1),
    "kept after a call": Case(_OK, b"", None, answered_before=1),
    "in the head": Case(GET[:10], GET[10:], 200),
    "in the second head": Case(GET + GET[:10], GET[10:], 200, answered_before=1),
    "in the head of a call": Case(_OK[:30], _OK[30:], 200),
    "in the body of a call": Case(_OK[:-5], _OK[-5:], 200),
    "in chunks of a call": Case(_CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(_BODY), _BODY), 200),
    "in a body for Flask": Case(_LOGIN[:-5], _LOGIN[-5:], 401),
    "in a call": Case(_call("hold"), b"", 200),
    "in a call, with another sent": Case(_call("hold"), GET, 200),
    "in a stream": Case(_call("hold-stream", stream=True), b"", 200),
}
"""A stream that has begun says that its connection is kept; all that are answered later say that it is not."""


@pytest.fixture(scope="module")
def answers(stage: Gateway, environ: dict[str, str]) -> Iterator[dict[str, list[raw.Answer]]]:
    """What each case got after the signal; the connection's end is read, and the process has ended well."""
    for model in ("ok", "hold", "hold-stream"):
        stage.model(model)
    stage.upstream.reset()
    held = sum(b"hold" in case.before for case in CASES.values())
    with (
        Service(environ | {"DWCTL_SHUTDOWN__GRACE": f"{GRACE_S}s"}, is_warm=False) as others,
        ExitStack() as stack,
    ):
        web = others.start_web()
        open_ = {
            name: stack.enter_context(_begin(web, case, stage)) for name, case in CASES.items()
        }
        stage.upstream.wait_active(held)
        # Both never come to an end by themselves: the grace is their bound.
        stuck = [stack.enter_context(raw.Connection(web.port, PATIENCE_S)) for _ in range(2)]
        stuck[0].send(GET[:10])
        stuck[1].send(_filled(_OK[:-5], stage))
        # They have been read when somebody later has.
        with raw.Connection(web.port, PATIENCE_S) as later:
            later.send(GET)
            assert later.receive().status == 200
        web.terminate()
        # Nobody else has got anything yet: who asked for nothing is hung up on first.
        idle = [
            open_[name]
            for name, case in CASES.items()
            if not case.after and b"hold" not in case.before
        ]
        for connection in idle:
            eventually(lambda known=connection: select.select([known.socket], [], [], 0)[0])
        for name, case in CASES.items():
            open_[name].send(_filled(case.after, stage))
        stage.upstream.release()
        yield {name: _received(connection) for name, connection in open_.items()}
        assert [_statuses(connection) for connection in stuck] == [[], [503]]
        assert web.wait(GRACE_S + 5) == 0
        assert "Traceback" not in web.output()


def _begin(web: Process, case: Case, stage: Gateway) -> raw.Connection:
    connection = raw.Connection(web.port, PATIENCE_S)
    connection.send(_filled(case.before, stage))
    for _ in range(case.answered_before):
        answer = connection.receive()
        assert answer.status == 200
        assert not answer.closes
    return connection


def _filled(data: bytes, stage: Gateway) -> bytes:
    return data.replace(b"{key}", stage.alice.key.encode())


def _received(connection: raw.Connection) -> list[raw.Answer]:
    """Everything up to the end, which must come."""
    found = []
    try:
        while True:
            found.append(connection.receive())
    except raw.Ended:
        return found


def _statuses(connection: raw.Connection) -> list[int]:
    return [answer.status for answer in _received(connection)]


@pytest.mark.parametrize("name", CASES)
def test_the_signal_ends_what_it_should(answers: dict[str, list[raw.Answer]], name: str) -> None:
    case, found = CASES[name], answers[name]
    if case.status is None:
        assert found == []
        return
    (answer,) = found
    assert answer.status == case.status, answer
    assert answer.whole
    assert answer.closes or name == "in a stream"
    if name == "in a stream":
        assert answer.body.endswith(b"data: [DONE]\n\n")


def test_a_process_that_has_served_enough_ends_in_the_same_way(environ: dict[str, str]) -> None:
    with Service(environ | {"GUNICORN_CMD_ARGS": "--max-requests 20"}, is_warm=False) as others:
        web = others.start_web()
        with raw.Connection(web.port, PATIENCE_S) as kept:
            kept.send(GET)
            assert kept.receive().status == 200
            with raw.Connection(web.port, PATIENCE_S) as busy:
                busy.send(GET * 20)
                answers = _received(busy)
            assert [answer.closes for answer in answers] == [False] * (len(answers) - 1) + [True]
            assert kept.ends(PATIENCE_S) == "closed"
