"""Limits over two web processes and a worker: exact, named, given back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.gateway import Gateway
from tests.processes import Service


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
