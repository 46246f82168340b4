"""Streams that survive: resumed from another process, live and afterwards; flex streams word by word from the worker."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import openai
import pytest
import requests
from openai import OpenAI

from tests.cast import Cast
from tests.gateway import (
    FLEX,
    REALTIME,
    UNKNOWN,
    Gateway,
    Held,
    Json,
    assert_openai_error,
    cost,
    events,
    marker,
    request_id,
    text_of,
)
from tests.processes import Service, eventually
from tests.protocols.openresponses.schema import check_event
from tests.protocols.streams import data_of

TEXT = "".join(f"w{n} " for n in range(8))
SLOWLY = "chunks-8+gap-60"
HALF = "chunks-8+hold-stream"
"""Says half of its words, and the others after a release."""
RESUMERS = 200


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "DWCTL_RESPONSES__KEEPALIVE": "0.5s",
        "DWCTL_DAEMONS__HEARTBEAT": "0.5s",
    }


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    with Service(environ) as running:
        with running.at_once():
            running.start_web()
            running.start_web()
            running.start_worker()
        yield running


@pytest.fixture(scope="module")
def other(stage: Gateway) -> str:
    """The address of the second web process."""
    return stage.service.webs[1].url


def resume(
    stage: Gateway, response_id: str, *, after: object = None, **more: Any
) -> requests.Response:
    query = "?stream=true" + ("" if after is None else f"&starting_after={after}")
    return requests.get(
        f"{more.pop('url', stage.url)}/ai/v1/responses/{response_id}{query}",
        headers=(more.pop("by", None) or stage.alice).authorization,
        stream=True,
        timeout=30,
    )


def begun(stage: Gateway, model: str, **more: Any) -> tuple[Iterator[Any], str, list[Any]]:
    """A stream whose text has begun: what is still to come, its id, and its events up to there."""
    arriving = events(stage.respond(model, marker(), stream=True, **more))
    seen: list[Any] = []
    while not seen or seen[-1]["type"] != "response.output_text.delta":
        seen.append(next(arriving))
    return arriving, seen[0]["response"]["id"], seen


def checked(whole: list[Any]) -> list[Json]:
    """The events of a whole stream, each as the schema and the SDK want it, numbered from 0 on."""
    *told, done = whole
    assert done == "[DONE]"
    for event in told:
        check_event(event)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    return told


def said(told: list[Any]) -> str:
    return "".join(e["delta"] for e in told if e["type"] == "response.output_text.delta")


def chunks(stage: Gateway, response_id: str) -> list[Any]:
    return stage.all(
        "SELECT first_sequence, last_sequence FROM fusillade.response_chunks WHERE request_id = %s ORDER BY 1",
        request_id(response_id),
    )


# --- from any process


@pytest.mark.parametrize("tier", ["priority", "flex"])
def test_a_background_stream_is_resumed_from_another_process(
    stage: Gateway, other: str, tier: str
) -> None:
    model = stage.flexible(SLOWLY)
    arriving, id, seen = begun(stage, model, background=True, service_tier=tier)
    resumed = resume(stage, id, after=2, url=other)
    assert resumed.status_code == 200
    assert resumed.headers["content-type"].startswith("text/event-stream")
    again = list(events(resumed))
    whole = seen + list(arriving)
    assert again == whole[3:]
    told = checked(whole)
    assert said(told) == TEXT
    assert told[-1]["response"] == stage.shown(id)
    for after in (-1, 0, 1, len(told) - 2):
        assert list(events(resume(stage, id, after=max(after, 0), url=other))) == whole[max(after, 0) + 1 :]  # fmt: skip
    assert list(events(resume(stage, id, url=other))) == whole
    # From where nothing follows only the end is told.
    assert list(events(resume(stage, id, after=len(told) - 1))) == ["[DONE]"]
    beyond = list(events(resume(stage, id, after=10**15)))
    assert [event if event == "[DONE]" else event["type"] for event in beyond] == ["response.completed", "[DONE]"]  # fmt: skip
    kept = chunks(stage, id)
    assert [row.first_sequence for row in kept] == [0, *(row.last_sequence + 1 for row in kept[:-1])]  # fmt: skip
    assert 2 < len(kept) < len(whole)
    assert stage.charges(id) == [cost(FLEX if tier == "flex" else REALTIME)]


@pytest.mark.parametrize("tier", ["priority", "flex"])
def test_a_stream_is_replayed_from_its_object_when_its_events_are_gone(
    stage: Gateway, tier: str
) -> None:
    arriving, id, _ = begun(stage, stage.flexible(SLOWLY), background=True, service_tier=tier)
    assert list(arriving)[-1] == list(events(resume(stage, id)))[-1] == "[DONE]"  # all is kept
    assert stage.one("SELECT fusillade.purge_events(3600, 100) AS purged").purged == 0
    eventually(lambda: stage.one("SELECT fusillade.purge_events(0, 100) AS purged").purged)
    assert chunks(stage, id) == []
    whole = list(events(resume(stage, id)))
    told = checked(whole)
    assert said(told) == TEXT
    assert told[0]["response"]["status"] == ("queued" if tier == "flex" else "in_progress")
    assert told[-1]["response"] == stage.shown(id)
    assert list(events(resume(stage, id, after=4))) == whole[5:]


def test_a_stream_of_which_no_events_are_kept_is_waited_for(stage: Gateway, other: str) -> None:
    """A plain call pays nothing for those who might read it again."""
    stage.upstream.reset()
    arriving, id, seen = begun(stage, stage.flexible(HALF))
    resumed = Held(lambda: resume(stage, id, url=other))
    waits = resumed.answer()
    lines = waits.iter_lines()
    assert next(lines) == b": waiting"
    assert chunks(stage, id) == []
    stage.upstream.release()
    whole = seen + list(arriving)
    assert whole[-1] == "[DONE]"
    told = [line for line in lines if line.startswith(b"data: ")]
    assert told[-1] == b"data: [DONE]"
    replayed = list(events(resume(stage, id)))
    assert said(checked(replayed)) == TEXT
    assert replayed[-2]["response"] == whole[-2]["response"]


def test_chat_calls_and_answers_in_one_piece_are_shown_as_streams_too(stage: Gateway) -> None:
    model = stage.flexible("plain")
    streamed = stage.converse(model, stream=True, service_tier="flex")
    # Whoever leaves before the end has its request cancelled.
    assert list(events(streamed))[-1] == "[DONE]"
    ids = [
        stage.respond(model).json()["id"],
        stage.respond(model, service_tier="flex").json()["id"],
        stage.converse(model).json()["id"],
        "resp_" + streamed.headers["x-request-id"],
    ]
    for id in ids:
        told = checked(list(events(resume(stage, id))))
        shown = stage.shown(id)
        assert told[-1]["type"] == "response.completed"
        assert told[-1]["response"]["output"] == shown["output"]
    waiting = stage.respond(model, background=True).json()["id"]
    assert checked(list(events(resume(stage, waiting))))[-1]["type"] == "response.completed"


def test_who_may_not_see_a_response_cannot_resume_it(stage: Gateway) -> None:
    id = stage.respond(stage.flexible("plain")).json()["id"]
    unstored = stage.respond(stage.flexible("plain"), store=False).json()["id"]
    for answer in (
        resume(stage, id, by=stage.account()),
        resume(stage, UNKNOWN),
        resume(stage, "resp_x"),
        resume(stage, unstored),
    ):
        assert_openai_error(answer, 404, "response_not_found")
    for wrong in ("-1", "x", "1.5", "٣"):
        error = assert_openai_error(resume(stage, id, after=wrong), 400, "invalid_value")
        assert error["param"] == "starting_after"


# --- from the queue


@pytest.mark.parametrize("background", [False, True])
def test_a_flex_response_comes_word_by_word(stage: Gateway, background: bool) -> None:
    stage.upstream.reset()
    model = stage.flexible(HALF)
    arriving, id, seen = begun(stage, model, service_tier="flex", background=background)
    assert stage.state(id) == "processing"
    stage.upstream.release()
    told = checked(seen + list(arriving))
    kinds = [event["type"].removeprefix("response.") for event in told]
    assert kinds[:3] == ["created", "queued", "in_progress"]
    assert kinds.count("output_text.delta") == 8
    assert said(told) == TEXT
    assert told[-1]["response"] == stage.shown(id)
    assert told[-1]["response"]["service_tier"] == "flex"
    assert stage.charges(id) == [cost(FLEX)]


@pytest.mark.parametrize("usage", [False, True])
def test_a_flex_chat_comes_word_by_word(stage: Gateway, usage: bool) -> None:
    stage.upstream.reset()
    model = stage.flexible(HALF)
    more = {"stream_options": {"include_usage": True}} if usage else {}
    answer = stage.converse(model, marker(), stream=True, service_tier="flex", **more)
    arriving = events(answer)
    seen = [next(arriving) for _ in range(3)]
    id = f"resp_{answer.headers['x-request-id']}"
    assert stage.state(id) == "processing"
    stage.upstream.release()
    flex = seen + list(arriving)
    realtime = stage.converse(stage.flexible("chunks-8"), marker(), stream=True, **more)
    now = list(events(realtime))

    def like(chunk: Any) -> Any:
        own = ("id", "created", "model", "service_tier")
        return chunk if chunk == "[DONE]" else {k: v for k, v in chunk.items() if k not in own}

    assert [like(chunk) for chunk in flex] == [like(chunk) for chunk in now]
    assert text_of(flex) == TEXT
    assert {(chunk["id"], chunk["service_tier"]) for chunk in flex[:-1]} == {(id, "flex")}
    assert any(chunk.get("usage") for chunk in flex[:-1]) is usage
    assert stage.charges(id) == [cost(FLEX)]


def test_a_flex_stream_that_fails_half_way_ends_so_for_all(stage: Gateway, other: str) -> None:
    model = stage.flexible("chunks-8+gap-60+cut")
    arriving, id, seen = begun(stage, model, service_tier="flex")
    resumed = list(events(resume(stage, id, url=other)))
    whole = seen + list(arriving)
    assert resumed == whole
    assert whole[-2]["type"] == "response.failed"
    assert whole[-2]["response"] == stage.shown(id)
    chat = list(events(stage.converse(model, stream=True, service_tier="flex")))
    assert chat[-1] == "[DONE]"
    assert chat[-2]["error"]["code"]
    assert stage.unbalanced() == []


@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
def test_a_flex_stream_that_is_refused_ends_as_it_did_before(stage: Gateway, path: str) -> None:
    model = stage.flexible("fail-400")
    call = stage.respond if path == "/responses" else stage.converse
    *told, failed, done = events(call(model, stream=True, service_tier="flex"))
    assert done == "[DONE]"
    if path == "/responses":
        assert [event["type"] for event in told][:2] == ["response.created", "response.queued"]
        assert failed["type"] == "response.failed"
        assert failed["response"]["error"]["code"] == "http_400"
    else:
        assert told == []
        assert failed["error"]["code"]


def test_a_flex_stream_whose_upstream_answers_in_one_piece_is_that_stream(stage: Gateway) -> None:
    arriving, id, seen = begun(stage, stage.flexible("json-anyway"), service_tier="flex")
    told = checked(seen + list(arriving))
    assert told[-1]["response"] == stage.shown(id)
    assert list(events(resume(stage, id))) == [*told, "[DONE]"]


# --- stopped


@pytest.mark.parametrize("tier", ["priority", "flex"])
@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_who_follows_a_stream_hears_that_it_was_stopped(
    stage: Gateway, other: str, tier: str, how: str
) -> None:
    stage.upstream.reset()
    model = stage.flexible(HALF)
    arriving, id, _ = begun(stage, model, service_tier=tier, background=True)
    resumed = events(resume(stage, id, url=other))
    assert next(resumed)["type"] == "response.created"
    stopped = getattr(stage, how)(id, url=other)
    assert stopped.status_code == 200
    for stream in (arriving, resumed):
        *_, last, done = stream
        assert (last["type"], done) == ("response.failed", "[DONE]")
        assert last["response"]["status"] == "cancelled"
    stage.upstream.wait_active(0)
    if how == "delete":
        eventually(lambda: chunks(stage, id) == [])
        assert resume(stage, id).status_code == 404
    else:
        assert list(events(resume(stage, id)))[-2]["response"]["status"] == "cancelled"


def test_a_request_that_is_cancelled_while_it_waits_ends_its_followers(
    stage: Gateway, other: str
) -> None:
    stage.upstream.reset()
    model = stage.flexible("plain+hold", batch_capacity=1)
    first = stage.respond(model, service_tier="flex", background=True).json()["id"]
    stage.begun(first)
    arriving = events(stage.respond(model, service_tier="flex", background=True, stream=True))
    id = next(arriving)["response"]["id"]
    resumed = events(resume(stage, id, url=other))
    assert [next(resumed)["type"] for _ in range(2)] == ["response.created", "response.queued"]
    assert stage.cancel(id).status_code == 200
    for stream in (arriving, resumed):
        told = list(stream)
        assert told[-2]["response"]["status"] == "cancelled"
        numbers = [event["sequence_number"] for event in told[:-1]]
        assert numbers == sorted(set(numbers))
    stage.upstream.release()
    stage.over(first)


# --- many, slow and absent


def test_many_resume_one_response(stage: Gateway, other: str) -> None:
    stage.upstream.reset()
    model = stage.flexible(HALF)
    arriving, id, seen = begun(stage, model, background=True)

    def follow(number: int) -> list[Any]:
        url = other if number % 2 else stage.url
        return list(events(resume(stage, id, after=number % 4, url=url)))

    with ThreadPoolExecutor(RESUMERS) as pool:
        asked = [pool.submit(follow, number) for number in range(RESUMERS)]
        eventually(lambda: following(stage) >= RESUMERS, 30)
        stage.upstream.release()
        whole = seen + list(arriving)
        for number, future in enumerate(asked):
            assert future.result() == whole[number % 4 + 1 :]
    eventually(lambda: following(stage) == 0)


def following(stage: Gateway) -> int:
    """How many callers wait in the web processes."""
    row = stage.one(
        "SELECT coalesce(sum(requests_in_flight), 0) AS n FROM fusillade.daemons "
        "WHERE status = 'running' AND config_snapshot->>'type' <> 'worker'"
    )
    return int(row.n)


def test_a_caller_that_reads_nothing_is_let_go_and_its_call_goes_on(
    stage: Gateway, other: str
) -> None:
    model = stage.flexible("big-2000")
    lazy = stage.respond(model, marker(), background=True, stream=True)
    id = next(events(lazy))["response"]["id"]
    with closing(resume(stage, id, url=other)):  # nor does this one
        assert stage.over(id)["status"] == "completed"
    # Whole: as lines they would be read in tiny pieces, each put together anew.
    told = checked(data_of(resume(stage, id, url=other).content))
    assert told[-1]["response"] == stage.shown(id)
    assert len(said(told)) == 2000 * 1024
    lazy.close()


# --- OpenAI's client


@pytest.mark.parametrize("tier", ["priority", "flex"])
def test_the_sdk_resumes_until_the_end(stage: Gateway, other: str, tier: str) -> None:
    """The loop of OpenAI's guide: a connection that broke off is taken up behind the last event, here again and again."""
    model = stage.flexible(SLOWLY)
    clients = [
        OpenAI(base_url=f"{url}/ai/v1", api_key=stage.alice.key, max_retries=0, timeout=20)
        for url in (stage.url, other)
    ]
    stream = clients[0].responses.create(
        model=model, input=marker(), background=True, stream=True, service_tier=tier
    )
    told = []
    for round in range(100):
        for event in stream:
            told.append(event)
            if event.type == "response.completed" or len(told) % 3 == 0:
                break
        stream.close()
        if told[-1].type == "response.completed":
            break
        id = told[0].response.id
        client = clients[round % 2]
        stream = client.responses.retrieve(id, stream=True, starting_after=told[-1].sequence_number)
    assert [event.sequence_number for event in told] == list(range(len(told)))
    assert told[-1].response.output_text == TEXT
    with clients[1].responses.stream(response_id=id, starting_after=2) as helper:
        final = helper.get_final_response()
    assert final.output_text == TEXT
    for client in clients:
        client.close()


def test_the_sdk_does_not_take_a_process_that_ends_for_a_failure(
    stage: Gateway, other: str
) -> None:
    stage.upstream.reset()
    ending = stage.service.start_web()
    try:
        model = stage.flexible(HALF, alias="one at a time", batch_capacity=1)
        with OpenAI(base_url=f"{ending.url}/ai/v1", api_key=stage.alice.key, max_retries=0) as client:  # fmt: skip
            running, waiting = (
                client.responses.create(model=model, input=marker(), stream=True, service_tier="flex")
                for _ in range(2)
            )  # fmt: skip
            told = [
                [next(iter(running)) for _ in range(7)],
                [next(iter(waiting)) for _ in range(2)],
            ]
            ending.terminate()
            told[0] += running
            told[1] += waiting
        assert [events[-1].type for events in told] == ["response.in_progress", "response.queued"]
        stage.upstream.release()
        with OpenAI(base_url=f"{other}/ai/v1", api_key=stage.alice.key, max_retries=0) as client:
            for seen in told:
                id, last = seen[0].response.id, seen[-1].sequence_number
                rest = []
                for event in client.responses.retrieve(id, stream=True, starting_after=last):
                    if not rest:
                        stage.upstream.release()
                    rest.append(event)
                    stage.upstream.release()
                assert [e.sequence_number for e in seen[:-1] + rest] == list(range(len(seen) - 1 + len(rest)))  # fmt: skip
                assert rest[-1].response.output_text == TEXT
        assert ending.wait(20) == 0
    finally:
        ending.stop()
        stage.service.webs.remove(ending)


def test_the_sdk_says_that_a_response_is_unknown(stage: Gateway) -> None:
    with (
        OpenAI(base_url=f"{stage.url}/ai/v1", api_key=stage.alice.key, max_retries=0) as client,
        pytest.raises(openai.NotFoundError),
    ):
        client.responses.retrieve(f"resp_{UNKNOWN}", stream=True, starting_after=1)
