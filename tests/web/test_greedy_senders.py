"""Callers that always have more to send, on a real server: others are served meanwhile, whoever the greedy one is."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.gateway import Gateway

SENDING_S = 2.0
PIECES = b"1\r\nx\r\n" * 20_000


@contextmanager
def sending(gateway: Gateway, path: str, headers: dict[str, str]) -> Iterator[None]:
    """A body in chunks of one byte, as fast as it is taken."""
    host, port = gateway.url.removeprefix("http://").split(":")
    lines = {
        "host": "x",
        "content-type": "application/json",
        "transfer-encoding": "chunked",
    } | headers
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines.items())
    until = time.monotonic() + SENDING_S

    def send(sender: socket.socket) -> None:
        try:
            while time.monotonic() < until:
                sender.sendall(PIECES)
        except OSError:
            pass  # it was told no, and hung up on

    with socket.create_connection((host, int(port)), timeout=30) as sender:
        sender.sendall(head.encode() + b"\r\n")
        thread = threading.Thread(target=send, args=(sender,))
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize(
    ("path", "known"),
    [("/ai/v1/chat/completions", True), ("/ai/v1/chat/completions", False), ("/authentication/login", False)],
)  # fmt: skip
def test_others_are_served_meanwhile(stage: Gateway, path: str, known: bool) -> None:
    """Nobody reads the body of somebody unknown, but the server throws it away before the next request of the connection."""
    waits = []
    with sending(stage, path, stage.alice.authorization if known else {}):
        until = time.monotonic() + SENDING_S
        while time.monotonic() < until:
            began = time.monotonic()
            assert requests.get(stage.url + "/healthz", timeout=30).ok
            waits.append(time.monotonic() - began)
            time.sleep(0.05)
    assert max(waits) < 1.0
    assert len(waits) > 10
