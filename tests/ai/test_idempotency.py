"""The same call sent twice under one Idempotency-Key: run once, charged once, answered alike, in two web processes and with a worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import orjson
import pytest
import requests
from openai import ConflictError, OpenAI

from dwctl.ai.idempotency import Earlier
from tests.cast import Cast
from tests.fake_upstream import FakeUpstream
from tests.gateway import (
    HELLO,
    PRICE,
    UNKNOWN,
    Gateway,
    Held,
    Json,
    assert_openai_error,
    cost,
    events,
    marker,
    text_of,
    unique,
)
from tests.processes import QUICK, Service, eventually

FLEX = {"service_tier": "flex"}
STREAM = {"stream": True}
BACKGROUND = {"background": True}


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK | {"DWCTL_RESPONSES__KEEPALIVE": "0.5s"}


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast, upstream: FakeUpstream) -> Iterator[Service]:
    with Service(environ) as running:
        with running.at_once():
            running.start_web()
            running.start_web()
            running.start_worker()
        yield running


@pytest.fixture(autouse=True)
def released(stage: Gateway, nothing_fell_over: None) -> Iterator[None]:
    stage.flexible("ok")
    yield
    stage.upstream.release()


def body_for(path: str, model: str, said: str, **more: Any) -> Json:
    asked: Json = {
        "/chat/completions": {"messages": [{"role": "user", "content": said}]},
        "/completions": {"prompt": said},
        "/embeddings": {"input": said},
        "/responses": {"input": said},
    }[path]
    return {"model": model, **asked, **more}


def send(
    stage: Gateway, key: str, path: str, body: Any, *, web: int = 0, **more: Any
) -> requests.Response:
    headers = {"Idempotency-Key": key} | more.pop("headers", {})
    more.setdefault("stream", isinstance(body, dict) and body.get("stream", False))
    url = stage.service.webs[web].url
    return stage.post(path, body, headers=headers, url=url, **more)


def replayed(answer: requests.Response) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


def object_in(path: str, answer: requests.Response, body: Json) -> Any:
    """What an answer says, whether in one piece or as a stream: ids and text."""
    if not body.get("stream"):
        return answer.json()
    found = list(events(answer))
    assert found[-1] == "[DONE]"
    if path == "/responses":
        assert [e["sequence_number"] for e in found[:-1]] == list(range(len(found) - 1))
        return found[-2]["response"]
    return {e["id"] for e in found[:-1]}, text_of(found) if path == "/chat/completions" else [
        "".join(c["text"] for e in found[:-1] for c in e["choices"])
    ]


EVERYWAY = [
    *((path, more) for path in ("/chat/completions", "/responses") for more in ({}, STREAM, FLEX, FLEX | STREAM)),
    ("/completions", {}),
    ("/completions", STREAM),
    ("/embeddings", {}),
    ("/embeddings", FLEX),
    ("/responses", BACKGROUND),
    ("/responses", BACKGROUND | FLEX),
    ("/responses", BACKGROUND | STREAM),
]  # fmt: skip


@pytest.mark.parametrize(("path", "more"), EVERYWAY)
def test_a_call_that_is_sent_again_is_answered_as_the_first_and_run_once(
    stage: Gateway, path: str, more: Json
) -> None:
    said, key = marker(), unique("key")
    body = body_for(path, "ok", said, **more)
    first = send(stage, key, path, body)
    shown = object_in(path, first, body)
    again = [send(stage, key, path, body, web=web) for web in (0, 1)]
    for answer in again:
        assert answer.status_code == first.status_code
        assert answer.headers["content-type"] == first.headers["content-type"]
        assert answer.headers["x-request-id"] == first.headers["x-request-id"]
        assert object_in(path, answer, body) == shown
    assert not replayed(first)
    assert all(map(replayed, again))
    if "background" in more and "stream" not in more:
        stage.over(shown["id"])
    assert len(stage.sent(said)) == 1
    left = eventually(lambda: (found := stage.left(first)).logs and found)
    assert (len(left.logs), len(left.charges)) == (1, 1)
    assert len(stage.all("SELECT FROM http_analytics WHERE request_id = %s", left.id)) == 1


@pytest.mark.parametrize("more", [{}, STREAM, FLEX, FLEX | STREAM, BACKGROUND | STREAM])
@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_a_twin_in_any_process_waits_for_the_first_and_hears_the_same(
    stage: Gateway, path: str, more: Json
) -> None:
    if path == "/chat/completions" and "background" in more:
        more = {}
    model = stage.flexible("hold")
    said, key = marker(), unique("key")
    body = body_for(path, model, said, **more)
    calls = [Held(lambda: (a := send(stage, key, path, body)).content and a)]
    eventually(lambda: stage.sent(said))
    calls += [
        Held(lambda web=web: (a := send(stage, key, path, body, web=web)).content and a)
        for web in (0, 1, 1)
    ]
    # Long enough for those that are kept alive to have said so.
    assert not any(threading.Event().wait(0.8) or not call.waiting for call in calls[1:2])
    stage.upstream.release()
    answers = [call.answer() for call in calls]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["x-request-id"] for answer in answers}) == 1
    seen = [object_in(path, answer, body) for answer in answers]
    assert all(one == seen[0] for one in seen)
    assert len(stage.sent(said)) == 1
    assert len(stage.left(answers[0]).charges) == 1


def test_of_many_at_once_one_runs(stage: Gateway) -> None:
    said, key = marker(), unique("key")
    body = body_for("/chat/completions", "ok", said)
    with ThreadPoolExecutor(24) as pool:
        answers = list(
            pool.map(lambda n: send(stage, key, "/chat/completions", body, web=n % 2), range(24))
        )
    assert {answer.content for answer in answers} == {answers[0].content}
    assert sum(not replayed(answer) for answer in answers) == 1
    assert len(stage.sent(said)) == 1
    assert [c.amount for c in stage.left(answers[0]).charges] == [cost(("0.001", "0.002"))]


def test_twins_do_not_stand_in_each_others_way_at_a_limit(stage: Gateway) -> None:
    model = stage.model("slow-300", capacity=1)
    said, key = marker(), unique("key")
    body = body_for("/chat/completions", model, said)
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda n: send(stage, key, "/chat/completions", body, web=n % 2), range(8))
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len(stage.sent(said)) == 1
    # What the others had taken is free again.
    eventually(lambda: stage.chat(model).status_code == 200)


def test_the_last_credit_of_an_account_pays_for_one_call_and_answers_its_twins(
    stage: Gateway,
) -> None:
    account = stage.account(credit=str(cost(PRICE)))
    said, key = marker(), unique("key")
    body = body_for("/chat/completions", stage.model("slow-300"), said)
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda n: send(stage, key, "/chat/completions", body, web=n % 2, by=account),
                range(8),
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len(stage.sent(said)) == 1
    assert stage.balance(account.id) == 0


def test_the_key_counts_for_what_was_asked_by_whom_and_where(stage: Gateway) -> None:
    key, said = unique("key"), marker()
    body = body_for("/responses", "ok", said)
    assert send(stage, key, "/responses", body).ok
    for other in (body | {"temperature": 0.5}, body | {"stream": True}, body | {"input": "else"}):
        answer = send(stage, key, "/responses", other, web=1, stream=False)
        assert_openai_error(answer, 409, "idempotency_key_reused")
        assert answer.headers["x-should-retry"] == "false"
    answer = send(stage, key, "/responses", body, headers={"Model-Override": stage.model("ok+b")})
    assert_openai_error(answer, 409, "idempotency_key_reused")
    # The same JSON, written otherwise; another path; another account.
    turned = orjson.dumps(dict(reversed(body.items())), option=orjson.OPT_INDENT_2)
    assert replayed(send(stage, key, "/responses", turned))
    assert not replayed(send(stage, key, "/embeddings", body))
    assert not replayed(send(stage, key, "/responses", body, by=stage.account()))
    assert len(stage.sent(said)) == 3


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "nbsp\xa0"], ids=["empty", "long", "tab", "nbsp"])  # fmt: skip
def test_a_key_that_is_none_is_refused(stage: Gateway, key: str) -> None:
    said = marker()
    answer = send(stage, key, "/responses", body_for("/responses", "ok", said))
    assert_openai_error(answer, 400, "invalid_idempotency_key")
    assert not stage.sent(said)


def test_the_longest_key_and_odd_characters_are_fine(stage: Gateway) -> None:
    for key in ("k" * 254, '"quoted-key"', "key with blanks, and 'quotes' %s {}", "clé"):
        key += unique("")[-1]
        body = body_for("/responses", "ok", marker())
        answers = [send(stage, key.encode("latin-1"), "/responses", body) for _ in range(2)]  # type: ignore[arg-type]
        assert [replayed(answer) for answer in answers] == [False, True]


def test_a_call_whose_answer_is_kept_nowhere_cannot_be_sent_again(stage: Gateway) -> None:
    body = body_for("/responses", "ok", marker())
    elsewhere = send(stage, "k", "/responses", body, headers={"X-Fusillade-Request-Id": UNKNOWN})
    assert_openai_error(elsewhere, 400, "idempotency_not_supported")
    not_stored = send(stage, "k", "/responses", body | {"store": False})
    assert assert_openai_error(not_stored, 400)["param"] == "store"
    assert stage.all("SELECT FROM idempotency_keys WHERE key = 'k'") == []


def test_what_was_refused_before_any_work_leaves_the_key_free(stage: Gateway) -> None:
    poor = stage.account(None)
    key, body = unique("key"), body_for("/chat/completions", "ok", marker())
    wrong_key = {"Authorization": "Bearer nobody"}
    assert send(stage, key, "/chat/completions", body, headers=wrong_key).status_code == 401
    assert send(stage, key, "/chat/completions", body, by=poor).status_code == 402
    unknown = body | {"model": unique("model")}
    assert send(stage, key, "/chat/completions", unknown, by=poor).status_code == 404
    background = body | BACKGROUND
    assert send(stage, key, "/chat/completions", background, by=poor).status_code == 400
    stage.credit(poor.id, "10")
    eventually(lambda: send(stage, key, "/chat/completions", body, by=poor).ok)
    # Now there is an answer, and it is given also when nothing is left to pay for another.
    stage.credit(poor.id, "0.001")
    assert replayed(send(stage, key, "/chat/completions", body, by=poor))


KEPT = [("fail-400", 400), ("fail-422", 422), ("fail-413", 413)]
RELEASED = [f"fail-{status}" for status in (500, 503, 429, 408, 401)] + ["reset"]


@pytest.mark.parametrize(("model", "status"), KEPT)
@pytest.mark.parametrize("more", [{}, STREAM])
def test_a_request_that_the_upstream_has_judged_is_not_asked_again(
    stage: Gateway, model: str, status: int, more: Json
) -> None:
    stage.model(model)
    said, key = marker(), unique("key")
    body = body_for("/chat/completions", model, said, **more)
    first, again = (send(stage, key, "/chat/completions", body, web=web) for web in (0, 1))
    assert (first.status_code, again.status_code) == (status, status)
    assert again.json() == first.json()
    assert again.headers["x-should-retry"] == "false"
    assert len(stage.sent(said)) == 1


@pytest.mark.parametrize(
    ("model", "more"),
    [
        *((model, more) for model in RELEASED for more in ({}, STREAM)),
        *((model, {}) for model in ("wrong-json", "empty", "error-in-200")),
    ],
)
def test_a_failure_that_may_pass_leaves_the_key_to_the_next_attempt(
    stage: Gateway, model: str, more: Json
) -> None:
    stage.model(model)
    said, key = marker(), unique("key")
    body = body_for("/responses", model, said, **more)
    answers = [send(stage, key, "/responses", body, web=web) for web in (0, 1)]
    assert all(answer.status_code >= 400 for answer in answers)
    assert len({answer.headers["x-request-id"] for answer in answers}) == 2
    assert not any(map(replayed, answers))
    assert not any(stage.left(answer).charges for answer in answers)


def test_a_later_attempt_that_succeeds_is_the_one_that_counts(stage: Gateway) -> None:
    model = stage.model("flaky-2-503")
    said, key = marker(), unique("key")
    body = body_for("/chat/completions", model, said, user=said)
    answers = [send(stage, key, "/chat/completions", body, web=n % 2) for n in range(5)]
    assert [answer.status_code for answer in answers] == [503, 503, 200, 200, 200]
    assert [replayed(answer) for answer in answers] == [False, False, False, True, True]
    assert len({answer.content for answer in answers[2:]}) == 1
    assert len(stage.sent(said)) == 3


def test_a_twin_hears_the_failure_that_the_first_heard(stage: Gateway) -> None:
    model = stage.model("hold+fail-500")
    said, key = marker(), unique("key")
    body = body_for("/chat/completions", model, said)
    first = Held(lambda: send(stage, key, "/chat/completions", body))
    eventually(lambda: stage.sent(said))
    twin = Held(lambda: send(stage, key, "/chat/completions", body, web=1))
    threading.Event().wait(0.3)
    stage.upstream.release()
    assert first.answer().json() == twin.answer().json()
    assert len(stage.sent(said)) == 1


@pytest.mark.parametrize("more", [{}, STREAM, FLEX])
@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_a_call_goes_on_when_its_caller_leaves_and_the_next_attempt_gets_the_whole_answer(
    stage: Gateway, path: str, more: Json
) -> None:
    model = stage.flexible("hold")
    said, key = marker(), unique("key")
    body = body_for(path, model, said, **more)
    with pytest.raises(requests.Timeout):
        _ = send(stage, key, path, body, timeout=0.4).content
    stage.session.close()
    eventually(lambda: stage.sent(said))
    threading.Event().wait(0.6)
    again = Held(lambda: (a := send(stage, key, path, body, web=1)).content and a)
    threading.Event().wait(0.2)
    stage.upstream.release()
    answer = again.answer()
    assert answer.status_code == 200
    assert b"Hello" in answer.content
    assert len(stage.sent(said)) == 1
    assert [seen["outcome"] for seen in stage.sent(said)] == ["answered"]
    assert len(stage.left(answer).charges) == 1


def test_a_deleted_answer_is_not_made_again(stage: Gateway) -> None:
    key, said = unique("key"), marker()
    body = body_for("/responses", "ok", said)
    id = send(stage, key, "/responses", body).json()["id"]
    assert stage.delete(id).ok
    assert_openai_error(send(stage, key, "/responses", body), 404, "response_not_found")
    assert len(stage.sent(said)) == 1


def test_a_cancelled_call_may_be_run_anew(stage: Gateway) -> None:
    model = stage.flexible("hold")
    key, said = unique("key"), marker()
    body = body_for("/responses", model, said)
    first = Held(lambda: send(stage, key, "/responses", body))
    eventually(lambda: stage.sent(said))
    (row,) = stage.all("SELECT request_id FROM idempotency_keys WHERE key = %s", key)
    assert stage.cancel(f"resp_{row.request_id}").ok
    assert first.answer().status_code == 499
    again = Held(lambda: send(stage, key, "/responses", body, web=1))
    eventually(lambda: len(stage.sent(said)) == 2)
    stage.upstream.release()
    assert again.answer().status_code == 200


def test_keys_run_out_by_the_clock_of_the_database(stage: Gateway) -> None:
    key, said = unique("key"), marker()
    body = body_for("/responses", "ok", said)
    first = send(stage, key, "/responses", body)
    stage.execute("UPDATE idempotency_keys SET created_at = now() - interval '23 hours 59 minutes' WHERE key = %s", key)  # fmt: skip
    assert replayed(send(stage, key, "/responses", body))
    stage.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = %s", key)  # fmt: skip
    anew = send(stage, key, "/responses", body | {"input": "something else"})
    assert anew.status_code == 200
    assert anew.headers["x-request-id"] != first.headers["x-request-id"]
    stage.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = %s", key)  # fmt: skip
    stage.execute("UPDATE fusillade.duties SET due_at = now() WHERE name = 'forget_idempotency_keys'")  # fmt: skip
    eventually(lambda: not stage.all("SELECT FROM idempotency_keys WHERE key = %s", key))


@pytest.mark.parametrize(
    ("state", "status", "error", "charged", "in_doubt", "makes_way", "unanswered"),
    [
        ("pending", None, None, False, False, False, False),
        ("processing", None, None, False, False, False, False),
        ("completed", 200, None, False, False, False, False),
        ("completed", 200, None, True, False, False, False),
        ("canceled", None, None, False, False, True, False),
        ("canceled", None, None, True, False, False, False),
        ("failed", 400, '{"type":"NonRetriableHttpStatus"}', False, False, False, False),
        ("failed", 502, '{"type":"NonRetriableHttpStatus"}', False, False, True, False),
        ("failed", 429, '{"type":"RetriableHttpStatus"}', False, False, True, False),
        ("failed", 502, '{"type":"RetriableHttpStatus"}', True, False, False, False),
        ("failed", 504, '{"type":"Timeout"}', False, False, True, False),
        ("failed", 200, '{"type":"StreamBroken"}', True, False, False, False),
        ("failed", 200, '{"type":"StreamBroken"}', False, False, True, False),
        ("failed", None, '{"type":"Interrupted"}', False, False, True, True),
        ("failed", None, '{"type":"Interrupted"}', False, True, False, False),
        ("failed", None, '{"type":"Interrupted"}', True, False, False, False),
        ("failed", 499, '{"type":"ClientDisconnected"}', False, False, True, True),
        ("failed", 503, '{"type":"TaskTerminated"}', False, False, True, True),
        ("failed", None, "written by hand", False, False, True, False),
        ("failed", None, '["a list"]', False, False, True, False),
        ("failed", None, '{"type": 7}', False, False, True, False),
        ("failed", None, None, False, False, True, False),
        (None, None, None, False, False, False, False),
    ],
)
def test_what_an_attempt_leaves_decides_whether_another_may_run(
    state: str | None,
    status: int | None,
    error: str | None,
    charged: bool,
    in_doubt: bool,
    makes_way: bool,
    unanswered: bool,
) -> None:
    earlier = Earlier(
        UUID(UNKNOWN), b"", False, None, state, status, error, False, charged, in_doubt
    )
    assert (earlier.makes_way, earlier.was_unanswered) == (makes_way, unanswered)


def test_the_openai_sdk_sends_a_key_only_when_told_and_its_retries_meet_one_call(
    stage: Gateway,
) -> None:
    model = stage.model("flaky-1-503")
    key, said = unique("key"), marker()
    client = OpenAI(base_url=f"{stage.url}/ai/v1", api_key=stage.alice.key, max_retries=2)
    asked: Json = {"model": model, "messages": HELLO, "user": said}
    headers = {"Idempotency-Key": key}
    first = client.chat.completions.create(**asked, extra_headers=headers)
    again = client.chat.completions.create(**asked, extra_headers=headers)
    assert again == first
    assert len(stage.sent(said)) == 2  # the first attempt and its retry
    with pytest.raises(ConflictError) as refused:
        client.chat.completions.create(**asked | {"user": "other"}, extra_headers=headers)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert "x-stainless-retry-count" in refused.value.request.headers
    assert refused.value.request.headers["x-stainless-retry-count"] == "0"
