"""However a call of a model with one place ends, the place is free: at once where the caller has heard the end, else within moments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import requests

from tests.gateway import HELLO, Gateway, assert_openai_error, unique
from tests.processes import QUICK, Process, Service, eventually


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return (
        environ
        | QUICK
        | {
            "DWCTL_UPSTREAM__FIRST_BYTE_TIMEOUT": "1s",
            "DWCTL_UPSTREAM__IDLE_TIMEOUT": "1s",
            "DWCTL_UPSTREAM__USAGE_GRACE": "0.2s",
        }
    )


@pytest.fixture(scope="module")
def webs(service: Service) -> list[Process]:
    service.start_worker()
    service.start_web()
    return service.webs


@pytest.fixture(autouse=True)
def quiet(nothing_fell_over: None) -> None:
    """Whatever ends badly here falls over nowhere."""


def held(stage: Gateway) -> list[object]:
    return stage.all("SELECT subject FROM limit_holds") + stage.all(
        "SELECT subject FROM limit_states WHERE held > 0"
    )


def narrow(stage: Gateway, traits: str, **limits: int | float) -> str:
    """A model with one place."""
    return stage.model(traits, alias=f"{traits}+{unique('m')}", **({"capacity": 1} | limits))


HEARD = [
    *((traits, False) for traits in ("ok", "fail-500", "fail-429", "fail-401", "reset", "drop", "cut", "wrong-json", "empty", "html",
                                     "error-in-200", "sse-anyway", "big-200", "hang", "no-usage")),
    *((traits, True) for traits in ("ok", "chunks-20", "fail-500", "reset", "cut", "half", "no-done", "error-in-stream", "error-first",
                                    "json-anyway", "cut-reset", "hang", "hang-stream", "empty", "tools")),
]  # fmt: skip


@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
@pytest.mark.parametrize(("traits", "stream"), HEARD)
def test_whoever_has_heard_the_end_can_call_again_at_any_process(
    webs: list[Process], stage: Gateway, traits: str, stream: bool, path: str
) -> None:
    model = narrow(stage, traits)
    body = {"model": model, "stream": stream}
    body |= {"input": "Hello"} if path == "/responses" else {"messages": HELLO}
    statuses = []
    for n in range(4):
        answer = stage.post(path, body, url=webs[n % 2].url)
        with contextlib.suppress(requests.RequestException):
            _ = answer.content
        statuses.append(answer.status_code)
        if answer.status_code == 429:
            assert traits == "fail-429"
            assert answer.json()["error"]["code"] != "concurrency_limit_exceeded"
        if "hang" in traits:
            break
    assert len(set(statuses)) == 1
    assert not held(stage)


def test_while_a_call_runs_another_is_refused_with_what_to_do(
    webs: list[Process], stage: Gateway
) -> None:
    model = narrow(stage, "hold-stream", requests_per_second=100, burst_size=50)
    first = stage.chat(model, stream=True, url=webs[0].url)
    assert first.headers["x-ratelimit-limit-requests"] == "50"
    for web in webs:
        refused = stage.chat(model, url=web.url)
        error = assert_openai_error(refused, 429, "concurrency_limit_exceeded")
        assert "model runs 1 at once" in error["message"]
        assert error["type"] == "rate_limit_error"
        assert refused.headers["retry-after"] == "1"
        assert int(refused.headers["x-ratelimit-remaining-requests"]) in (48, 49, 50)
        assert stage.log_of(refused).status_code == 429
    stage.upstream.release()
    assert b"[DONE]" in first.content
    assert stage.chat(model, url=webs[1].url, timeout=5).status_code in (200, 504)


def leave_blocking(stage: Gateway, model: str, url: str) -> None:
    with pytest.raises(requests.ReadTimeout):
        stage.chat(model, url=url, timeout=0.3)


def leave_stream(stage: Gateway, model: str, url: str) -> None:
    answer = stage.chat(model, url=url, stream=True)
    next(answer.iter_lines())
    answer.close()


def leave_before_reading(stage: Gateway, model: str, url: str) -> None:
    stage.chat(model, url=url, stream=True).close()


def leave_response(stage: Gateway, model: str, url: str) -> None:
    stage.respond(model, url=url, stream=True).close()


def go_to_the_background(stage: Gateway, model: str, url: str) -> None:
    answer = stage.respond(model, url=url, background=True)
    assert answer.status_code == 202
    stage.cancel(answer.json()["id"])


def stream_in_the_background_and_leave(stage: Gateway, model: str, url: str) -> None:
    answer = stage.respond(model, url=url, background=True, stream=True)
    id = answer.headers["x-request-id"]
    answer.close()
    stage.cancel(f"resp_{id}")


LEAVING: list[tuple[str, Callable[[Gateway, str, str], None]]] = [
    ("slow-900", leave_blocking),
    ("chunks-20+gap-50ms", leave_stream),
    ("hold-stream", leave_stream),
    ("chunks-20+gap-50ms", leave_before_reading),
    ("chunks-20+gap-50ms", leave_response),
    ("hold", go_to_the_background),
    ("ok", go_to_the_background),
    ("hold-stream", stream_in_the_background_and_leave),
    ("chunks-5+gap-50ms", stream_in_the_background_and_leave),
]


@pytest.mark.parametrize(("traits", "leave"), LEAVING)
def test_whoever_leaves_lets_go(
    webs: list[Process], stage: Gateway, traits: str, leave: Callable[[Gateway, str, str], None]
) -> None:
    model = narrow(stage, traits)
    for web in webs:
        leave(stage, model, web.url)
        eventually(lambda: not held(stage), 10)


def test_what_is_refused_for_another_reason_takes_nothing(
    webs: list[Process], stage: Gateway
) -> None:
    model = narrow(stage, "ok", requests_per_second=0.001, burst_size=1)
    poor = stage.account(None)
    assert stage.chat(model, by=poor).status_code == 402
    assert stage.chat(model, body={"background": True}).status_code == 400
    assert stage.chat(model, body={"stream": "perhaps"}).status_code == 400
    answer = stage.chat(model)
    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    refused = stage.chat(model)
    assert_openai_error(refused, 429, "rate_limit")
    assert int(refused.headers["retry-after"]) > 900


def test_a_call_without_limits_is_told_nothing_and_leaves_nothing(
    webs: list[Process], stage: Gateway
) -> None:
    before = stage.all("SELECT subject FROM limit_states")
    answer = stage.chat(stage.model("ok"))
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
    assert stage.all("SELECT subject FROM limit_states") == before


def test_the_playground_meets_the_models_limits(webs: list[Process], stage: Gateway) -> None:
    model = narrow(stage, "ok", requests_per_second=0.001, burst_size=1)
    statuses = [
        requests.post(
            f"{stage.url}/admin/api/v1/ai/v1/chat/completions",
            json={"model": model, "messages": HELLO},
            headers=stage.alice.session,
            timeout=20,
        ).status_code
        for _ in range(2)
    ]
    assert statuses == [200, 429]


def test_a_process_that_is_asked_to_end_gives_back_what_its_calls_held(
    webs: list[Process], stage: Gateway, service: Service
) -> None:
    ending = service.start_web()
    service.webs.remove(ending)
    model = stage.model("hold-stream", alias=unique("many"), capacity=5)
    eventually(lambda: stage.get(f"/models/{model}", url=ending.url).ok)
    answers = [stage.chat(model, stream=True, url=ending.url) for _ in range(3)]
    assert len(stage.all("SELECT FROM limit_holds")) == 3
    ending.terminate()
    for answer in answers:
        with contextlib.suppress(requests.RequestException):
            _ = answer.content
    assert ending.wait(30) == 0
    assert not held(stage)
    assert "not given back" not in ending.output()
    ending.stop()
