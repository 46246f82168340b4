"""Limits over two web processes and a worker: exact, named, given back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.gateway import Gateway, assert_openai_error, unique
from tests.processes import Service, eventually


@pytest.fixture(scope="module")
def webs(service: Service) -> list[str]:
    """Their addresses."""
    service.start_web()
    return [web.url for web in service.webs]


def at_once(stage: Gateway, webs: list[str], n: int, **call: object) -> list[requests.Response]:
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(lambda i: stage.chat(url=webs[i % len(webs)], **call), range(n)))


@pytest.mark.parametrize("by", ["key", "model"])
def test_fifty_simultaneous_calls_over_two_processes_pass_exactly_as_often_as_the_burst_says(
    webs: list[str], stage: Gateway, by: str
) -> None:
    limits = {"requests_per_second": 0.01, "burst_size": 5}
    account = stage.account(**(limits if by == "key" else {}))
    model = stage.model("ok", alias=f"ok-{by}", **(limits if by == "model" else {}))
    answers = at_once(stage, webs, 50, model=model, by=account)
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 5 + [429] * 45


TOKENS = [
    ("ok", False),
    ("chunks-5", True),
    ("usage-500-700", False),
    ("fail-500", False),
    ("no-usage", False),
]


@pytest.mark.parametrize(("traits", "stream"), TOKENS)
@pytest.mark.parametrize("by", ["key", "model"])
def test_llm_tokens_are_settled_by_what_was_used(
    webs: list[str], stage: Gateway, traits: str, stream: bool, by: str
) -> None:
    limits = {"tokens_per_minute": 1000}
    account = stage.account(**(limits if by == "key" else {}))
    model = stage.model(traits, alias=unique("tokens"), **(limits if by == "model" else {}))
    body = {"max_tokens": 900}
    began = time.monotonic()
    answer = stage.chat(model, by=account, body=body, stream=stream, url=webs[0])
    assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 100
    _ = answer.content
    log = stage.log_of(answer)
    subject = f"key:{account.key_id}" if by == "key" else f"model:{stage.model_id(model)}"
    left = stage.one("SELECT tokens FROM limit_states WHERE subject = %s", subject).tokens
    # With what has come back meanwhile, at 17 a second.
    used = log.total_tokens or 0
    assert 1000 - used - 0.01 <= left <= min(1000, 1000 - used + 17 * (time.monotonic() - began))
    if used < 50:
        # The next one needs as much, and gets it at the other process.
        eventually(
            lambda: stage.chat(model, by=account, body=body, url=webs[1]).status_code != 429, 5, 0.3
        )


def test_calls_beyond_the_tokens_are_refused_until_they_are_back(
    webs: list[str], stage: Gateway
) -> None:
    account = stage.account(tokens_per_minute=2000)
    model = stage.model("usage-1000-1500", alias=unique("hungry"))
    first = stage.chat(model, by=account, url=webs[0])
    assert first.status_code == 200
    refused = stage.chat(model, by=account, url=webs[1])
    error = assert_openai_error(refused, 429, "tokens_per_minute")
    assert "API key takes 2000 a minute" in error["message"]
    # 500 in debt, and a little for the prompt, at 33 a second.
    assert 10 <= int(refused.headers["retry-after"]) <= 17
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"


def test_a_keys_places_hold_over_processes_and_models(webs: list[str], stage: Gateway) -> None:
    stage.upstream.reset()
    account = stage.account(capacity=3)
    models = [stage.model("slow-700", alias=unique("slow")) for _ in range(2)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(
                lambda n: stage.chat(models[n % 2], by=account, url=webs[n // 2 % 2]), range(16)
            )
        )
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) == 3
    assert stage.upstream.active()["peak"] == 3
    refused = answers[statuses.index(429)]
    error = assert_openai_error(refused, 429, "concurrency_limit_exceeded")
    assert "API key runs 3 at once" in error["message"]
    assert stage.chat(models[0], by=account, url=webs[1]).status_code == 200
    assert not stage.all("SELECT FROM limit_holds")


def test_a_limit_that_is_changed_holds_as_it_is_now(webs: list[str], stage: Gateway) -> None:
    model = stage.model("ok", alias=unique("changing"), requests_per_second=0.001, burst_size=1)
    path = f"/models/{stage.model_id(model)}"
    assert stage.chat(model).status_code == 200
    assert stage.chat(model).status_code == 429
    stage.admin("PATCH", path, {"requests_per_second": None})
    eventually(lambda: stage.chat(model).status_code == 200)
    stage.admin("PATCH", path, {"requests_per_second": 0.001, "burst_size": 2})
    eventually(lambda: stage.chat(model).status_code == 429)


def test_a_burst_alone_is_a_rate_as_well(webs: list[str], stage: Gateway) -> None:
    model, used = stage.model("ok", alias=unique("bursting"), burst_size=7), stage.model("ok")
    assert stage.chat(model).headers["x-ratelimit-limit-requests"] == "7"
    account = stage.account(burst_size=5)
    assert stage.chat(used, by=account).headers["x-ratelimit-limit-requests"] == "5"


def test_refusals_are_counted_by_kind(webs: list[str], stage: Gateway) -> None:
    model = stage.model("ok", alias=unique("counted"), requests_per_second=0.001, burst_size=1)
    for _ in range(3):
        stage.chat(model, url=webs[0])
    page = requests.get(f"{webs[0]}/internal/metrics", timeout=5).text
    assert 'dwctl_limits_refused_total{limit="model",reason="rate_limit"}' in page


def test_a_stranger_costs_no_statement_and_an_unlimited_call_neither(
    webs: list[str], stage: Gateway
) -> None:
    model = stage.model("ok", alias=unique("watched"), requests_per_second=100)
    before = stage.all("SELECT subject FROM limit_states")
    nobody = stage.post(
        "/chat/completions", {"model": model}, headers={"Authorization": "Bearer no"}
    )
    assert nobody.status_code == 401
    assert stage.chat(stage.model("ok")).status_code == 200
    assert stage.all("SELECT subject FROM limit_states") == before
