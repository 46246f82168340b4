"""Callers that wait for a worker: kept alive, counted, told when this process ends, and missed when they leave.

No worker runs until a test starts one, so that requests wait for as long as a test wants; a test completes them by hand.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import orjson
import pytest

from tests.cast import Cast
from tests.gateway import (
    REALTIME,
    Gateway,
    Held,
    Json,
    assert_openai_error,
    cost,
    frames,
    marker,
    request_id,
    without_comments,
)
from tests.processes import Process, Service, eventually
from tests.protocols.openresponses.schema import check_response
from tests.protocols.streams import data_of

KEEPALIVE_S = 0.4
AT_MOST = 4
COMPLETE = """
    UPDATE fusillade.requests SET state = 'completed', response_status = 200, completed_at = now(),
        response_body = '{"choices": [{"message": {"role": "assistant", "content": "by hand"}, "finish_reason": "stop"}]}'
     WHERE id = %s"""


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "DWCTL_RESPONSES__KEEPALIVE": f"{KEEPALIVE_S}s",
        "DWCTL_RESPONSES__HELD_MAX_PER_OWNER": str(AT_MOST),
    }


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    with Service(environ) as running:
        running.start_web()
        yield running


@pytest.fixture(scope="module")
def model(stage: Gateway) -> str:
    return stage.flexible("plain")


@pytest.fixture(autouse=True)
def nobody_waits(stage: Gateway) -> Iterator[None]:
    yield
    stage.execute("DELETE FROM fusillade.requests WHERE state = 'pending'")


class Caller:
    """A connection on which one request was sent, to see each byte when it comes."""

    def __init__(self, stage: Gateway, path: str, body: Json) -> None:
        host, _, port = stage.url.removeprefix("http://").partition(":")
        raw = orjson.dumps(body)
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._socket.sendall(
            f"POST /ai/v1{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {stage.alice.key}\r\ncontent-length: {len(raw)}\r\n\r\n".encode()
            + raw
        )
        self.received = b""

    def until(self, text: bytes) -> bytes:
        """Everything so far, once `text` is in it."""
        while text not in self.received:
            data = self._socket.recv(65536)
            assert data, self.received
            self.received += data
        return self.received

    def hears_within(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return False
        self.received += data
        return bool(data)

    def close(self) -> None:
        self._socket.close()


def waiting(stage: Gateway, body: Json) -> str:
    """The id of the pending request that was made of a body with a marked text."""
    text = body.get("input") or body["messages"][0]["content"]
    rows = eventually(
        lambda: stage.all(
            "SELECT r.id FROM fusillade.requests r JOIN fusillade.request_templates t ON t.id = r.template_id "
            "WHERE r.state = 'pending' AND position(%s in t.body) > 0",
            text,
        )
    )
    return f"resp_{rows[0].id}"


def flex(model: str, **more: Any) -> Json:
    return {"model": model, "input": marker(), "service_tier": "flex", **more}


def flex_chat(model: str, **more: Any) -> Json:
    messages = [{"role": "user", "content": marker()}]
    return {"model": model, "messages": messages, "service_tier": "flex", **more}


# --- kept alive


def test_white_space_keeps_a_held_response_alive(stage: Gateway, model: str) -> None:
    body = flex(model)
    with closing(Caller(stage, "/responses", body)) as caller:
        id = waiting(stage, body)
        head = caller.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert b"application/json" in head
        time.sleep(KEEPALIVE_S)
        stage.execute(COMPLETE, request_id(id))
        caller.until(b"\r\n0\r\n\r\n")
    text = unchunked(caller.received)
    assert text.startswith(b"  ")
    response = orjson.loads(text)
    check_response(response)
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == "by hand"
    assert stage.shown(id) == response


def test_an_object_after_white_space_carries_its_failure(stage: Gateway, model: str) -> None:
    body = flex(model)
    held = Held(lambda: stage.post("/responses", body))
    id = waiting(stage, body)
    time.sleep(KEEPALIVE_S * 1.5)
    stage.execute(
        "UPDATE fusillade.requests SET state = 'failed', failed_at = now(), "
        'error = \'{"type":"NonRetriableHttpStatus","details":{"status":400,"body":"no"}}\' WHERE id = %s',
        request_id(id),
    )
    answer = held.answer()
    assert answer.status_code == 200
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"]["code"] == "http_400"
    assert stage.shown(id) == answer.json()


def test_an_object_after_white_space_tells_of_a_row_that_is_gone(
    stage: Gateway, model: str
) -> None:
    body = flex(model)
    held = Held(lambda: stage.post("/responses", body))
    id = waiting(stage, body)
    time.sleep(KEEPALIVE_S * 1.5)
    assert stage.delete(id).status_code == 200
    answer = held.answer()
    assert answer.status_code == 200
    assert answer.json()["id"] == id
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"]["code"] == "response_not_found"


@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
def test_comments_keep_a_held_stream_alive(stage: Gateway, model: str, path: str) -> None:
    body = (flex if path == "/responses" else flex_chat)(model, stream=True)
    with closing(Caller(stage, path, body)) as caller:
        id = waiting(stage, body)
        caller.until(b": waiting\n\n")
        time.sleep(KEEPALIVE_S * 2.5)
        stage.execute(COMPLETE, request_id(id))
        caller.until(b"[DONE]")
        kinds = frames(unchunked(caller.until(b"\r\n0\r\n\r\n")))
    assert kinds.count("comment") >= 2
    assert kinds[-1] == "[DONE]"


def test_nothing_is_said_early_to_a_held_chat_caller(stage: Gateway, model: str) -> None:
    """Its answer has a status that is known at the end only."""
    body = flex_chat(model)
    with closing(Caller(stage, "/chat/completions", body)) as caller:
        id = waiting(stage, body)
        assert not caller.hears_within(KEEPALIVE_S * 2.5)
        stage.execute(COMPLETE, request_id(id))
        assert b"by hand" in caller.until(b"by hand")
        assert caller.received.startswith(b"HTTP/1.1 200 OK")


# --- how many


def test_an_account_has_only_so_many_held_calls(stage: Gateway, model: str) -> None:
    bodies = [flex(model) for _ in range(AT_MOST)]
    held = [Held(lambda body=body: stage.post("/responses", body)) for body in bodies]
    ids = [waiting(stage, body) for body in bodies]
    rows = len(stage.all("SELECT FROM fusillade.requests"))
    for one_more in (flex(model), flex(model, stream=True)):
        refused = stage.post("/responses", one_more)
        assert_openai_error(refused, 429, "too_many_held_requests")
        assert refused.headers["retry-after"]
    refused = stage.post("/chat/completions", flex_chat(model))
    assert_openai_error(refused, 429, "too_many_held_requests")
    assert len(stage.all("SELECT FROM fusillade.requests")) == rows
    assert stage.post("/responses", flex(model, background=True)).status_code == 202
    other = stage.account()
    theirs = flex(model)
    of_another = Held(lambda: stage.post("/responses", theirs, by=other))
    ids.append(waiting(stage, theirs))
    for id in ids:
        stage.execute(COMPLETE, request_id(id))
    for call in (*held, of_another):
        assert call.answer().json()["status"] == "completed"
    body = flex(model)
    again = Held(lambda: stage.post("/responses", body))
    stage.execute(COMPLETE, request_id(waiting(stage, body)))
    assert again.answer().status_code == 200


# --- who leaves


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
@pytest.mark.parametrize("wait_s", [0.0, KEEPALIVE_S * 1.5], ids=["at once", "later"])
def test_a_request_whose_caller_leaves_is_cancelled(
    stage: Gateway, model: str, path: str, stream: bool, wait_s: float
) -> None:
    body = (flex if path == "/responses" else flex_chat)(model, stream=stream)
    with closing(Caller(stage, path, body)) as caller:
        id = waiting(stage, body)
        if stream:
            caller.until(b"\r\n\r\n")
        time.sleep(wait_s)
    eventually(lambda: stage.state(id) == "canceled", 5)


def test_a_background_request_whose_caller_leaves_goes_on(stage: Gateway, model: str) -> None:
    body = flex(model, background=True, stream=True)
    with closing(Caller(stage, "/responses", body)) as caller:
        id = waiting(stage, body)
        caller.until(b"response.queued")
    time.sleep(KEEPALIVE_S * 2)
    assert stage.state(id) == "pending"


def test_a_realtime_stream_in_the_background_outlives_its_caller(stage: Gateway) -> None:
    """What it said after its caller had left is stored and billed as well."""
    body = {"model": stage.flexible("chunks-8+gap-100"), "input": marker(), "background": True, "stream": True}  # fmt: skip
    with closing(Caller(stage, "/responses", body)) as caller:
        caller.until(b"w1 ")
    (row,) = stage.all("SELECT id FROM fusillade.requests WHERE state = 'processing'")
    response = stage.over(f"resp_{row.id}")
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == "".join(f"w{n} " for n in range(8))
    assert stage.charges(response["id"]) == [cost(REALTIME)]
    eventually(lambda: stage.sent(str(body["input"]))[0]["outcome"] == "answered")


# --- the process ends


@pytest.fixture
def ending(stage: Gateway) -> Iterator[Process]:
    """A second web process, to be ended."""
    process = stage.service.start_web()
    yield process
    process.stop()
    stage.service.webs.remove(process)


def test_held_callers_are_told_at_sigterm_and_their_requests_run_on(
    stage: Gateway, model: str, ending: Process
) -> None:
    def hold(path: str, body: Json) -> tuple[Held, str]:
        stream = bool(body.get("stream"))
        held = Held(lambda: stage.post(path, body, url=ending.url, stream=stream))
        return held, waiting(stage, body)

    chat, chat_id = hold("/chat/completions", flex_chat(model))
    alive, alive_id = hold("/responses", flex(model))
    stream, stream_id = hold("/responses", flex(model, stream=True))
    time.sleep(KEEPALIVE_S * 1.5)
    fresh, fresh_id = hold("/responses", flex(model))
    ending.terminate()
    refused = chat.answer()
    assert chat_id in assert_openai_error(refused, 503)["message"]
    assert refused.headers["retry-after"]
    as_it_stands = alive.answer().json()
    assert (as_it_stands["id"], as_it_stands["status"]) == (alive_id, "queued")
    # Not a word of failure: it goes on, and can be resumed behind the last number.
    *told, done = data_of(without_comments(stream.answer().content))
    assert [event["type"] for event in told] == ["response.created", *["response.queued"] * 2]
    assert [event["sequence_number"] for event in told] == [0, 1, 1]
    assert (told[-1]["response"]["id"], done) == (stream_id, "[DONE]")
    assert told[-1]["response"] == stage.shown(stream_id)
    begun = fresh.answer()
    if begun.status_code == 200:  # on a slow machine the white space was first
        assert begun.json()["status"] == "queued"
    else:
        assert fresh_id in assert_openai_error(begun, 503)["message"]
    ending.wait(15)

    stage.service.start_worker()
    for id in (chat_id, alive_id, stream_id, fresh_id):
        assert stage.over(id)["status"] == "completed"
        assert len(stage.charges(id)) == 1


def test_requests_of_a_web_process_that_was_killed_run_on(stage: Gateway, ending: Process) -> None:
    if not stage.service.workers:
        stage.service.start_worker()
    model = stage.flexible("hold")
    bodies = [flex(model), flex(model, stream=True), flex_chat(model)]
    paths = ["/responses", "/responses", "/chat/completions"]
    held = [
        Held(lambda p=p, b=b: stage.post(p, b, url=ending.url, stream="stream" in b))
        for p, b in zip(paths, bodies, strict=True)
    ]
    stage.upstream.wait_active(3)
    ending.kill()
    for call in held:
        call.ended()
    stage.upstream.release()
    eventually(lambda: not stage.leases())
    rows = stage.all("SELECT id, state FROM fusillade.requests WHERE model = %s", model)
    assert [row.state for row in rows] == ["completed"] * 3
    for row in rows:
        assert len(stage.charges(f"resp_{row.id}")) == 1


def unchunked(answer: bytes) -> bytes:
    """The body of a chunked answer that has come to its end."""
    _, _, rest = answer.partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if (length := int(size, 16)) == 0:
            break
        body, rest = body + rest[:length], rest[length + 2 :]
    return body
