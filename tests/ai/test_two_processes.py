"""Two web processes on one database: what one has answered, the other shows at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.gateway import HELLO, Gateway, events
from tests.processes import Service, eventually


@pytest.fixture(scope="module")
def webs(service: Service) -> list[str]:
    """Their addresses."""
    service.start_web()
    return [web.url for web in service.webs]


def ask_chat(gateway: Gateway, url: str) -> str:
    answer = gateway.chat("ok", url=url)
    assert answer.status_code == 200
    return str(answer.json()["id"])


def ask_response(gateway: Gateway, url: str) -> str:
    answer = gateway.post("/responses", {"model": "ok", "input": "Hello"}, url=url)
    assert answer.status_code == 200
    return str(answer.json()["id"])


def ask_embedding(gateway: Gateway, url: str) -> str:
    answer = gateway.post("/embeddings", {"model": "ok", "input": "Hello"}, url=url)
    assert answer.status_code == 200
    return answer.headers["x-request-id"]


def ask_failing(gateway: Gateway, url: str) -> str:
    answer = gateway.chat("fail-500", url=url)
    assert answer.status_code == 500
    return answer.headers["x-request-id"]


ASKING: list[Callable[[Gateway, str], str]] = [ask_chat, ask_response, ask_embedding, ask_failing]


@pytest.mark.parametrize("ask", ASKING)
def test_each_id_is_known_to_the_other_process_the_moment_it_is_out(
    webs: list[str], seeded: Gateway, ask: Callable[[Gateway, str], str]
) -> None:
    seeded.model("ok")
    seeded.model("fail-500")

    def ask_one_fetch_from_the_other(n: int) -> requests.Response:
        id = ask(seeded, webs[n % 2])
        return seeded.get(f"/responses/{id}", url=webs[(n + 1) % 2])

    with ThreadPoolExecutor(20) as pool:
        read = list(pool.map(ask_one_fetch_from_the_other, range(40)))
    assert [answer.status_code for answer in read] == [200] * 40
    wanted = "failed" if ask is ask_failing else "completed"
    assert {answer.json()["status"] for answer in read} == {wanted}


def test_a_stream_is_known_to_the_other_process_from_its_first_event(
    webs: list[str], seeded: Gateway
) -> None:
    seeded.model("chunks-5+gap-20ms")

    def stream_and_fetch(n: int) -> tuple[int, str]:
        body: dict[str, Any] = {"model": "chunks-5+gap-20ms", "messages": HELLO, "stream": True}
        answer = seeded.post("/chat/completions", body, url=webs[n % 2], stream=True)
        arriving = events(answer)
        id, other = next(arriving)["id"], webs[(n + 1) % 2]
        first = seeded.get(f"/responses/{id}", url=other)
        assert list(arriving)[-1] == "[DONE]"
        return first.status_code, seeded.get(f"/responses/{id}", url=other).json()["status"]

    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(stream_and_fetch, range(20))) == {(200, "completed")}


def test_parallel_calls_on_both_processes_are_charged_once_each(
    webs: list[str], seeded: Gateway
) -> None:
    seeded.model("ok")
    account = seeded.account("10")
    with ThreadPoolExecutor(20) as pool:
        answers = list(
            pool.map(lambda n: seeded.chat("ok", by=account, url=webs[n % 2]), range(40))
        )
    assert {answer.status_code for answer in answers} == {200}
    assert seeded.balance(account.id) == 10 - 40 * seeded.left(answers[0]).charges[0].amount
    assert not seeded.unbalanced()


def test_an_account_that_one_process_emptied_is_refused_by_the_other(
    webs: list[str], seeded: Gateway
) -> None:
    seeded.model("ok")
    account = seeded.account("0.001")
    assert seeded.chat("ok", by=account, url=webs[0]).ok
    eventually(lambda: seeded.chat("ok", by=account, url=webs[1]).status_code == 402)


def test_a_response_can_be_cancelled_from_the_other_process(
    webs: list[str], seeded: Gateway
) -> None:
    seeded.upstream.reset()
    model = seeded.model("hold-stream")
    for _ in range(2):
        answer = seeded.post(
            "/responses", {"model": model, "input": "x", "stream": True}, url=webs[0], stream=True
        )
        arriving = events(answer)
        id = next(arriving)["response"]["id"]
        stopped = seeded.post(f"/responses/{id}/cancel", {}, url=webs[1])
        assert stopped.json()["status"] == "cancelled", stopped.text
        assert list(arriving)[-1] == "[DONE]"
        seeded.upstream.wait_active(0, timeout_s=5)
        assert {seen["outcome"] for seen in seeded.upstream.seen()} == {"left"}
