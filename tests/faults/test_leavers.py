"""Callers that leave in the middle of a call: the upstream stops, the row ends, what was delivered is billed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import orjson
import pytest

from tests.gateway import HELLO, Account, Gateway, cost_of
from tests.processes import eventually

pytestmark = pytest.mark.usefixtures("nothing_fell_over")

DELIVERED = "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 "
"""What `chunks-20+hold-stream` says until it holds."""


@pytest.fixture(scope="module", params=["cancel", "drain"])
def on_disconnect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def environ(environ: dict[str, str], on_disconnect: str) -> dict[str, str]:
    return environ | {"DWCTL_UPSTREAM__ON_DISCONNECT": on_disconnect}


@pytest.fixture
def leaver(stage: Gateway) -> Account:
    stage.upstream.reset()
    return stage.account()


@contextmanager
def connected(gateway: Gateway, who: Account, path: str, body: Any) -> Iterator[socket.socket]:
    """A call that was sent on a connection of its own; leaving the block is leaving the call."""
    port = int(gateway.url.rsplit(":", 1)[1])
    content = orjson.dumps(body)
    head = f"POST /ai/v1{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {who.key}\r\ncontent-length: {len(content)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
        caller.sendall(head.encode() + content)
        yield caller


def read_until(caller: socket.socket, text: bytes) -> bytes:
    received = b""
    while text not in received:
        piece = caller.recv(65536)
        assert piece, received
        received += piece
    return received


def ended(gateway: Gateway, who: Account) -> Any:
    """The one request of the account, once it is over."""
    rows = gateway.all(
        "SELECT r.* FROM fusillade.requests r JOIN fusillade.batches b USING (id) "
        "WHERE b.created_by = %s AND r.state IN ('completed', 'failed', 'canceled')",
        str(who.id),
    )
    return rows[0] if rows else None


def outcome(gateway: Gateway) -> str:
    (seen,) = gateway.upstream.seen()
    return str(seen["outcome"])


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/chat/completions", {"messages": HELLO}),
        ("/embeddings", {"input": "Hello"}),
        ("/responses", {"input": "Hello"}),
    ],
)
def test_a_caller_that_leaves_before_the_answer(
    stage: Gateway, leaver: Account, on_disconnect: str, path: str, more: dict[str, Any]
) -> None:
    with connected(stage, leaver, path, {"model": stage.model("hold")} | more):
        stage.upstream.wait_active(1)
    if on_disconnect == "cancel":
        stage.upstream.wait_active(0)
        assert outcome(stage) == "left"
        row = eventually(lambda: ended(stage, leaver))
        assert (row.state, row.response_status) == ("failed", 499)
        left = stage.left(row.id)
        assert left.logs[0].status_code == 499
        assert left.logs[0].error_code == "client_disconnected"
        assert left.charges == []
    else:
        stage.upstream.release()
        row = eventually(lambda: ended(stage, leaver))
        assert outcome(stage) == "answered"
        assert (row.state, row.response_status) == ("completed", 200)
        assert len(stage.left(row.id).charges) == 1
    assert not stage.all("SELECT FROM fusillade.open_calls WHERE id = %s", row.id)


def test_a_caller_that_leaves_a_stream_before_its_head(
    stage: Gateway, leaver: Account, on_disconnect: str
) -> None:
    body = {"model": stage.model("hold"), "messages": HELLO, "stream": True}
    with connected(stage, leaver, "/chat/completions", body):
        stage.upstream.wait_active(1)
    if on_disconnect == "drain":
        stage.upstream.release()
    row = eventually(lambda: ended(stage, leaver))
    left = stage.left(row.id)
    if on_disconnect == "cancel":
        assert outcome(stage) == "left"
        assert (row.state, left.logs[0].status_code, left.charges) == ("failed", 499, [])
    else:
        assert row.state == "completed"
        assert left.charges[0].amount == Decimal("0.015")


def test_a_caller_that_leaves_a_stream_pays_for_what_was_delivered(
    stage: Gateway, leaver: Account, on_disconnect: str
) -> None:
    body = {
        "model": stage.model("chunks-20+hold-stream"),
        "messages": HELLO,
        "stream": True,
    }
    with connected(stage, leaver, "/chat/completions", body) as caller:
        received = read_until(caller, b'"w10 "')
        assert b"w11" not in received
    if on_disconnect == "cancel":
        stage.upstream.wait_active(0)
        assert outcome(stage) == "left"
        row = eventually(lambda: ended(stage, leaver))
        assert row.state == "failed"
        (log,) = stage.left(row.id).logs
        assert (log.status_code, log.usage_source) == (499, "estimated")
        assert log.completion_tokens == -(-len(DELIVERED) // 4)
        (charge,) = stage.left(row.id).charges
        assert log.prompt_tokens > 0
        assert charge.amount == cost_of(log)
        stored = orjson.loads(row.response_body)
        assert stored["choices"][0]["message"]["content"] == DELIVERED
    else:
        stage.upstream.release()
        row = eventually(lambda: ended(stage, leaver))
        assert outcome(stage) == "answered"
        left = stage.left(row.id)
        assert left.logs[0].usage_source == "reported"
        assert left.charges[0].amount == Decimal("0.015")
        assert "w19" in row.response_body
    assert not stage.unbalanced()


def test_a_caller_that_leaves_a_response_stream(
    stage: Gateway, leaver: Account, on_disconnect: str
) -> None:
    body = {"model": stage.model("chunks-20+hold-stream"), "input": "Hello", "stream": True}
    with connected(stage, leaver, "/responses", body) as caller:
        read_until(caller, b'"w9 "')
    if on_disconnect == "drain":
        stage.upstream.release()
    row = eventually(lambda: ended(stage, leaver))
    assert row.state == ("failed" if on_disconnect == "cancel" else "completed")
    assert len(stage.left(row.id).charges) == 1
    shown = stage.get(f"/responses/resp_{row.id}", by=leaver).json()
    assert shown["status"] == ("failed" if on_disconnect == "cancel" else "completed")


def test_a_caller_that_leaves_in_the_middle_of_a_fallback(
    stage: Gateway, leaver: Account, on_disconnect: str
) -> None:
    body = {"model": stage.pool("fail-500", "hold", "ok"), "messages": HELLO}
    with connected(stage, leaver, "/chat/completions", body):
        eventually(lambda: len(stage.upstream.seen()) == 2)
        stage.upstream.wait_active(1)
    if on_disconnect == "drain":
        stage.upstream.release()
    row = eventually(lambda: ended(stage, leaver))
    left = stage.left(row.id)
    (log,) = left.logs
    said = [(one["model"], one.get("status"), one.get("failure")) for one in log.attempts]
    assert said[0] == ("fail-500", 500, "http_500")
    assert log.served_by.startswith("server1-")
    if on_disconnect == "cancel":
        assert said[1:] == [("hold", None, "stopped")]
        assert (row.state, log.status_code, left.charges) == ("failed", 499, [])
    else:
        assert said[1:] == [("hold", 200, None)]
        assert (row.state, len(left.charges)) == ("completed", 1)
    assert len(stage.upstream.seen()) == 2
    assert not stage.all("SELECT FROM fusillade.open_calls WHERE id = %s", row.id)


def test_a_caller_that_leaves_a_stream_of_the_second_target_pays_for_what_that_delivered(
    stage: Gateway, leaver: Account, on_disconnect: str
) -> None:
    model = stage.pool("error-first", "chunks-20+hold-stream")
    body = {"model": model, "messages": HELLO, "stream": True}
    with connected(stage, leaver, "/chat/completions", body) as caller:
        read_until(caller, b'"w10 "')
    if on_disconnect == "drain":
        stage.upstream.release()
    row = eventually(lambda: ended(stage, leaver))
    (log,) = stage.left(row.id).logs
    assert log.usage_source == ("estimated" if on_disconnect == "cancel" else "reported")
    assert [one["model"] for one in log.attempts] == ["error-first", "chunks-20+hold-stream"]
    assert len(stage.left(row.id).charges) == 1
    assert not stage.unbalanced()


def test_many_that_leave_at_once_leave_nothing_behind(
    stage: Gateway, leaver: Account, on_disconnect: str
) -> None:
    body = {"model": stage.model("hold"), "messages": HELLO}
    for _ in range(12):
        with connected(stage, leaver, "/chat/completions", body):
            pass
    if on_disconnect == "drain":
        stage.upstream.wait_active(12)
        stage.upstream.release()
    eventually(lambda: stage.upstream.active()["active"] == 0)
    eventually(
        lambda: (
            not stage.all(
                "SELECT FROM fusillade.requests r JOIN fusillade.batches b USING (id) WHERE created_by = %s AND state = 'processing'",
                str(leaver.id),
            )
        )
    )
    assert not stage.all("SELECT FROM fusillade.open_calls")
