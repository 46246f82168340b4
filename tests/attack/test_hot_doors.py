"""The hot routes answer alike through each of their doors: the loop's own, WSGI (a browser of another origin), and Flask's routes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.attack import raw
from tests.gateway import Gateway

ORIGIN = b"https://app.example"
MAX_BODY = 100_000
KEY = b"Authorization: Bearer {key}"
JSON = b"Content-Type: application/json"
DOORS: dict[str, tuple[bytes, bytes]] = {
    "wsgi": (b"", b"Origin: " + ORIGIN + b"\r\n"),
    "flask": (b"/", b""),
}
"""What the target ends with, and the headers, that lead a request past the loop's own door."""
OF_ORIGINS = re.compile(r"access-control-.*|vary")
OWN = {"date", "x-request-id", "x-upstream-request-id", "content-length"}
# What no two answers have in common.
IDS = re.compile(rb'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|"(?:id|item_id)": ?"[^"]*"|"(?:created|created_at|completed_at)": ?[0-9.]+')  # fmt: skip


@dataclass(frozen=True)
class Case:
    body: bytes
    status: int
    path: bytes = b"chat/completions"
    headers: tuple[bytes, ...] = (KEY, JSON)
    chunked: bool = False
    query: bytes = b""
    stated: int | None = None
    version: bytes = b"1.1"

    def request(self, end: bytes, more: bytes, key: bytes) -> bytes:
        framing = b"Transfer-Encoding: chunked" if self.chunked else b"Content-Length: %d" % (len(self.body) if self.stated is None else self.stated)  # fmt: skip
        lines = (
            b"POST /ai/v1/" + self.path + end + self.query + b" HTTP/" + self.version, b"Host: x", *self.headers, framing
        )  # fmt: skip
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body) if self.chunked else self.body
        return (b"\r\n".join(lines) + b"\r\n" + more + b"\r\n").replace(b"{key}", key) + body


def _chat(model: bytes = b"ok", more: bytes = b"") -> bytes:
    return b'{"model":"%b","messages":[{"role":"user","content":"Hello"}]%b}' % (model, more)


CASES: dict[str, Case] = {
    "chat": Case(_chat(), 200),
    "chat, in chunks": Case(_chat(), 200, chunked=True),
    "chat, HTTP/1.0": Case(_chat(), 200, version=b"1.0"),
    "chat, query": Case(_chat(), 200, query=b"?a=b&c"),
    "chat, expected": Case(_chat(), 200, headers=(KEY, JSON, b"Expect: 100-continue")),
    "chat, closing": Case(_chat(), 200, headers=(KEY, JSON, b"Connection: close")),
    "chat, no content type": Case(_chat(), 200, headers=(KEY,)),
    "chat, odd headers": Case(_chat(), 200, headers=(KEY, JSON, b"A_B: c", b"A: \xe4", b"A: d", b"X-Request-Id: mine")),
    "stream": Case(_chat(b"chunks-5", b',"stream":true'), 200),
    "stream with usage": Case(_chat(b"chunks-5", b',"stream":true,"stream_options":{"include_usage":true}'), 200),
    "stream, HTTP/1.0": Case(_chat(b"chunks-5", b',"stream":true'), 200, version=b"1.0"),
    "completions": Case(b'{"model":"ok","prompt":"Hello"}', 200, b"completions"),
    "embeddings": Case(b'{"model":"ok","input":"Hello"}', 200, b"embeddings"),
    "responses": Case(b'{"model":"ok","input":"Hello"}', 200, b"responses"),
    "no key": Case(_chat(), 401, headers=(JSON,)),
    "wrong key": Case(_chat(), 401, headers=(JSON, b"Authorization: Bearer sk-wrong")),
    "no JSON": Case(b"{", 400),
    "no body": Case(b"", 400),
    "no UTF-8": Case(_chat(more=b',"user":"\xff"'), 400),
    "no object": Case(b"[]", 400),
    "no such model": Case(_chat(b"nothing"), 404),
    "too large": Case(b"", 413, stated=MAX_BODY + 1),
    "too large, in chunks": Case(b" " * (MAX_BODY + 1), 413, chunked=True),
    "malformed chunks": Case(b"", 400, headers=(KEY, JSON, b"Transfer-Encoding: chunked"), stated=0),
    "an upstream's error": Case(_chat(b"fail-422"), 422),
    "an upstream's failure": Case(_chat(b"fail-500"), 500),
}  # fmt: skip


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "DWCTL_AUTH__SECURITY__CORS__ALLOWED_ORIGINS": ORIGIN.decode(),
        "DWCTL_LIMITS__REQUESTS__MAX_BODY_SIZE": str(MAX_BODY),
    }


@pytest.fixture(scope="module")
def ready(stage: Gateway) -> Gateway:
    for model in ("ok", "chunks-5", "fail-422", "fail-500"):
        stage.model(model)
    return stage


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", CASES)
def test_another_door_gives_the_same_answer(ready: Gateway, name: str, door: str) -> None:
    case = CASES[name]
    direct = _answers(ready, case, b"", b"")
    other = _answers(ready, case, *DOORS[door])
    assert direct[-1].status == case.status, direct
    assert [answer.status for answer in direct] == [answer.status for answer in other], other
    for one, two in zip(direct, other, strict=True):
        assert _said(two) == _said(one)
        assert _headers(two) == _headers(one)
        assert (two.framing, two.whole, two.closes) == (one.framing, one.whole, one.closes)


def _answers(gateway: Gateway, case: Case, end: bytes, more: bytes) -> list[raw.Answer]:
    """All, interim ones too."""
    found = []
    with raw.Connection(gateway.service.webs[0].port, 20) as connection:
        connection.send(case.request(end, more, gateway.alice.key.encode()))
        while not found or found[-1].status < 200:
            found.append(connection.receive())
    return found


def _said(answer: raw.Answer) -> bytes:
    """The body without ids and times."""
    return IDS.sub(b"", answer.body)


def _headers(answer: raw.Answer) -> dict[str, list[str]]:
    """Values by name; of ids and times that they are there. How long a body is depends on them."""
    return {
        name: ["some"] if name in OWN else answer.all(name)
        for name, _ in answer.headers
        if not OF_ORIGINS.fullmatch(name)
    }
