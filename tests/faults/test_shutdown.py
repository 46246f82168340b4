"""SIGTERM: what is under way is answered and written down, who only keeps a connection is hung up on."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest
import requests

from tests.gateway import Gateway, assert_openai_error, events
from tests.processes import Service, eventually


@pytest.fixture(scope="module")
def is_warm() -> bool:
    return False


@pytest.fixture
def web(stage: Gateway, service: Service) -> Any:
    """A web process to be ended; the module's own stays."""
    process = service.start_web()
    yield process
    service.webs.remove(process)
    process.stop()


def test_calls_under_way_are_answered_and_idle_connections_are_not_waited_for(
    web: Any, stage: Gateway
) -> None:
    stage.upstream.reset()
    pids = web.worker_pids()
    model, streaming = stage.model("hold"), stage.model("hold-stream")
    answers: dict[str, requests.Response] = {}
    chunks: list[Any] = []

    def block() -> None:
        answers["blocking"] = stage.chat(model, url=web.url)

    def stream() -> None:
        answers["stream"] = stage.chat(streaming, url=web.url, stream=True)
        chunks.extend(events(answers["stream"]))

    threads = [threading.Thread(target=call) for call in (block, stream)]
    for thread in threads:
        thread.start()
    stage.upstream.wait_active(2)
    with requests.Session() as browser, socket.create_connection(("127.0.0.1", web.port)):
        assert browser.get(web.url + "/healthz", timeout=10).ok
        web.terminate()
        eventually(lambda: not _accepts(web.port))
        stage.upstream.release()
        for thread in threads:
            thread.join(20)
        assert answers["blocking"].status_code == 200
        assert chunks[-1] == "[DONE]"
        # All four would keep their connection; waiting for them would take the whole grace.
        assert web.wait(10) == 0
    # It has said goodbye: nobody waits for its next beat.
    (row,) = stage.all("SELECT status FROM fusillade.daemons WHERE pid = ANY (%s)", pids)
    assert row.status == "dead"
    for answer in answers.values():
        left = stage.left(answer)
        assert left.request.state == "completed"
        assert len(left.logs) == len(left.charges) == 1


def test_calls_that_outlast_the_grace_are_told_and_written_down(
    stage: Gateway, service: Service
) -> None:
    stage.upstream.reset()
    web = service.start_web(DWCTL_SHUTDOWN__GRACE="7s")
    model, streaming = stage.model("hang"), stage.model("chunks-20+hang-stream")
    answers: dict[str, requests.Response] = {}
    chunks: list[Any] = []

    def block() -> None:
        answers["blocking"] = stage.chat(model, url=web.url)

    def stream() -> None:
        answers["stream"] = stage.chat(streaming, url=web.url, stream=True)
        chunks.extend(events(answers["stream"]))

    threads = [threading.Thread(target=call) for call in (block, stream)]
    for thread in threads:
        thread.start()
    stage.upstream.wait_active(2)
    eventually(lambda: "stream" in answers)
    service.webs.remove(web)
    web.terminate()
    for thread in threads:
        thread.join(20)
    assert web.wait(20) == 0
    assert_openai_error(answers["blocking"], 503, "drained")
    assert chunks[-1] == "[DONE]"
    assert chunks[-2]["error"]["code"] == "interrupted"
    for answer in answers.values():
        left = stage.left(answer)
        assert left.request.state == "failed"
        assert left.logs[0].error_code == "drained"
    assert stage.left(answers["blocking"]).charges == []
    # What the stream had delivered was delivered.
    assert stage.left(answers["stream"]).logs[0].usage_source == "estimated"
    assert len(stage.left(answers["stream"]).charges) == 1
    web.stop()


def test_under_load_nothing_that_was_answered_is_lost(web: Any, stage: Gateway) -> None:
    model, account = stage.model("slow-20"), stage.account()
    answered: list[str] = []
    stop = time.monotonic() + 10

    def call() -> None:
        with requests.Session() as session:
            while time.monotonic() < stop:
                try:
                    answer = session.post(
                        f"{web.url}/ai/v1/chat/completions",
                        json={"model": model, "messages": []},
                        headers=account.authorization,
                        timeout=20,
                    )
                except requests.ConnectionError:
                    return
                assert answer.status_code == 200, answer.text
                answered.append(answer.headers["x-request-id"])

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(answered) > 30)
    web.terminate()
    for thread in threads:
        thread.join(20)
    assert web.wait(20) == 0
    rows = stage.all(
        "SELECT source_id, count(*) AS n FROM credits_transactions WHERE source_id = ANY (%s) GROUP BY 1",
        answered,
    )
    assert {row.source_id: row.n for row in rows} == dict.fromkeys(answered, 1)
    assert not stage.all(
        "SELECT id FROM fusillade.requests r JOIN fusillade.batches b USING (id) WHERE created_by = %s AND state <> 'completed'",
        str(account.id),
    )
    assert not stage.unbalanced()


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
