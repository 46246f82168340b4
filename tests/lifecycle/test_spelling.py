"""What a call is judged by is what its upstream reads, however it is run."""

from __future__ import annotations

import pytest

from tests.gateway import HELLO, TERMINAL, Gateway
from tests.processes import eventually


@pytest.mark.parametrize("tier", ["priority", "flex"])
@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_another_spelling_of_ours_stays_here_and_is_named(
    stage: Gateway, path: str, tier: str
) -> None:
    model = stage.flexible("ok", alias=f"spelling{path}{tier}", open_responses_adapter=False)
    body = {"model": model, "Model": "dear", "STREAM": True, "top_k": 1, "service_tier": tier}
    body |= {"input": "Hello"} if path == "/responses" else {"messages": HELLO}
    stage.upstream.reset()
    answer = stage.post(path, body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ignored-fields"] == "Model, STREAM"
    eventually(lambda: stage.state(f"resp_{answer.headers['x-request-id']}") in TERMINAL, 5)
    (seen,) = stage.upstream.seen()
    assert not {"Model", "STREAM"} & set(seen["body"])
    assert seen["body"]["top_k"] == 1
