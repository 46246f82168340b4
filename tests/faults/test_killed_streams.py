"""Processes that die while they stream, and what those are told who follow the stream in another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.cast import Cast
from tests.gateway import Gateway, Held, events, marker
from tests.lifecycle.test_store import places_of
from tests.processes import QUICK, Process, Service, eventually

HALF = "chunks-8+hold-stream"
TEXT = "".join(f"w{n} " for n in range(8))


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK | {"DWCTL_RECORDER__PROGRESS_INTERVAL": "0.2s"}


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    with Service(environ) as running:
        with running.at_once():
            running.start_web()
            running.start_worker()
        yield running


@pytest.fixture(autouse=True)
def nobody_asked(stage: Gateway) -> None:
    stage.upstream.reset()


@pytest.fixture
def victim(stage: Gateway) -> Iterator[Process]:
    """A web process that is going to die."""
    process = stage.service.start_web()
    yield process
    process.stop()
    stage.service.webs.remove(process)


def resume(stage: Gateway, id: str, after: int = -1) -> Iterator[Any]:
    query = "?stream=true" + (f"&starting_after={after}" if after >= 0 else "")
    return events(
        requests.get(
            f"{stage.url}/ai/v1/responses/{id}{query}",
            headers=stage.alice.authorization,
            stream=True,
            timeout=40,
        )
    )


def until_text(arriving: Iterator[Any]) -> list[Any]:
    seen: list[Any] = []
    while not seen or seen[-1]["type"] != "response.output_text.delta":
        seen.append(next(arriving))
    return seen


def said(told: list[Any]) -> str:
    return "".join(e["delta"] for e in told if e["type"] == "response.output_text.delta")


def numbers(told: list[Any]) -> list[int]:
    return [event["sequence_number"] for event in told]


def test_a_stream_whose_process_is_killed_ends_as_interrupted_in_another(
    stage: Gateway, victim: Process
) -> None:
    model = stage.flexible(HALF)
    answer = stage.respond(model, marker(), background=True, stream=True, url=victim.url)
    seen = until_text(events(answer))
    id = seen[0]["response"]["id"]
    resumed = resume(stage, id)
    told = until_text(resumed)
    assert told == seen
    eventually(lambda: stage.one("SELECT last_words FROM fusillade.open_calls").last_words)
    victim.kill()
    *rest, done = resumed
    told += rest
    assert done == "[DONE]"
    assert (told[-1]["type"], told[-1]["response"]["error"]["code"]) == ("response.failed", "interrupted")  # fmt: skip
    assert numbers(told) == list(range(len(told)))
    assert told[-1]["response"] == stage.shown(id)
    assert list(resume(stage, id)) == [*told, "[DONE]"]
    assert stage.upstream.active()["total"] == 1
    eventually(lambda: stage.charges(id))


def test_nothing_is_kept_of_a_killed_stream_of_which_nothing_is_to_be_kept(
    stage: Gateway, victim: Process
) -> None:
    private, mark = stage.account(zero_data_retention=True), marker()
    answer = stage.respond(stage.flexible(HALF), mark, stream=True, by=private, url=victim.url)
    arriving = events(answer)
    until_text(arriving)
    id = answer.headers["x-request-id"]
    spoken = "SELECT FROM fusillade.open_calls WHERE id = %s AND last_words IS NOT NULL"
    eventually(lambda: stage.all(spoken, id))
    assert places_of(stage, mark) == []
    victim.kill()
    log = stage.log_of(id)
    assert (log.error_code, log.bodies) == ("interrupted", "zero_data_retention")
    assert len(stage.charges(f"resp_{id}")) == 1
    assert places_of(stage, mark) == []


def test_a_stream_of_which_nothing_was_shown_goes_on_elsewhere(
    stage: Gateway, victim: Process
) -> None:
    model = stage.flexible("hold+chunks-8")
    held = Held(lambda: stage.respond(model, background=True, stream=True, url=victim.url))
    stage.upstream.wait_active(1)
    row = stage.one("SELECT id FROM fusillade.requests WHERE model = %s", model)
    resumed = resume(stage, f"resp_{row.id}")
    victim.kill()
    held.ended()
    stage.upstream.wait_total(2, timeout_s=20)
    stage.upstream.release()
    *told, done = resumed
    assert done == "[DONE]"
    assert told[0]["type"] == "response.created"
    assert numbers(told) == list(range(len(told)))
    assert said(told) == TEXT
    assert len(stage.charges(f"resp_{row.id}")) == 1


@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
def test_a_flex_stream_whose_worker_is_killed_is_not_said_twice(stage: Gateway, path: str) -> None:
    model = stage.flexible(HALF)
    call = stage.respond if path == "/responses" else stage.converse
    answer = call(model, marker(), stream=True, service_tier="flex")
    id = f"resp_{answer.headers['x-request-id']}"
    arriving = events(answer)
    seen = [next(arriving) for _ in range(6 if path == "/responses" else 2)]
    eventually(lambda: stage.one("SELECT last_words FROM fusillade.inflight").last_words)
    stage.service.worker().kill()
    stage.service.start_worker()
    *rest, last, done = arriving
    assert done == "[DONE]"
    assert stage.state(id) == "failed"
    if path == "/responses":
        told = [*seen, *rest, last]
        assert numbers(told) == list(range(len(told)))
        assert (last["type"], last["response"]["error"]["code"]) == ("response.failed", "interrupted")  # fmt: skip
        assert list(resume(stage, id)) == [*told, "[DONE]"]
    else:
        assert last["error"]["code"] == "interrupted"
    assert stage.upstream.active()["total"] == 1
    # What it had said is paid for.
    (charge,) = eventually(lambda: stage.charges(id))
    assert charge > 0
    assert stage.of(id).logs[0].error_code == "interrupted"


@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
def test_a_flex_stream_whose_worker_is_killed_before_a_word_is_run_by_another(
    stage: Gateway, path: str
) -> None:
    model = stage.flexible("hold+chunks-8")
    call = stage.respond if path == "/responses" else stage.converse
    answer = call(model, marker(), stream=True, service_tier="flex")
    id = f"resp_{answer.headers['x-request-id']}"
    stage.upstream.wait_active(1)
    stage.service.worker().kill()
    stage.service.start_worker()
    stage.upstream.wait_total(2, timeout_s=20)
    stage.upstream.release()
    *told, done = events(answer)
    assert done == "[DONE]"
    assert stage.state(id) == "completed"
    if path == "/responses":
        assert numbers(told) == list(range(len(told)))
        assert said(told) == TEXT
    assert len(stage.charges(id)) == 1


def test_a_worker_that_ends_lets_streams_end_and_gives_back_what_nobody_has_seen(
    stage: Gateway,
) -> None:
    worker = stage.service.worker()
    shown = stage.respond(stage.flexible("chunks-8+hang-stream"), stream=True, service_tier="flex")
    arriving = events(shown)
    seen = until_text(arriving)
    unseen = stage.respond(stage.flexible("hold+chunks-8"), stream=True, service_tier="flex")
    stage.upstream.wait_active(2)
    worker.terminate()
    *rest, last, done = arriving
    assert (last["type"], done) == ("response.failed", "[DONE]")
    assert numbers([*seen, *rest, last]) == list(range(len(seen) + len(rest) + 1))
    assert last["response"] == stage.shown(last["response"]["id"])
    worker.wait(20)
    stage.service.worker()
    stage.upstream.wait_total(3)
    stage.upstream.release()
    *told, done = events(unseen)
    assert said(told) == TEXT
    assert told[-1]["type"] == "response.completed"


def test_the_log_shows_nothing_of_a_killed_call_that_is_not_to_be_stored(
    stage: Gateway, victim: Process
) -> None:
    """It has left no word: its record is made of its row."""
    model = stage.flexible("hold", alias=f"hold-{marker()}")
    held = Held(lambda: stage.respond(model, store=False, url=victim.url))
    row = eventually(lambda: stage.all("SELECT id FROM fusillade.requests WHERE model = %s", model))
    victim.kill()
    held.ended()
    log = stage.log_of(row[0].id)
    assert (log.error_code, log.bodies) == ("interrupted", "not_stored")
    stage.upstream.release()
