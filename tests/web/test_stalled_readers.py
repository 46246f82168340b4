"""Callers that stop reading or sending, on a real server: hung up on after a while without any progress, and billed for what they had."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from tests.gateway import HELLO, PRICE, Account, Gateway
from tests.processes import eventually

LIMIT_S = 1.0


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "DWCTL_LIMITS__REQUESTS__STALLED_READER_TIMEOUT": str(LIMIT_S),
        "DWCTL_LIMITS__REQUESTS__BODY_GRACE": str(LIMIT_S),
    }


@contextmanager
def calling(gateway: Gateway, who: Account, body: Any) -> Iterator[socket.socket]:
    """A call that was sent, by a caller whose system takes little of the answer for it."""
    host, port = gateway.url.removeprefix("http://").split(":")
    content = orjson.dumps({"messages": HELLO} | body)
    head = (
        "POST /ai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"authorization: Bearer {who.key}\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        caller.settimeout(30)
        caller.connect((host, int(port)))
        caller.sendall(head.encode() + content)
        yield caller


def was_hung_up_on(caller: socket.socket) -> bool:
    poll = select.poll()
    poll.register(caller, select.POLLERR)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def test_a_stream_that_nobody_reads_ends_and_is_billed_for_what_was_delivered(stage: Gateway):
    model, who = stage.model("chunks-200000", price=PRICE), stage.account()
    stage.upstream.reset()
    with calling(stage, who, {"model": model, "stream": True}) as caller:
        assert caller.recv(1000)
        eventually(lambda: was_hung_up_on(caller))
    eventually(lambda: stage.upstream.seen()[0]["outcome"] == "left")
    eventually(lambda: stage.charged(who.id) > 0)
    assert not stage.all(
        "SELECT id FROM fusillade.requests WHERE state IN ('pending', 'claimed', 'processing')"
    )


def test_an_answer_that_nobody_reads_is_given_up(stage: Gateway):
    model = stage.model("big-20000")
    with calling(stage, stage.alice, {"model": model}) as caller:
        assert caller.recv(1000)
        eventually(lambda: was_hung_up_on(caller))


def test_a_slow_reader_gets_everything(stage: Gateway):
    """Also one that does not take as much within the limit as makes its connection writable again."""
    model = stage.model("big-20000")
    with calling(stage, stage.alice, {"model": model}) as caller:
        received = 0
        slow_until = time.monotonic() + 3 * LIMIT_S
        while piece := caller.recv(20_000):
            received += len(piece)
            if time.monotonic() < slow_until:
                time.sleep(0.05)
    assert received > 20_000 * 1024


def test_a_body_that_stops_coming_is_not_waited_for(stage: Gateway):
    """What it was to take of its account's room is free again; a connection between two requests may be silent for longer."""
    host, port = stage.url.removeprefix("http://").split(":")
    head = f"POST /ai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {stage.alice.key}\r\n"
    body = orjson.dumps({"messages": HELLO, "model": stage.model("ok")})
    with socket.create_connection((host, int(port)), timeout=LIMIT_S * 10) as caller:
        caller.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        assert caller.recv(4096).startswith(b"HTTP/1.1 200 ")
        time.sleep(LIMIT_S * 2)
        caller.sendall(f"{head}content-length: 500\r\n\r\n".encode() + body)
        answer = caller.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"\r\nconnection: close\r\n" in answer.lower()
        # The rest of that body would be read as another request.
        while answer:
            answer = caller.recv(4096)
