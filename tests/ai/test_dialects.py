"""A sample of the recorded oddities through the real door: what a caller gets of them, under which content type, and what is stored."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.gateway import REALTIME, TERMINAL, Gateway, cost
from tests.processes import eventually
from tests.protocols.dialects import client
from tests.protocols.dialects.bodies import BODIES, NO_ANSWERS
from tests.protocols.dialects.client import Said
from tests.protocols.dialects.framings import FRAMINGS
from tests.protocols.dialects.streams import ALL, REGULAR, TEXT, Oddity
from tests.protocols.dialects.test_framings import CHAT_EVENTS

SSE = "text/event-stream"
JSON = "application/json"
Answer = tuple[str | None, bytes, Said]
"""Content type, body, what a caller has to learn."""


def framed(name: str) -> bytes:
    return FRAMINGS[name][1](CHAT_EVENTS)


def of(oddity: Oddity, kind: str | None) -> Answer:
    return kind, oddity.stream, oddity.says


STREAMED: dict[str, Answer] = {
    "capitals in the type": ("Text/Event-Stream; Charset=UTF-8", REGULAR, Said(TEXT)),
    "a stream as JSON": (JSON, REGULAR, Said(TEXT)),
    "a stream of no type": (None, REGULAR, Said(TEXT)),
    "comments first, as text": ("text/plain", framed("comments"), Said(TEXT)),
    "JSON as a stream": of(BODIES["as it should be"], SSE),
    "JSON as text": of(BODIES["as it should be"], "text/plain"),
    "JSON of no type": of(BODIES["white space before and behind"], None),
    "JSON lines": of(ALL["native: chunks as JSON lines"], "application/x-ndjson"),
    "Ollama's own": of(ALL["native: Ollama's own protocol"], JSON),
    "CRLF": (SSE, framed("CRLF"), Said(TEXT)),
    "no blank lines": (SSE, framed("no blank lines"), Said(TEXT)),
    "empty data": (SSE, framed("empty data"), Said(TEXT)),
    "empty reasons": of(ALL["finish: empty reason in each chunk"], SSE),
    "choices null": of(ALL["shape: choices null on the usage chunk"], SSE),
    "no delta": of(ALL["shape: choices without delta"], SSE),
    "calls alike": of(ALL["call: all index 0, without ids"], SSE),
    "usage in the choice": of(ALL["usage: in the choice"], SSE),
    "usage under x_groq": of(ALL["usage: under x_groq"], SSE),
    "an emoji in two": of(ALL["text: an emoji in two chunks"], SSE),
    "an error field": of(ALL["error: a field of its own"], SSE),
    "a failed choice": of(ALL["finish: reason error"], SSE),
    "cut": of(ALL["error: the stream is cut"], SSE),
}
WHOLE: dict[str, Answer] = {
    **{name: STREAMED[name] for name in ("a stream as JSON", "a stream of no type", "JSON as a stream", "Ollama's own", "calls alike")},
    "an end marker behind": of(BODIES["more behind the object"], SSE),
    "content in parts": of(BODIES["content in parts"], JSON),
    "two calls without ids": of(BODIES["two without ids"], JSON),
    "not UTF-8": of(BODIES["not UTF-8"], "application/json; charset=latin-1"),
    "a failed choice": of(BODIES["reason error"], JSON),
    "MiniMax's error": of(BODIES["MiniMax's"], JSON),
    "cut": (JSON, NO_ANSWERS["cut"], Said(error="http_502")),
    "no choices": (JSON, NO_ANSWERS["choices empty"], Said(error="http_502")),
    "a page": ("text/html", NO_ANSWERS["a page"], Said(error="http_502")),
}  # fmt: skip
SAYS = {f"streams: {n}": a for n, a in STREAMED.items()} | {f"says: {n}": a for n, a in WHOLE.items()}  # fmt: skip


class Odd(BaseHTTPRequestHandler):
    """Answers as the model's name says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name, _, coding = body["model"].partition("|")
        if name == "busy":
            self._send(429, JSON, b'{"error":{"message":"busy"}}', retry=formatdate(time.time() + 600, usegmt=True))  # fmt: skip
            return
        kind, said, _ = SAYS[name]
        self._send(200, kind, said, coding=coding)

    def _send(self, status: int, kind: str | None, said: bytes, coding: str = "", retry: str = "") -> None:  # fmt: skip
        self.send_response(status)
        if kind is not None:
            self.send_header("content-type", kind)
        if coding:
            said = gzip.compress(said)
            self.send_header("content-encoding", coding)
        if retry:
            self.send_header("retry-after", retry)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for start in range(0, len(said), 100):
            piece = said[start : start + 100]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def odd() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["/chat/completions", "/responses"])
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def asked(stage: Gateway, odd: str, name: str, path: str, stream: bool):
    model = stage.flexible(name, alias=f"odd {name}", endpoint=stage.endpoint(odd))
    call = stage.respond if path == "/responses" else stage.converse
    more = {"stream_options": {"include_usage": True}} if path != "/responses" and stream else {}
    return call(model, stream=stream, **more)


def ended(stage: Gateway, answer, says: Said) -> None:
    """It is stored as completed only if its caller got a whole answer, and charged for what was used."""
    id = f"resp_{answer.headers['x-request-id']}"
    eventually(lambda: stage.state(id) in TERMINAL, 5)
    assert stage.shown(id)["status"] == ("failed" if says.error else "completed")
    if not says.error:
        assert stage.charges(id) == [cost(REALTIME)]


@pytest.mark.parametrize("name", [f"streams: {name}" for name in STREAMED])
def test_a_stream_is_a_stream(stage: Gateway, odd: str, path: str, name: str) -> None:
    says = SAYS[name][2]
    answer = asked(stage, odd, name, path, stream=True)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(SSE)
    if path == "/responses":
        said = client.response_stream(answer.content)
    else:
        said = client.chat_stream(answer.content, complete=False)
    assert (said.text, said.calls, bool(said.error)) == (says.text, says.calls, bool(says.error))
    ended(stage, answer, says)


@pytest.mark.parametrize("name", [f"says: {name}" for name in WHOLE])
def test_an_answer_is_an_answer(stage: Gateway, odd: str, path: str, name: str) -> None:
    says = SAYS[name][2]
    answer = asked(stage, odd, name, path, stream=False)
    assert answer.headers["content-type"] == JSON
    if says.error:
        assert answer.status_code == 502
        assert answer.json()["error"]["message"]
    else:
        assert answer.status_code == 200
        if path == "/responses":
            said = client.response(answer.json())
        else:
            said = client.chat_answer(answer.content, complete=False)
        assert (said.text, said.calls, said.usage) == (says.text, says.calls, (9, 3))
    ended(stage, answer, says)


@pytest.mark.parametrize("name", ["streams: a stream as JSON|gzip", "streams: CRLF|gzip"])
def test_a_compressed_stream_is_read_too(stage: Gateway, odd: str, path: str, name: str) -> None:
    answer = asked(stage, odd, name, path, stream=True)
    assert "content-encoding" not in answer.headers
    assert b"Hello" in answer.content
    ended(stage, answer, Said(TEXT))


def test_a_date_to_come_back_at_is_told_as_it_is(stage: Gateway, odd: str, path: str) -> None:
    answer = asked(stage, odd, "busy", path, stream=False)
    assert answer.status_code == 429
    assert answer.headers["retry-after"].endswith("GMT")
