"""Idempotency keys when processes die and the database goes: no key is stuck, no call is charged twice."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dwctl.local.postgres import EmbeddedPostgres
from tests.applications import migrate
from tests.cast import Cast
from tests.faults.deaf import DeafProxy
from tests.gateway import (
    REALTIME,
    Gateway,
    Held,
    Json,
    assert_openai_error,
    cost,
    events,
    marker,
    unique,
)
from tests.processes import QUICK, Process, Service, eventually


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server of this module's own, to be stopped."""
    folder = Path(tempfile.mkdtemp(prefix="dwctl-test-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "pg", settings={"max_connections": "100"})
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def database_url(postgres: EmbeddedPostgres) -> str:
    url = postgres.start()
    migrate(url)
    return url


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK | {"DWCTL_RECORDER__PROGRESS_INTERVAL": "0.2s"}


@pytest.fixture(scope="module")
def deaf(database_url: str, postgres: EmbeddedPostgres) -> Iterator[DeafProxy]:
    with DeafProxy(database_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    with Service(environ) as running:
        with running.at_once():
            running.start_web()
            running.start_worker()
        yield running


@pytest.fixture
def victim(service: Service, stage: Gateway) -> Iterator[Process]:
    """A second web process."""
    process = service.start_web()
    yield process
    service.webs.remove(process)
    process.stop()


def send(
    stage: Gateway, key: str, said: str, *, model: str, url: str | None = None, **more: Any
) -> requests.Response:
    headers = {"Idempotency-Key": key}
    return stage.respond(model, said, headers=headers, url=url, **more)


def charges(stage: Gateway, key: str) -> list[Any]:
    """All that was charged under a key now."""
    return stage.all(
        "SELECT t.amount FROM credits_transactions t JOIN idempotency_keys k ON k.request_id::text = t.source_id WHERE k.key = %s",
        key,
    )


@pytest.mark.parametrize("waits", [False, True], ids=["later", "waiting"])
def test_the_key_of_a_killed_process_is_free_for_the_next_attempt(
    stage: Gateway, victim: Process, waits: bool
) -> None:
    model = stage.flexible("hold")
    key, said = unique("key"), marker()
    first = Held(lambda: send(stage, key, said, model=model, url=victim.url))
    eventually(lambda: stage.sent(said))
    again = Held(lambda: send(stage, key, said, model=model)) if waits else None
    victim.kill()
    assert isinstance(first.ended(), requests.RequestException)
    again = again or Held(lambda: send(stage, key, said, model=model))
    eventually(lambda: len(stage.sent(said)) == 2)
    stage.upstream.release()
    answer = again.answer()
    assert answer.status_code == 200
    assert len(charges(stage, key)) == 1
    assert len(stage.sent(said)) == 2


def test_what_a_killed_stream_had_delivered_is_charged_and_the_key_is_not_run_again(
    stage: Gateway, victim: Process
) -> None:
    model = stage.flexible("chunks-20+hang-stream")
    key, said = unique("key"), marker()
    answer = send(stage, key, said, model=model, url=victim.url, stream=True)
    deltas = (e for e in events(answer) if e["type"] == "response.output_text.delta")
    for _ in range(5):
        next(deltas)
    id = answer.headers["x-request-id"]
    eventually(lambda: stage.all("SELECT FROM fusillade.open_calls WHERE id::text = %s AND last_words IS NOT NULL", id))  # fmt: skip
    victim.kill()
    again = send(stage, key, said, model=model, stream=True)
    assert again.headers["x-request-id"] == id
    assert again.status_code >= 400
    assert again.headers["x-should-retry"] == "false"
    assert len(charges(stage, key)) == 1
    assert len(stage.sent(said)) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_taken_over_from_a_process_that_stood_still_is_charged_once(
    stage: Gateway, victim: Process, stream: bool
) -> None:
    model = stage.flexible("hold")
    key, said = unique("key"), marker()

    def call(url: str) -> Held:
        return Held(lambda: (a := send(stage, key, said, model=model, url=url, stream=stream)).content and a)  # fmt: skip

    first = call(victim.url)
    eventually(lambda: stage.sent(said))
    (id,) = [row.request_id for row in stage.all("SELECT request_id FROM idempotency_keys WHERE key = %s", key)]  # fmt: skip
    os.killpg(victim.pid, signal.SIGSTOP)
    try:
        again = call(stage.url)
        eventually(lambda: len(stage.sent(said)) == 2)
    finally:
        os.killpg(victim.pid, signal.SIGCONT)
    stage.upstream.release()
    answer = again.answer()
    assert answer.status_code == 200
    assert first.answer().status_code == 200
    assert [row.amount for row in charges(stage, key)] == [cost(REALTIME)]
    # What the log says of the one that was thought lost comes by itself, a little later.
    left = eventually(lambda: (found := stage.left(id)).logs and found)
    assert (len(left.logs), left.charges, left.request.state) == (1, [], "failed")
    assert stage.unbalanced() == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_a_drain_has_stopped_is_run_by_whoever_waits_for_it(
    stage: Gateway, victim: Process, stream: bool
) -> None:
    model = stage.flexible("hold")
    key, said = unique("key"), marker()
    first = Held(lambda: send(stage, key, said, model=model, url=victim.url, stream=stream))
    eventually(lambda: stage.sent(said))
    twin = Held(lambda: (a := send(stage, key, said, model=model, stream=stream)).content and a)
    victim.terminate()
    eventually(lambda: len(stage.sent(said)) == 2)
    stage.upstream.release()
    assert first.answer().status_code == 503
    assert twin.answer().status_code == 200
    assert [row.amount for row in charges(stage, key)] == [cost(REALTIME)]


def test_a_twin_in_a_process_that_ends_is_told_so(stage: Gateway, victim: Process) -> None:
    model = stage.flexible("hold")
    key, said = unique("key"), marker()
    first = Held(lambda: send(stage, key, said, model=model))
    eventually(lambda: stage.sent(said))
    twin = Held(lambda: send(stage, key, said, model=model, url=victim.url))
    assert not first.waiting or not first._thread.join(0.3)
    victim.terminate()
    assert_openai_error(twin.answer(), 503)
    stage.upstream.release()
    assert first.answer().status_code == 200
    assert len(stage.sent(said)) == 1


def test_a_claim_whose_commit_was_not_heard_of_is_withdrawn(
    stage: Gateway, service: Service, deaf: DeafProxy
) -> None:
    web = service.start_web(DATABASE_URL=deaf.url)
    model = stage.flexible("plain")
    for mode in ({}, {"background": True}, {"service_tier": "flex"}):
        key, said = unique("key"), marker()
        deaf.deaf_after = said.encode()
        lost = deaf.lost
        more: Json = dict(mode)
        assert_openai_error(send(stage, key, said, model=model, url=web.url, **more), 503)
        assert deaf.lost == lost + 1
        deaf.deaf_after = None
        answer = send(stage, key, said, model=model, **more)
        assert answer.status_code in (200, 202)
        eventually(lambda key=key: len(charges(stage, key)) == 1)
        assert len(stage.sent(said)) == 1
    service.webs.remove(web)
    web.stop()


def test_without_the_database_a_key_is_refused_and_a_plain_call_is_not(
    stage: Gateway, postgres: EmbeddedPostgres
) -> None:
    model, holding = stage.flexible("plain"), stage.flexible("hold")
    key, said = unique("key"), marker()
    first = Held(lambda: send(stage, key, said, model=holding))
    eventually(lambda: stage.sent(said))
    postgres.stop()
    eventually(lambda: stage.respond(model).status_code == 200)
    refused = send(stage, unique("key"), "x", model=model)
    assert_openai_error(refused, 503)
    assert refused.headers["retry-after"]
    # The first is answered; its record waits in the spool, and whoever repeats it waits for that.
    stage.upstream.release()
    assert first.answer().status_code == 200
    stage.reconnect(postgres.start())
    again = eventually(lambda: (a := send(stage, key, said, model=holding)).ok and a, 30)
    assert again.json() == first.answer().json()
    assert len(stage.sent(said)) == 1
    assert len(charges(stage, key)) == 1
