"""Upstream servers whose texts hold what a database does not take: nothing of that may lose a record."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.gateway import FLEX, REALTIME, TERMINAL, Gateway, cost
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


class Nul(BaseHTTPRequestHandler):
    """Says NUL everywhere; the model's name says where."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        kind, status, said = "application/json", 200, ANSWER
        if "refuses" in body["model"]:
            status, said = 400, ERROR
        elif body.get("stream"):
            kind, said = "text/event-stream", b"data: %b\n\ndata: %b\n\n" % (CHUNK, ERROR)
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def nul() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Nul) as server:
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
