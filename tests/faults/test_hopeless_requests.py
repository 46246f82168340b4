"""Requests that fail in the same way however often they are tried: refused, or tried a few times; never without end, never unpaid."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.gateway import Gateway, assert_openai_error, marker
from tests.processes import IMPATIENT, Process, eventually

A_HANDFUL = 4
SURFACES: dict[str, Any] = {"/responses": "input", "/chat/completions": "messages"}
FINAL = ("completed", "failed", "canceled")


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | IMPATIENT | {"DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__MAX_RETRIES": "2"}


@pytest.fixture(scope="module", autouse=True)
def worker(stage: Gateway) -> Process:
    return stage.service.start_worker()


def nested(opening: str, closing: str, depth: int) -> bytes:
    return (opening * depth + "1" + closing * depth).encode()


HOPELESS: dict[str, tuple[bytes, bool]] = {
    "metadata 300 deep": (b'"metadata":' + nested('{"a":', "}", 300), True),
    "metadata of arrays": (b'"metadata":{"a":' + nested("[", "]", 253) + b"}", True),
    "an unknown member 1,000 deep": (b'"unheard_of":' + nested("[", "]", 1000), True),
    "more tool calls than there are": (b'"max_tool_calls":1e30', True),
    "a limit that no integer holds": (b'"max_output_tokens":1e30', True),
    "a negative zero": (b'"max_tool_calls":-0.0', True),
    "a temperature without end": (b'"temperature":1e308', True),
    "no model but in a header": (b'"user":"x"', False),
}
"""A member of the body, and whether the body names the model too (else `Model-Override` does)."""


def ask(stage: Gateway, path: str, case: str, mode: dict[str, Any]) -> tuple[Any, str, str]:
    """The answer, the text by which the upstream knows it, and the model."""
    member, named = HOPELESS[case]
    said, model = marker(), stage.flexible("plain")
    content: dict[str, Any] = {"model": model} if named else {}
    content |= {"input": said} if path == "/responses" else {"messages": [{"role": "user", "content": said}]}  # fmt: skip
    body = orjson.dumps(content | mode)[:-1] + b"," + member + b"}"
    headers = {} if named else {"Model-Override": model}
    return stage.post(path, body, headers=headers, timeout=60), said, model


MODES: list[tuple[str, dict[str, Any]]] = [
    ("/responses", {"service_tier": "flex"}),
    ("/responses", {"service_tier": "flex", "background": True}),
    ("/responses", {"service_tier": "flex", "stream": True}),
    ("/responses", {}),
    ("/responses", {"stream": True}),
    ("/responses", {"background": True}),
    ("/chat/completions", {"service_tier": "flex"}),
    ("/chat/completions", {"service_tier": "flex", "stream": True}),
    ("/chat/completions", {}),
    ("/chat/completions", {"stream": True}),
]


@pytest.mark.parametrize("case", HOPELESS)
@pytest.mark.parametrize(("path", "mode"), MODES, ids=lambda value: str(value))
def test_it_is_refused_or_ends_and_is_recorded(
    stage: Gateway, path: str, mode: dict[str, Any], case: str
) -> None:
    answer, said, _ = ask(stage, path, case, mode)
    if answer.status_code >= 400:
        assert answer.status_code < 500, answer.text
        assert_openai_error(answer, answer.status_code)
        assert stage.sent(said) == []
        assert stage.left(answer).charges == []
        return
    body = answer.content  # the whole of a stream
    if mode.get("stream"):
        assert body.rstrip().endswith(b"data: [DONE]")
    row = eventually(lambda: ended(stage, answer), 30)
    left = stage.left(answer)
    assert 1 <= len(stage.sent(said)) <= A_HANDFUL
    assert len(stage.sent(said)) <= row.retry_attempt + 1
    # A good answer of the upstream's is a good answer of ours, and is paid for.
    assert row.state == "completed", row.error
    assert len(left.logs) == len(left.charges) == 1
    assert left.charges[0].amount == left.logs[0].total_cost


def ended(stage: Gateway, answer: Any) -> Any:
    request = stage.left(answer).request
    return request if request is not None and request.state in FINAL else None


def test_nothing_is_left_over(stage: Gateway) -> None:
    eventually(lambda: not stage.leases())
    assert not stage.all(
        "SELECT id FROM fusillade.ready UNION ALL SELECT id FROM fusillade.delayed"
    )
    assert not stage.all(
        "SELECT id FROM fusillade.requests WHERE NOT state = ANY (%s)", list(FINAL)
    )
    assert stage.unbalanced() == []
    for process in (*stage.service.webs, *stage.service.workers):
        assert "Traceback" not in process.output(), process.output()[-3000:]
