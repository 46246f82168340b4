"""Upstream servers whose texts hold what a database does not take, or that answer in another protocol than they were asked in: each call
has one end, which its caller, its row and the ledger agree on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.gateway import FLEX, REALTIME, TERMINAL, Gateway, cost, marker
from tests.lifecycle.test_store import places_of
from tests.processes import eventually

ERROR = rb'{"error":{"message":"a\u0000b","type":"t\u0000","code":"c\u0000","param":"p\u0000"}}'
ANSWER = (
    rb'{"id":"i\u0000","object":"chat.completion","created":1,"model":"m\u0000","choices":[{"index":0,"message":'
    rb'{"role":"assistant","content":"a\u0000b"},"finish_reason":"stop\u0000"}],'
    rb'"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}'
)
CHUNK = (
    rb'{"id":"i\u0000","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
    rb'"delta":{"role":"assistant","content":"a\u0000b"},"finish_reason":null}]}'
)

CHATTED = (
    b'{"id":"i","object":"chat.completion.chunk","created":1,"model":"secret-name","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}]}'
)
CHAT_END = (
    b'{"id":"i","object":"chat.completion.chunk","created":1,"model":"secret-name","choices":[{"index":0,"delta":{},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}'
)


class Odd(BaseHTTPRequestHandler):
    """One of these servers."""

    protocol_version = "HTTP/1.1"

    def asked(self) -> bytes:
        return self.rfile.read(int(self.headers["content-length"]))

    def answer(self, said: bytes, kind: str = "text/event-stream", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_arguments: object) -> None:
        pass


class Nul(Odd):
    """Says NUL everywhere; the model's name says where."""

    def do_POST(self) -> None:
        body = json.loads(self.asked())
        kind, status, said = "application/json", 200, ANSWER
        if "refuses" in body["model"]:
            status, said = 400, ERROR
        elif body.get("stream"):
            kind, said = "text/event-stream", b"data: %b\n\ndata: %b\n\n" % (CHUNK, ERROR)
        self.answer(said, kind, status)


class Chatty(Odd):
    """Answers whatever it is asked with the stream of a chat."""

    def do_POST(self) -> None:
        self.asked()
        said = b"data: %b\n\ndata: %b\n\ndata: [DONE]\n\n" % (CHATTED, CHAT_END)
        self.answer(said)


class Quoting(Odd):
    """Says why it ended, or broke off, in the words of the question."""

    def do_POST(self) -> None:
        body = json.loads(self.asked())
        said = f"no word of: {body['messages'][-1]['content']}"
        chunk = json.loads(CHUNK)
        if body["model"] == "breaks":
            last = {"error": {"message": said, "type": said, "code": said, "param": said}}
        else:
            last = json.loads(CHUNK)
            last["choices"][0] |= {"delta": {}, "finish_reason": said}
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in (chunk, last))
        self.answer(f"{text}data: [DONE]\n\n".encode())


@pytest.fixture(scope="module")
def nul() -> Iterator[str]:
    yield from serving(Nul)


@pytest.fixture(scope="module")
def quoting() -> Iterator[str]:
    yield from serving(Quoting)


@pytest.fixture(scope="module")
def chatty() -> Iterator[str]:
    yield from serving(Chatty)


def serving(handler: type[Odd]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tier", ["priority", "flex"])
@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
@pytest.mark.parametrize("name", ["answers", "refuses"])
def test_nul_in_an_answer_loses_no_record(
    stage: Gateway, nul: str, name: str, path: str, tier: str, stream: bool
) -> None:
    model = stage.flexible(name, alias=f"{name}+nul", endpoint=stage.endpoint(nul))
    call = stage.respond if path == "/responses" else stage.converse
    answer = call(model, service_tier=tier, stream=stream)
    assert answer.content
    id = f"resp_{answer.headers['x-request-id']}"
    eventually(lambda: stage.state(id) in TERMINAL, 5)
    broke_off = name == "answers" and stream
    failed = name == "refuses" or broke_off
    assert stage.shown(id)["status"] == ("failed" if failed else "completed")
    assert len(stage.of(id).logs) == 1
    if not failed:
        assert stage.charges(id) == [cost(FLEX if tier == "flex" else REALTIME)]
    assert stage.leases() == []


@pytest.mark.parametrize("web", [0, 1], ids=["open", "strict"])
@pytest.mark.parametrize("tier", [None, "flex"])
def test_the_stream_of_a_chat_is_no_embedding(
    stage: Gateway, chatty: str, tier: str | None, web: int
) -> None:
    model = stage.flexible("chatty", endpoint=stage.endpoint(chatty))
    body = {"model": model, "input": "Hello"} | ({"service_tier": tier} if tier else {})
    answer = stage.post("/embeddings", body, url=stage.service.webs[web].url)
    assert answer.status_code == 502, answer.text
    left = stage.left(answer)
    assert (left.request.state, len(left.logs), left.charges) == ("failed", 1, [])


@pytest.mark.parametrize("background", [False, True])
def test_strict_mode_shows_nothing_of_a_stream_in_another_protocol(
    stage: Gateway, chatty: str, background: bool
) -> None:
    model = stage.flexible(
        "chatty",
        alias="chatty-relayed",
        endpoint=stage.endpoint(chatty),
        open_responses_adapter=False,
    )
    url = stage.service.webs[1].url
    answer = stage.respond(model, background=background, stream=True, url=url)
    assert "secret-name" not in answer.text
    assert answer.text.count("event: response.failed\n") == 1
    assert stage.left(answer).request.state == "failed"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tier", ["priority", "flex"])
@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
@pytest.mark.parametrize("name", ["breaks", "ends"])
def test_an_upstream_that_quotes_the_question_leaves_nothing_of_it(
    stage: Gateway, quoting: str, name: str, path: str, tier: str, stream: bool
) -> None:
    model = stage.flexible(name, alias=f"{name}+quoting", endpoint=stage.endpoint(quoting))
    call = stage.respond if path == "/responses" else stage.converse
    mark = marker()
    answer = call(model, mark, service_tier=tier, stream=stream, store=False)
    assert answer.content
    log = stage.log_of(answer)
    assert log.error_code or name == "ends"
    eventually(lambda: not places_of(stage, mark), 5)
