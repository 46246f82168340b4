"""Bodies that are on their way: what has come of them counts, and only that, whatever was announced."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from tests.gateway import Account, Gateway
from tests.processes import eventually

ACCOUNT, PROCESS, BODY = 600_000, 1_000_000, 500_000
CHUNK = b"%x\r\n%s\r\n" % (50_000, b" " * 50_000)


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "DWCTL_LIMITS__ACCOUNT__BUFFERED_BYTES": str(ACCOUNT),
        "DWCTL_LIMITS__PROCESS__BUFFERED_BYTES": str(PROCESS),
        "DWCTL_LIMITS__REQUESTS__MAX_BODY_SIZE": str(BODY),
    }


PATHS = ["/chat/completions", "/responses/input_tokens", "/cost-estimate", "/rerank"]


def begin(stage: Gateway, path: str, by: Account, framing: bytes) -> socket.socket:
    """A call of which only the head was sent."""
    port = stage.service.webs[0].port
    caller = socket.create_connection(("127.0.0.1", port), timeout=10)
    caller.sendall(
        b"POST /ai/v1%s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer %s\r\n%s\r\n\r\n" % (path.encode(), by.key.encode(), framing)
    )
    return caller


@pytest.mark.parametrize("path", PATHS)
def test_a_body_in_chunks_counts_before_its_end(stage: Gateway, path: str) -> None:
    account = stage.account()
    with ExitStack() as open_calls:
        callers = [
            open_calls.enter_context(begin(stage, path, account, b"transfer-encoding: chunked"))
            for _ in range(2)
        ]
        for caller in callers:
            caller.sendall(CHUNK * 8)  # 800,000 bytes together, and neither is over
        refused = eventually(lambda: answered(callers))
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b'"too_many_concurrent_requests"' in refused


def test_what_is_only_announced_takes_nothing_from_others(stage: Gateway) -> None:
    model = stage.model("ok")
    with ExitStack() as open_calls:
        for account in (stage.account(), stage.account(), stage.account()):
            framing = b"content-length: %d" % BODY
            open_calls.enter_context(begin(stage, "/chat/completions", account, framing))
        assert stage.chat(model).status_code == 200


def test_a_body_whose_announcement_is_too_much_is_refused_before_it_comes(stage: Gateway) -> None:
    account = stage.account()
    with begin(stage, "/chat/completions", account, b"transfer-encoding: chunked") as first:
        first.sendall(CHUNK * 4)
        announced = b"expect: 100-continue\r\ncontent-length: %d" % BODY

        def refused() -> bool:
            with begin(stage, "/chat/completions", account, announced) as second:
                return second.recv(1000).startswith(b"HTTP/1.1 429 ")

        eventually(refused)


def answered(callers: list[socket.socket]) -> bytes:
    """What one of them has been told; nothing as long as none was."""
    for caller in callers:
        caller.settimeout(0.1)
        try:
            return caller.recv(10_000)
        except TimeoutError:
            continue
    return b""
