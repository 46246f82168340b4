"""Gunicorn's access log, which is off unless it is asked for: a line in its form for each answer, whoever gave it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.attack import raw
from tests.gateway import Gateway
from tests.processes import Process, Service, eventually

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LINE = re.compile(
    r'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "([^"]*)" (\d{3}) (\d+|-) "([^"]*)" "([^"]*)"'
)
BODY = b'{"model":"%b","messages":[{"role":"user","content":"Hello"}],"stream":%b}'


def _post(key: str, body: bytes, more: bytes = b"") -> bytes:
    return (
        b"POST /ai/v1/chat/completions?a=b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n%bContent-Length: %d\r\n\r\n%b"
        % (key.encode(), more, len(body), body)
    )


@pytest.fixture(scope="module")
def logging_(stage: Gateway, environ: dict[str, str]) -> Iterator[Process]:
    for model in ("ok", "chunks-5"):
        stage.model(model)
    with Service(environ | {"GUNICORN_CMD_ARGS": "--access-logfile -"}) as others:
        web = others.start_web()
        # A line is written behind its answer; from here on each test waits for its own.
        eventually(
            lambda: any("/readyz" in line and status == "200" for line, status, *_ in _lines(web))
        )
        yield web


def _lines(process: Process) -> list[tuple[str, ...]]:
    """Request line, status, size, referrer and agent of each."""
    return [
        found.groups() for line in process.output().splitlines() if (found := LINE.fullmatch(line))
    ]


HOT = "POST /ai/v1/chat/completions?a=b HTTP/1.1"
CASES: dict[str, tuple[bytes, str, str]] = {
    "direct": (BODY % (b"ok", b"false"), HOT, "200"),
    "stream": (BODY % (b"chunks-5", b"true"), HOT, "200"),
    "no JSON": (b"{", HOT, "400"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_call_is_a_line(logging_: Process, stage: Gateway, name: str) -> None:
    body, line, status = CASES[name]
    before = len(_lines(logging_))
    more = b"Referer: http://r/%b\r\nUser-Agent: agent\r\n" % name.replace(" ", "").encode()
    with raw.Connection(logging_.port, 20) as connection:
        connection.send(_post(stage.alice.key, body, more))
        answer = connection.receive()
    (found,) = eventually(lambda: _lines(logging_)[before:])
    assert found == (
        line,
        status,
        str(len(answer.body)),
        f"http://r/{name.replace(' ', '')}",
        "agent",
    )
    assert stage.alice.key not in logging_.output()


@pytest.mark.parametrize(
    ("request_", "line", "status"),
    [
        (GET, "GET /healthz HTTP/1.1", "200"),
        (b"GET /nowhere?a=b HTTP/1.0\r\n\r\n", "GET /nowhere?a=b HTTP/1.0", "404"),
        (b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD /healthz HTTP/1.1", "200"),
        (b"POST /authentication/login HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n", "POST /authentication/login HTTP/1.1", "413"),
        (_post("sk-nobody", b"{}"), HOT, "401"),
        (b'GET /a"b\xff HTTP/1.1\r\nHost: x\r\n\r\n', None, "404"),
    ],
    ids=["flask", "not found", "head", "too large", "stranger", "quote"],
)  # fmt: skip
def test_every_other_answer_too(logging_: Process, request_: bytes, line: str | None, status: str) -> None:  # fmt: skip
    before = len(_lines(logging_))
    lines_before = len(logging_.output().splitlines())
    with raw.Connection(logging_.port, 20) as connection:
        connection.send(request_)
        answer = connection.receive(to_head=request_.startswith(b"HEAD"))
        assert answer.status == int(status)
    if line is None:
        new = eventually(lambda: logging_.output().splitlines()[lines_before:])
        assert any(f" {status} " in one for one in new), new
        return
    (found,) = eventually(lambda: _lines(logging_)[before:])
    assert found[:2] == (line, status)
    assert found[2] in ("-", str(len(answer.body)))


def test_there_is_none_by_default(stage: Gateway) -> None:
    web = stage.service.webs[0]
    with raw.Connection(web.port, 20) as connection:
        connection.send(GET * 3)
        for _ in range(3):
            connection.receive()
    assert _lines(web) == []
    assert "/healthz" not in web.output()


def test_what_is_no_request_is_a_line_of_the_other_log(logging_: Process) -> None:
    """Nothing of it is repeated there."""
    before = len(_lines(logging_))
    with raw.Connection(logging_.port, 20) as connection:
        connection.send(b"GET /a-secret HTTP/9.9\r\nHost: x\r\n\r\n")
        assert connection.receive().status >= 400
        connection.ends()
    with raw.Connection(logging_.port, 20) as connection:
        connection.send(GET)
        connection.receive()
    (found,) = eventually(lambda: _lines(logging_)[before:])
    assert found[0] == "GET /healthz HTTP/1.1"
    assert "a-secret" not in logging_.output()
