"""Limits when processes and the database die: places come back, nothing is let in without being counted, nobody hangs."""

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
from tests.gateway import Gateway, Held, assert_openai_error, unique
from tests.processes import QUICK, Process, Service, eventually


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that can be stopped without hurting other tests."""
    folder = Path(tempfile.mkdtemp(prefix="dwctl-limits-"))
    folder.chmod(0o755)
    made = EmbeddedPostgres(folder / "pg", settings={"fsync": "off"})
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def database_url(server: EmbeddedPostgres) -> str:
    url = server.start()
    migrate(url)
    return url


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return (
        environ
        | QUICK
        | {"DWCTL_DATABASE__CONNECT_TIMEOUT": "2s", "DWCTL_SNAPSHOT__FULL_RELOAD_INTERVAL": "2s"}
    )


@pytest.fixture
def victim(service: Service, stage: Gateway) -> Iterator[Process]:
    """A second web process."""
    process = service.start_web()
    yield process
    service.webs.remove(process)
    process.stop()


def holds(stage: Gateway) -> int:
    count: int = stage.one("SELECT count(*) AS n FROM limit_holds").n
    return count


def fill(stage: Gateway, model: str, victim: Process, n: int) -> list[Held]:
    """So many calls that hang in that process."""
    stage.wait_for_model(model)
    calls = [Held(lambda: stage.chat(model, url=victim.url, timeout=60)) for _ in range(n)]
    eventually(lambda: holds(stage) == n)
    return calls


def test_without_any_worker_places_of_a_killed_process_are_free_when_it_has_been_silent(
    victim: Process, stage: Gateway
) -> None:
    model = stage.model("slow-60000", alias=unique("many"), capacity=3)
    quick = stage.model("ok", alias=unique("quick"), capacity=3)
    for _ in range(3):
        assert stage.chat(quick, url=victim.url).ok
    fill(stage, model, victim, 3)
    assert_openai_error(stage.chat(model), 429, "concurrency_limit_exceeded")
    victim.kill()
    killed = time.monotonic()
    new = eventually(lambda: call_that_stays(stage, model), 15, 0.3)
    assert 1 < time.monotonic() - killed < 12
    assert new.waiting


def call_that_stays(stage: Gateway, model: str) -> Held | None:
    """A call that was let in, and runs for as long as this module does."""
    call = Held(lambda: stage.chat(model, timeout=60))
    time.sleep(0.3)
    return call if call.waiting else None


def test_a_worker_frees_the_places_of_the_dead_though_nobody_wants_them(
    victim: Process, stage: Gateway, service: Service
) -> None:
    stage.execute("DELETE FROM fusillade.daemons WHERE status = 'dead'")
    before = holds(stage)
    service.start_worker()
    model = stage.model("slow-60000", alias=unique("many"), capacity=3)
    stage.wait_for_model(model)
    for _ in range(2):
        Held(lambda: stage.chat(model, url=victim.url, timeout=60))
    eventually(lambda: holds(stage) >= 2)
    victim.kill()
    subject = f"model:{stage.model_id(model)}"
    eventually(
        lambda: stage.one("SELECT held FROM limit_states WHERE subject = %s", subject).held == 0, 20
    )
    assert holds(stage) <= before


def test_while_the_database_is_away_limited_calls_are_refused_at_once_and_others_go_on(
    victim: Process, stage: Gateway, server: EmbeddedPostgres
) -> None:
    free = stage.model("ok", alias=unique("free"))
    limited = stage.model("ok", alias=unique("limited"), requests_per_second=0.001, burst_size=6)
    held = stage.model("slow-2000", alias=unique("held"), capacity=2)
    for web in (stage.url, victim.url):
        assert stage.chat(limited, url=web).ok
    waits = [Held(lambda: stage.chat(held, url=victim.url)) for _ in range(2)]
    subject = f"model:{stage.model_id(held)}"
    eventually(
        lambda: stage.all("SELECT FROM limit_states WHERE subject = %s AND held = 2", subject)
    )
    stage._sql.close()
    server.stop()
    refused = stage.chat(limited)
    assert_openai_error(refused, 503, "database_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    began = time.monotonic()
    for _ in range(5):
        assert stage.chat(limited).status_code == 503
    assert time.monotonic() - began < 3
    assert stage.chat(free).status_code == 200
    # They end meanwhile; what they held is kept to be given back.
    assert [call.answer().status_code for call in waits] == [200, 200]
    stage.reconnect(server.start())
    eventually(lambda: stage.chat(limited).status_code == 200, 20, 0.2)
    eventually(
        lambda: not stage.all("SELECT FROM limit_states WHERE subject = %s AND held > 0", subject),
        10,
    )
    # A clean stop keeps unlogged tables: six passed in all, from both processes, before and after.
    statuses = [
        stage.chat(limited, url=(stage.url, victim.url)[n % 2]).status_code for n in range(9)
    ]
    assert statuses.count(200) == 3
    assert set(statuses) == {200, 429}


def test_after_a_crash_of_the_database_limits_begin_anew_and_hold(
    victim: Process, stage: Gateway, server: EmbeddedPostgres
) -> None:
    limited = stage.model("ok", alias=unique("limited"), requests_per_second=0.001, burst_size=2)
    held = stage.model("slow-1500", alias=unique("held"), capacity=1)
    assert [stage.chat(limited).status_code for _ in range(3)] == [200, 200, 429]
    call = Held(lambda: stage.chat(held))
    subject = f"model:{stage.model_id(held)}"
    eventually(lambda: stage.all("SELECT FROM limit_holds WHERE subject = %s", subject))
    stage._sql.close()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGQUIT)
    eventually(lambda: not Path(f"/proc/{server.pid}").exists(), 10)
    server.stop()
    stage.reconnect(server.start())
    eventually(lambda: stage.chat(limited).status_code == 200, 20, 0.2)
    assert call.answer().status_code == 200
    statuses = [
        stage.chat(limited, url=(stage.url, victim.url)[n % 2]).status_code for n in range(6)
    ]
    assert statuses.count(200) == 1
    assert stage.chat(held, url=victim.url).status_code == 200
    eventually(lambda: not stage.all("SELECT FROM limit_holds"), 10)
