"""The end of a web process: background calls have the grace to themselves, streams that are cut are paid for as far as they came."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
import requests

from tests.gateway import PRICE, REALTIME, Gateway, Held, cost, marker
from tests.processes import QUICK, Process, eventually

GRACE_S = 12
BACKGROUND_S = 7
"""Longer than what was left of a grace once streams and idle connections had been waited for; well within it."""


@pytest.fixture(scope="module")
def is_warm() -> bool:
    return False


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    # Streams leave word of what they have delivered every five seconds.
    return environ | QUICK | {"DWCTL_SHUTDOWN__GRACE": f"{GRACE_S}s"}


@pytest.fixture
def web(stage: Gateway) -> Iterator[Process]:
    """A web process to be ended; the module's own stays, and a worker looks after the dead."""
    stage.upstream.reset()
    stage.service.worker()
    process = stage.service.start_web()
    yield process
    stage.upstream.release()
    stage.service.webs.remove(process)
    process.stop()


def test_background_calls_have_the_grace_and_run_once(stage: Gateway, web: Process) -> None:
    model = stage.flexible(f"slow-{BACKGROUND_S * 1000}")
    said = [marker() for _ in range(4)]
    ids = [stage.respond(model, text, background=True, url=web.url).json()["id"] for text in said]
    stage.upstream.wait_active(len(ids))
    web.terminate()
    assert web.wait(GRACE_S + 20) == 0
    for id, text in zip(ids, said, strict=True):
        # It was over when its process ended: nobody had to run it again.
        assert stage.state(id) == "completed", web.output()[-2000:]
        assert stage.charges(id) == [cost(REALTIME)]
        assert len(stage.of(id).logs) == 1
        assert len(stage.sent(text)) == 1
    assert stage.leases() == []


@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/responses"])
def test_a_stream_that_outlasts_the_grace_pays_for_what_it_delivered(
    stage: Gateway, web: Process, path: str
) -> None:
    begin = streamed(stage, web, path)
    pieces: Iterator[bytes] = begin.iter_content(None)
    read_to_the_middle(pieces)
    web.terminate()
    rest = b"".join(pieces)
    assert web.wait(GRACE_S + 20) == 0
    assert rest.rstrip().endswith(b"data: [DONE]")
    left = stage.left(begin)
    assert left.request.state == "failed"
    (log,) = left.logs
    assert log.usage_source == "estimated"
    # A token has some four characters; no rule of thumb says eight.
    assert log.completion_tokens >= len("w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 ") // 8
    (charge,) = left.charges
    assert charge.amount == log.total_cost
    assert charge.amount >= log.completion_tokens * Decimal(PRICE[1])


@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_a_stream_whose_process_was_killed_is_recorded_as_far_as_the_row_knows(
    stage: Gateway, web: Process, path: str
) -> None:
    begin = streamed(stage, web, path)
    pieces: Iterator[bytes] = begin.iter_content(None)
    read_to_the_middle(pieces)
    # Its process has left word of what it delivered.
    words = "SELECT FROM fusillade.open_calls WHERE id::text = %s AND (last_words::json->>'completion_tokens')::int > 0"
    eventually(lambda: stage.all(words, begin.headers["x-request-id"]), 30)
    web.kill()
    with pytest.raises(requests.RequestException):
        list(pieces)
    eventually(lambda: stage.left(begin).request.state == "failed", 40)
    log = stage.log_of(begin)
    left = stage.left(begin)
    assert (log.usage_source, log.error_code) == ("estimated", "interrupted")
    assert log.completion_tokens > 0
    (charge,) = left.charges
    assert charge.amount == log.total_cost > 0
    shown = stage.get(f"/responses/resp_{left.id}").json()
    assert shown["status"] == "failed"
    assert stage.leases() == []
    assert stage.unbalanced() == []


def test_a_blocking_call_whose_process_was_killed_costs_nothing(
    stage: Gateway, web: Process
) -> None:
    said = marker()
    held = Held(lambda: stage.respond(stage.flexible("hold"), said, url=web.url))
    stage.upstream.wait_active(1)
    (row,) = eventually(lambda: stage.all("SELECT id FROM fusillade.open_calls"), 20)
    web.kill()
    assert isinstance(held.ended(), requests.RequestException)
    eventually(lambda: stage.left(row.id).request.state == "failed", 40)
    assert not stage.log_of(row.id).total_cost
    assert stage.left(row.id).charges == []
    assert len(stage.sent(said)) == 1


def streamed(stage: Gateway, web: Process, path: str) -> requests.Response:
    """The head of a stream that stops half-way, after w10."""
    member = {"/responses": "input", "/completions": "prompt"}.get(path, "messages")
    said = [{"role": "user", "content": "Hello"}] if member == "messages" else "Hello"
    body = {"model": stage.model("chunks-20+hang-stream"), member: said, "stream": True}
    return stage.post(path, body, url=web.url, stream=True, timeout=60)


def read_to_the_middle(pieces: Iterator[bytes]) -> None:
    """Until all that the upstream says has come: it stops after w10."""
    received = b""
    while b"w9 " not in received:
        received += next(pieces)
