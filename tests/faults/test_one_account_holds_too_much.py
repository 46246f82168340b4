"""One key that asks for more than its share: it is told to wait, others are served, what was accepted is answered."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.gateway import REALTIME, Gateway, assert_openai_error, cost
from tests.processes import eventually

AT_ONCE = 1500


@pytest.mark.timeout(400)
def test_background_calls_of_one_key_are_capped_and_others_are_served(stage: Gateway) -> None:
    stage.upstream.reset()
    greedy, modest = stage.account(), stage.account()
    model = stage.flexible("hold")
    stage.upstream.release()
    with ThreadPoolExecutor(30) as callers:
        answers: list[requests.Response] = list(
            callers.map(lambda _: stage.respond(model, by=greedy, background=True), range(AT_ONCE))
        )
    accepted = [answer for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert 100 <= len(accepted) <= 1000
    for answer in refused:
        assert_openai_error(answer, 429)
        assert int(answer.headers["retry-after"]) > 0
    # Somebody else is served, in each way, while they run.
    plain = stage.flexible("plain")
    assert stage.respond(plain, by=modest).status_code == 200
    assert stage.respond(plain, by=modest, background=True).status_code == 202
    assert stage.converse(plain, by=modest, stream=True).status_code == 200
    until = time.monotonic() + 120
    while stage.all(
        "SELECT FROM fusillade.requests r JOIN fusillade.batches b USING (id) WHERE b.created_by = %s AND state = 'processing'",
        str(greedy.id),
    ):
        assert time.monotonic() < until
        stage.upstream.release()
        time.sleep(0.2)
    assert stage.charged(greedy.id) == len(accepted) * cost(REALTIME)
    assert {len(stage.left(a.json()["id"].removeprefix("resp_")).charges) for a in accepted} == {1}
    # What has ended is held no longer.
    again = stage.respond(plain, by=greedy, background=True)
    assert again.status_code == 202, again.text
    eventually(lambda: stage.state(again.json()["id"]) == "completed")
    eventually(lambda: not stage.leases())
    assert stage.unbalanced() == []
