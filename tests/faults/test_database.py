"""The database goes and comes back while calls run: nobody is declared dead, nothing runs twice, everything is written down once."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dwctl.local.postgres import EmbeddedPostgres
from tests.applications import migrate
from tests.cast import Cast
from tests.gateway import FLEX, REALTIME, Gateway, Held, assert_openai_error, cost, marker
from tests.processes import DEAD_AFTER_S, QUICK, Service, eventually


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server of this module's own, to be stopped; it keeps what it has committed."""
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
    return environ | QUICK


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    with Service(environ) as running:
        with running.at_once():
            running.start_web()
            running.start_worker()
        yield running


def started(stage: Gateway, postgres: EmbeddedPostgres) -> None:
    stage.reconnect(postgres.start())


def dead(stage: Gateway) -> int:
    return int(stage.one("SELECT count(*) FROM fusillade.daemons WHERE status = 'dead'").count)


def test_an_outage_longer_than_every_heartbeat_kills_nobody_and_repeats_nothing(
    stage: Gateway, postgres: EmbeddedPostgres
) -> None:
    during, after = stage.flexible("slow-5000"), stage.flexible("hold")
    plain = stage.flexible("plain")
    said: dict[str, str] = {}
    prices = {}
    for model in (during, after):
        for tier, price in (("flex", FLEX), ("priority", REALTIME)):
            for _ in range(2):
                text = marker()
                answer = stage.respond(model, text, service_tier=tier, background=True)
                assert answer.status_code == 202, answer.text
                said[answer.json()["id"]] = text
                prices[answer.json()["id"]] = cost(price)
    blocking = marker()
    held = Held(lambda: stage.respond(during, blocking))
    waiting = Held(lambda: stage.respond(after, blocking, service_tier="flex"))
    stage.upstream.wait_active(10)
    finished = stage.respond(plain).json()["id"]
    postgres.stop()
    stopped = time.monotonic()

    # What needs the database is refused, what does not is answered.
    eventually(lambda: stage.respond(plain, service_tier="flex").status_code == 503)
    for refused in (
        stage.respond(plain, service_tier="flex"),
        stage.respond(plain, service_tier="flex", background=True),
        stage.respond(plain, background=True),
        stage.converse(plain, service_tier="flex"),
    ):
        assert_openai_error(refused, 503)
        assert refused.headers["retry-after"]
    assert stage.get(f"/responses/{finished}").status_code == 503
    assert stage.cancel(finished).status_code == 503
    unsaved = stage.respond(plain)
    assert unsaved.status_code == 200
    assert held.answer().status_code == 200
    stage.upstream.wait_active(5)
    time.sleep(max(0.0, stopped + 2 * DEAD_AFTER_S - time.monotonic()))

    started(stage, postgres)
    time.sleep(DEAD_AFTER_S)
    assert dead(stage) == 0
    stage.upstream.release()
    for id, text in said.items():
        assert stage.over(id, 30)["status"] == "completed"
        assert stage.charges(id) == [prices[id]]
        assert len(stage.of(id).logs) == 1
        assert len(stage.sent(text)) == 1
    assert waiting.answer().status_code == 200
    assert len(stage.sent(blocking)) == 2
    eventually(lambda: stage.charges(unsaved.json()["id"]) == [cost(REALTIME)])
    assert stage.shown(unsaved.json()["id"])["status"] == "completed"
    assert dead(stage) == 0
    eventually(lambda: not stage.leases())
    assert stage.unbalanced() == []


@pytest.mark.parametrize("crash", [False, True], ids=["restart", "crash"])
def test_a_database_that_is_restarted_under_work_loses_nothing(
    stage: Gateway, postgres: EmbeddedPostgres, crash: bool
) -> None:
    text = marker()
    model = stage.flexible("slow-100", batch_capacity=20)
    ids = [
        stage.respond(model, text, service_tier="flex", background=True).json()["id"]
        for _ in range(150)
    ]
    for _ in range(2):
        time.sleep(0.4)
        if crash:
            assert postgres.pid
            os.kill(postgres.pid, signal.SIGKILL)
            eventually(lambda: not postgres.running())
        else:
            postgres.stop()
        started(stage, postgres)
    for id in ids:
        assert stage.over(id, 40)["status"] == "completed"
        assert stage.charges(id) == [cost(FLEX)]
        assert len(stage.of(id).logs) == 1
    assert len(stage.sent(text)) == len(ids)
    assert dead(stage) == 0
    eventually(lambda: not stage.leases())
    assert stage.unbalanced() == []
