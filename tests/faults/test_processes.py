"""Processes that end, well or badly, in the middle of calls; cancels that race with completions."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.gateway import FLEX, REALTIME, Gateway, Held, cost, marker
from tests.processes import DEAD_AFTER_S, QUICK, WEB, Process, eventually, free_port


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK


@pytest.fixture(scope="module")
def is_warm() -> bool:
    return False


@pytest.fixture
def worker(stage: Gateway) -> Process:
    """The only one."""
    found = stage.service.worker()
    for other in stage.service.workers[1:]:
        other.stop()
    stage.service.workers[1:] = []
    return found


@pytest.fixture(autouse=True)
def quiet(stage: Gateway) -> Iterator[None]:
    stage.upstream.reset()
    yield
    stage.upstream.release()


def background(stage: Gateway, model: str, **more: Any) -> tuple[str, str]:
    """Id and text of a background response."""
    said = marker()
    answer = stage.respond(stage.flexible(model), said, background=True, **more)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"], said


def test_a_worker_that_is_told_to_end_finishes_or_gives_back(
    stage: Gateway, worker: Process
) -> None:
    """What ends within the grace ends there; the rest is run by another worker, with no attempt lost."""
    short = [background(stage, "slow-700", service_tier="flex") for _ in range(5)]
    long = [background(stage, "hold", service_tier="flex") for _ in range(3)]
    stage.upstream.wait_active(8)
    worker.terminate()
    worker.wait()
    assert [stage.state(id) for id, _ in short] == ["completed"] * 5, worker.output()
    assert [stage.state(id) for id, _ in long] == ["pending"] * 3, worker.output()
    assert stage.leases() == []
    stage.upstream.wait_active(0)
    stage.service.worker()
    stage.upstream.wait_active(3)
    stage.upstream.release()
    for id, _ in (*short, *long):
        assert stage.over(id)["status"] == "completed"
        assert stage.of(id).request.retry_attempt == 0
        assert stage.charges(id) == [cost(FLEX)]
    assert [len(stage.sent(said)) for _, said in short] == [1] * 5
    assert [len(stage.sent(said)) for _, said in long] == [2] * 3


def test_calls_of_a_web_process_that_was_killed_end_or_are_run_once_more(
    stage: Gateway, worker: Process
) -> None:
    web = stage.service.start_web()
    model = stage.flexible("hold")
    blocking, streaming = marker(), marker()
    held = Held(lambda: stage.respond(model, blocking, url=web.url))
    shown = stage.respond(stage.flexible("hold-stream+chunks-4"), streaming, url=web.url, background=True, stream=True)  # fmt: skip
    again, said = background(stage, "hold", url=web.url)
    find = "SELECT r.id FROM fusillade.requests r JOIN fusillade.request_templates t ON t.id = r.template_id WHERE position(%s in t.body) > 0"
    (lasting,) = eventually(lambda: stage.all(find, blocking))
    stage.upstream.wait_active(3)
    web.kill()
    stage.service.webs.remove(web)
    held.ended()
    shown.close()

    # Nobody waits for these two, or has seen a part of them: they end.
    for id in (f"resp_{lasting.id}", f"resp_{shown.headers['x-request-id']}"):
        over = stage.over(id)
        assert over["status"] == "failed"
        assert over["error"]["code"] == "interrupted"
        assert stage.charges(id) == []
    # Nothing of this one was ever shown: a worker starts it again, at its own price.
    eventually(lambda: len(stage.sent(said)) == 2)
    stage.upstream.release()
    assert stage.over(again)["status"] == "completed"
    assert stage.charges(again) == [cost(REALTIME)]
    assert stage.of(again).logs[0].batch_sla in ("", "0s")
    assert len(stage.sent(blocking)) == 1
    assert len(stage.sent(streaming)) == 1
    assert len(stage.sent(said)) == 2
    assert stage.leases() == []


def test_a_worker_that_was_thought_dead_changes_nothing_when_it_comes_back(
    stage: Gateway, worker: Process
) -> None:
    """It was stopped for longer than the threshold; another one has run its request meanwhile."""
    id, said = background(stage, "hold", service_tier="flex")
    eventually(lambda: stage.sent(said))
    sleepers = worker.worker_pids()
    for pid in sleepers:
        os.kill(pid, signal.SIGSTOP)
    try:
        other = stage.service.start_worker()
        eventually(lambda: len(stage.sent(said)) == 2, DEAD_AFTER_S * 6)
        stage.upstream.release()
        assert stage.over(id)["status"] == "completed"
    finally:
        for pid in sleepers:
            os.kill(pid, signal.SIGCONT)
    done = stage.shown(id)
    ran_by = stage.of(id).request.daemon_id
    eventually(lambda: all(s["outcome"] != "open" for s in stage.sent(said)))
    time.sleep(1.0)
    assert stage.shown(id) == done
    assert stage.of(id).request.daemon_id == ran_by
    assert stage.charges(id) == [cost(FLEX)]
    assert len(stage.of(id).logs) == 1
    # It goes on as if nothing had been.
    other.stop()
    next_id, _ = background(stage, "plain", service_tier="flex")
    assert stage.over(next_id)["status"] == "completed"


def test_a_web_process_that_was_thought_dead_takes_back_its_own(
    stage: Gateway, worker: Process
) -> None:
    """It was stopped for longer than the threshold; its caller is still there, and gets an answer that is billed."""
    web = stage.service.start_web()
    model = stage.flexible("hold")
    mine = Held(lambda: stage.respond(model, marker(), url=web.url, timeout=60))
    again, said = background(stage, "hold", url=web.url)
    stage.upstream.wait_active(2)
    find = "SELECT id, state FROM fusillade.requests WHERE model = 'hold' AND state = 'processing'"
    rows = eventually(lambda: len(found := stage.all(find)) == 2 and found)
    (blocking,) = (f"resp_{row.id}" for row in rows if f"resp_{row.id}" != again)
    sleepers = web.worker_pids()
    for pid in sleepers:
        os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: stage.state(blocking) == "failed", DEAD_AFTER_S * 6)
        eventually(lambda: len(stage.sent(said)) == 2)
        stage.upstream.release()
        assert stage.over(again)["status"] == "completed"
    finally:
        for pid in sleepers:
            os.kill(pid, signal.SIGCONT)
    answer = mine.answer()
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == blocking
    assert stage.shown(blocking) == answer.json()
    assert stage.charges(blocking) == [cost(REALTIME)]
    # The other one was given to a worker: who comes second changes nothing, and is not billed.
    assert stage.charges(again) == [cost(REALTIME)]
    assert len(stage.of(again).logs) == 1
    web.stop()
    stage.service.webs.remove(web)


def test_a_web_process_that_is_told_to_end_leaves_its_background_calls_to_a_worker(
    stage: Gateway, worker: Process
) -> None:
    """Those that end within the grace end there."""
    web = stage.service.start_web()
    short, once = background(stage, "slow-1500", url=web.url)
    long, twice = background(stage, "hold", url=web.url)
    stage.upstream.wait_active(2)
    web.terminate()
    web.wait()
    stage.service.webs.remove(web)
    assert stage.over(short)["status"] == "completed"
    assert len(stage.sent(once)) == 1
    eventually(lambda: len(stage.sent(twice)) == 2, 10)
    stage.upstream.release()
    assert stage.over(long)["status"] == "completed"
    for id in (short, long):
        assert stage.charges(id) == [cost(REALTIME)]


STAY_UNKNOWN = """
CREATE FUNCTION stay_unknown() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NOT EXISTS (SELECT FROM fusillade.daemons d WHERE d.id = NEW.id) THEN RAISE 'not now'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stay_unknown BEFORE INSERT ON fusillade.daemons FOR EACH ROW EXECUTE FUNCTION stay_unknown()
"""


def test_a_process_that_is_not_known_yet_serves_nobody(stage: Gateway) -> None:
    """Its calls would be taken for those of a dead one."""
    stage.execute(STAY_UNKNOWN)
    web = Process(WEB, {"WEB_CONCURRENCY": "1"} | stage.service.environ, free_port())
    stage.service.webs.append(web)

    def serves() -> bool:
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            url = web.url + "/ai/v1/models"
            return requests.get(url, headers=stage.alice.authorization, timeout=0.5).ok
        return False

    try:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert not serves()
            time.sleep(0.1)
    finally:
        stage.execute("DROP FUNCTION stay_unknown CASCADE")
    eventually(serves)
    web.terminate()
    web.wait()
    stage.service.webs.remove(web)


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_a_cancel_that_races_with_the_end_is_one_or_the_other(
    stage: Gateway, worker: Process, tier: str
) -> None:
    """What the cancel answered is what stays; what was completed is charged, what was cancelled at most for its use."""
    stage.flexible("slow-15", batch_capacity=100)
    said: list[tuple[str, str]] = []
    lock = threading.Lock()

    def rounds(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(15):
            id, _ = background(stage, "slow-15", service_tier=tier)
            time.sleep(chance.uniform(0, 0.06))
            answer = stage.cancel(id)
            assert answer.status_code == 200, answer.text
            with lock:
                said.append((id, answer.json()["status"]))

    threads = [threading.Thread(target=rounds, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: not stage.leases())
    assert len(said) == 60
    for id, status in said:
        assert stage.shown(id)["status"] == status
        assert status in ("completed", "cancelled")
        charges = stage.charges(id)
        if status == "completed":
            assert len(charges) == 1
        left = stage.of(id)
        assert len(charges) <= 1
        assert len(left.logs) <= 1
        assert (left.request.completed_at is None) == (status == "cancelled")
        assert (left.request.canceled_at is None) == (status == "completed")
    assert stage.unbalanced() == []


def test_nothing_is_left_over(stage: Gateway) -> None:
    eventually(lambda: not stage.leases())
    for table in ("ready", "delayed"):
        assert stage.all(f"SELECT FROM fusillade.{table}") == []
    running = "SELECT id FROM fusillade.requests WHERE state IN ('claimed', 'processing')"
    assert stage.all(running) == []
    assert stage.unbalanced() == []
