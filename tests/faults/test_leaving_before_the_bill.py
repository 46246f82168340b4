"""Callers that hang up when the model has said its last word and before the upstream has said what it counted: they pay like the others."""

from __future__ import annotations

import socket
from typing import Any

import orjson
import pytest

from tests.gateway import PRICE, Gateway, cost
from tests.processes import eventually

LONG = "A prompt of some length. " * 40


@pytest.mark.parametrize("usage", ["late", "never"])
@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/responses"])
def test_prompt_and_completion_are_paid_for(stage: Gateway, path: str, usage: str) -> None:
    stage.upstream.reset()
    account = stage.account()
    # The chunk with the usage comes after the last word, or not at all.
    model = stage.model("gap-300" if usage == "late" else "gap-300+no-usage")
    member = {"/responses": "input", "/completions": "prompt"}.get(path, "messages")
    said: Any = [{"role": "user", "content": LONG}] if member == "messages" else LONG
    leave_after_the_last_word(stage, account.key, path, {"model": model, member: said, "stream": True})  # fmt: skip
    row = eventually(lambda: ended(stage, account.id), 20)
    left = stage.left(row.id)
    (log,) = left.logs
    (charge,) = left.charges
    assert charge.amount == log.total_cost
    if usage == "late":
        assert log.usage_source == "reported"
        assert charge.amount == cost(PRICE)
    else:
        assert log.usage_source == "estimated"
        # A token has some four characters; no rule of thumb says ten.
        assert log.prompt_tokens >= len(LONG) // 10
        assert log.completion_tokens >= len("Hello there friend") // 10
    assert stage.unbalanced() == []


def leave_after_the_last_word(stage: Gateway, key: str, path: str, body: dict[str, Any]) -> None:
    """Read until the model has ended, then close."""
    port = int(stage.url.rsplit(":", 1)[1])
    content = orjson.dumps(body)
    head = f"POST /ai/v1{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(content)}\r\n\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(head.encode() + content)
        while b"friend" not in received or not (
            b'"finish_reason":"stop"' in received or b"response.output_text.done" in received
        ):
            piece = caller.recv(65536)
            assert piece, received
            received += piece
    assert b"[DONE]" not in received


def ended(stage: Gateway, owner: Any) -> Any:
    rows = stage.all(
        "SELECT r.* FROM fusillade.requests r JOIN fusillade.batches b USING (id) "
        "WHERE b.created_by = %s AND r.state IN ('completed', 'failed', 'canceled')",
        str(owner),
    )
    return rows[0] if rows else None
