"""PostgreSQL stops and comes back under load, on a server of this module's own: calls go on, and nothing that was answered is lost."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from dwctl.local.postgres import EmbeddedPostgres
from tests.applications import migrate
from tests.gateway import HELLO, Account, Gateway, assert_openai_error, marker
from tests.lifecycle.test_store import places_of
from tests.processes import Process, Service, eventually

OUTAGE_S = 20.0
CHARGE = Decimal("0.015")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that can be stopped without hurting other tests; it writes to disk as in production."""
    folder = Path(tempfile.mkdtemp(prefix="dwctl-outage-"))
    folder.chmod(0o755)
    made = EmbeddedPostgres(folder / "pg")
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
    return environ | {
        "DWCTL_DAEMONS__HEARTBEAT": "0.5s",
        "DWCTL_DAEMONS__DEAD_AFTER": "3s",
        "DWCTL_DATABASE__CONNECT_TIMEOUT": "2s",
        "DWCTL_DATABASE__POOL_TIMEOUT": "2s",
        "DWCTL_SNAPSHOT__FULL_RELOAD_INTERVAL": "2s",
    }


class Load:
    """Callers that go on until they are stopped or their process is gone. `answered`: the ids of all answers that came."""

    def __init__(
        self, web: Process, account: Account, models: tuple[str, ...], callers: int
    ) -> None:
        self.answered: list[str] = []
        self.refused: list[str] = []
        self._stop = threading.Event()
        self._web, self._account = web, account
        self._threads = [
            threading.Thread(target=self._call, args=(models[n % len(models)], n % 3 == 0))
            for n in range(callers)
        ]
        for thread in self._threads:
            thread.start()

    def _call(self, model: str, stream: bool) -> None:
        body = {"model": model, "messages": HELLO, "stream": stream}
        url = f"{self._web.url}/ai/v1/chat/completions"
        with requests.Session() as session:
            session.headers.update(self._account.authorization)
            while not self._stop.is_set():
                try:
                    answer = session.post(url, json=body, timeout=30)
                except requests.RequestException:
                    return
                kept = self.answered if answer.status_code == 200 else self.refused
                if not stream or answer.text.endswith("data: [DONE]\n\n"):
                    kept.append(answer.headers["x-request-id"])
                time.sleep(0.02)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(40)

    def goes_on(self, answers: int = 10) -> None:
        """Wait for some more answers."""
        so_far = len(self.answered)
        eventually(lambda: len(self.answered) >= so_far + answers)


def assert_recorded_once(
    gateway: Gateway, answered: list[str], charge: Decimal | None = None
) -> None:
    rows = gateway.all(
        "SELECT r.id::text, r.state, (SELECT count(*) FROM http_analytics WHERE request_id = r.id) AS logs, "
        "(SELECT count(*) FROM credits_transactions WHERE source_id = r.id::text) AS charges, "
        "(SELECT sum(amount) FROM credits_transactions WHERE source_id = r.id::text) AS amount "
        "FROM fusillade.requests r WHERE r.id::text = ANY (%s)",
        answered,
    )
    assert len(set(answered)) == len(answered)
    assert {row.id for row in rows} == set(answered)
    assert {(row.state, row.logs, row.charges, row.amount) for row in rows} == {
        ("completed", 1, 0 if charge is None else 1, charge)
    }


def spooled(service: Service) -> list[Path]:
    return list(Path(service.environ["DWCTL_RECORDER__SPOOL_DIR"]).glob("*.spool"))


def back(gateway: Gateway, web: Process) -> None:
    """Wait until a process works again."""
    gateway.reconnect()
    eventually(lambda: requests.get(web.url + "/readyz", timeout=10).ok, 30)


def test_twenty_seconds_without_a_database(
    server: EmbeddedPostgres, stage: Gateway, service: Service
) -> None:
    stage.upstream.reset()
    stays = service.webs[0]
    killed, terminated = service.start_web(), service.start_web()
    service.start_worker()
    free = stage.model("slow-10", price=None)
    priced, lasting = stage.model("ok"), stage.model("hold")
    account = stage.account("1000")
    before = stage.chat(priced, by=account)
    assert before.ok
    stranger = stage.account()

    loads = [Load(web, account, (free, priced), callers=3) for web in (stays, killed, terminated)]
    with ThreadPoolExecutor(1) as pool:
        across = pool.submit(stage.chat, lasting, by=account, timeout=60)
        for load in loads:
            load.goes_on()
        server.stop()
        stopped_at = time.monotonic()

        for load in loads:
            load.goes_on()
        in_the_gap = stage.chat(free, by=account)
        assert in_the_gap.status_code == 200
        for id in (before.headers["x-request-id"], in_the_gap.headers["x-request-id"]):
            answer = stage.get(f"/responses/resp_{id}", by=account)
            assert_openai_error(answer, 503)
            assert int(answer.headers["retry-after"]) > 0
        flex = {"model": free, "input": "x", "service_tier": "flex"}
        refused = stage.post("/responses", flex, by=account)
        assert_openai_error(refused, 503)
        nobody = {"Authorization": "Bearer sk-nobody-knows"}
        assert_openai_error(stage.chat(free, headers=nobody), 503)
        assert stage.get("/models", by=account).ok
        assert requests.get(stays.url + "/healthz", timeout=10).ok
        assert requests.get(stays.url + "/readyz", timeout=20).status_code == 503

        killed.kill()
        terminated.terminate()
        assert terminated.wait(40) == 0
        for load in loads[1:]:
            load.stop()
        assert len(spooled(service)) >= 3
        time.sleep(max(0.0, stopped_at + OUTAGE_S - time.monotonic()))
        loads[0].goes_on()

        server.start()
        back(stage, stays)
        loads[0].goes_on()
        # A refusal of what would have been held is in the log as any other.
        assert stage.log_of(refused).status_code == 503
        stage.upstream.release()
        assert across.result().status_code == 200
    loads[0].stop()
    service.webs.remove(killed)
    service.webs.remove(terminated)

    answered = [id for load in loads for id in load.answered]
    assert all(len(load.answered) > 20 for load in loads)
    assert loads[0].refused == []
    eventually(lambda: not spooled(service), 30)
    assert_everything_is_recorded(stage, answered, free, across.result())
    assert_only_the_dead_were_declared_dead(stage, stays, service.workers[0])
    assert stage.chat(priced, by=stranger).ok
    assert stage.get(f"/responses/resp_{answered[0]}", by=account).ok


def assert_everything_is_recorded(
    gateway: Gateway, answered: list[str], free: str, across: requests.Response
) -> None:
    models = {
        row.id: row.model
        for row in gateway.all(
            "SELECT id::text, model FROM fusillade.requests WHERE id::text = ANY (%s)", answered
        )
    }
    costs_nothing = [id for id in answered if models.get(id) == free]
    assert_recorded_once(gateway, costs_nothing)
    assert_recorded_once(gateway, [id for id in answered if models.get(id) != free], CHARGE)
    assert_recorded_once(gateway, [across.headers["x-request-id"]], CHARGE)
    eventually(
        lambda: not gateway.all("SELECT FROM fusillade.requests WHERE state = 'processing'"), 20
    )
    assert not gateway.unbalanced()
    logs = gateway.one(
        "SELECT count(*) AS n, count(DISTINCT request_id) AS ids FROM http_analytics"
    )
    assert logs.n == logs.ids


def assert_only_the_dead_were_declared_dead(
    gateway: Gateway, stays: Process, worker: Process
) -> None:
    living = set(stays.worker_pids()) | set(worker.worker_pids())

    def running() -> dict[int, str]:
        rows = gateway.all("SELECT id::text, pid FROM fusillade.daemons WHERE status = 'running'")
        return {row.pid: row.id for row in rows}

    eventually(lambda: set(running()) == living)
    assert not [id for id in running().values() if f"dead daemon_id={id}" in worker.output()]


def test_the_spool_has_nothing_of_what_is_not_to_be_kept(
    server: EmbeddedPostgres, stage: Gateway, service: Service
) -> None:
    model = stage.model("echo")
    accounts = stage.account(zero_data_retention=True), stage.account()
    marks = marker(), marker()
    for account, mark in zip(accounts, marks, strict=True):
        assert stage.post("/chat/completions", asked(model, mark), by=account).ok
    server.stop()
    answers = [
        stage.post("/chat/completions", asked(model, mark, stream=stream), by=account)
        for account, mark in zip(accounts, marks, strict=True)
        for stream in (False, True)
    ]
    assert all(answer.status_code == 200 for answer in answers)
    on_disk = "".join(path.read_text() for path in spooled(service))
    assert [mark in on_disk for mark in marks] == [False, True]
    server.start()
    back(stage, service.webs[0])
    eventually(lambda: not spooled(service), 30)
    logs = [stage.log_of(answer).bodies for answer in answers]
    assert logs == ["zero_data_retention", "zero_data_retention", None, None]
    assert [bool(places_of(stage, mark)) for mark in marks] == [False, True]


def asked(model: str, said: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": said}], **more}


def test_a_database_that_is_killed_in_the_middle_of_commits(
    server: EmbeddedPostgres, stage: Gateway, service: Service
) -> None:
    account, model = stage.account("1000"), stage.model("ok")
    load = Load(service.webs[0], account, (model,), callers=6)
    load.goes_on(30)
    pid = server.pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    load.goes_on(10)
    server.start()
    back(stage, service.webs[0])
    load.goes_on(10)
    load.stop()
    eventually(lambda: not spooled(service), 30)
    assert_recorded_once(stage, load.answered, CHARGE)
    # Nothing else was charged, but what this account's callers have seen: an answer for each entry.
    assert stage.balance(account.id) == 1000 - CHARGE * len(load.answered)
    assert not stage.unbalanced()
