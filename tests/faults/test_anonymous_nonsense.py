"""Nonsense of callers that nobody knows disturbs nobody: names and bodies that no index, no row and no log can hold as they are."""

from __future__ import annotations

import random
import string
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
import requests

from tests.gateway import REALTIME, Gateway, assert_openai_error, cost
from tests.processes import IMPATIENT, eventually

_DICE = random.Random(6)
NAMES = {
    # Letters without order: what an index cannot make short.
    "6,000 characters": "".join(_DICE.choices(string.ascii_letters, k=6000)),
    "6,000 characters of four bytes": "".join(chr(_DICE.randrange(0x10000, 0x20000)) for _ in range(6000)),
    "NUL": "a\x00b",
    "a line": "a\nb\r\nc",
    "a megabyte": "".join(_DICE.choices(string.ascii_letters, k=1_000_000)),
}  # fmt: skip
ANONYMOUS: list[dict[str, str]] = [{}, {"authorization": "Bearer nonsense"}, {"authorization": ""}]


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | IMPATIENT


@pytest.fixture(scope="module", autouse=True)
def worker(stage: Gateway) -> None:
    stage.service.start_worker()


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_nobody_could_have_named_disturbs_nobody(stage: Gateway, name: str) -> None:
    model, account = stage.flexible("slow-20"), stage.account()
    stop = threading.Event()
    body = orjson.dumps({"model": NAMES[name], "messages": [], "input": "a", "prompt": "a"})
    refused: list[requests.Response] = []

    def nonsense(number: int) -> None:
        with requests.Session() as session:
            while not stop.is_set():
                path = ("/chat/completions", "/responses", "/embeddings", "/completions")[
                    number % 4
                ]
                refused.append(
                    session.post(
                        f"{stage.url}/ai/v1{path}", body, headers=ANONYMOUS[number % 3], timeout=30
                    )
                )
                number += 1

    with ThreadPoolExecutor(6) as callers:
        strangers = [callers.submit(nonsense, number) for number in range(2)]
        try:
            honest = list(callers.map(lambda _: stage.converse(model, by=account), range(20)))
            flex = list(
                callers.map(
                    lambda _: stage.respond(model, by=account, service_tier="flex"), range(8)
                )
            )
        finally:
            stop.set()
        for stranger in strangers:
            stranger.result()
    assert {answer.status_code for answer in honest + flex} == {200}, [a.text for a in flex]
    for answer in honest:
        assert [charge.amount for charge in stage.left(answer).charges] == [cost(REALTIME)]
    for answer in flex:
        assert len(stage.left(answer).charges) == 1
    assert refused
    for answer in refused:
        assert answer.status_code in (400, 401, 404, 413), answer.text
        assert_openai_error(answer, answer.status_code)
    # What does not exist is 404, not "come back later": the recorder is not behind.
    eventually(
        lambda: stage.get("/responses/resp_0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a48").status_code == 404
    )
    assert not list(Path(stage.service.environ["DWCTL_RECORDER__SPOOL_DIR"]).glob("*.spool"))
    assert stage.unbalanced() == []
    for process in (*stage.service.webs, *stage.service.workers):
        assert "Traceback" not in process.output(), process.output()[-3000:]
