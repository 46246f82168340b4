"""Upstreams that refuse, hang, break off and lie: what the caller gets, what is written down, what is charged."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest
import requests

from tests.fake_upstream import PRIVATE_HOST, SECRET
from tests.gateway import HELLO, Gateway, assert_openai_error, cost_of, events, text_of
from tests.processes import free_port

pytestmark = pytest.mark.usefixtures("nothing_fell_over")

PATHS: dict[str, dict[str, Any]] = {
    "/chat/completions": {"messages": HELLO},
    "/completions": {"prompt": "Hello"},
    "/embeddings": {"input": "Hello"},
    "/responses": {"input": "Hello"},
}


@pytest.fixture(scope="module", params=["strict", "open"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def environ(environ: dict[str, str], mode: str) -> dict[str, str]:
    return environ | {
        "DWCTL_ONWARDS__STRICT_MODE": str(mode == "strict").lower(),
        "DWCTL_UPSTREAM__CONNECT_TIMEOUT": "0.8s",
        "DWCTL_UPSTREAM__FIRST_BYTE_TIMEOUT": "0.8s",
        "DWCTL_UPSTREAM__IDLE_TIMEOUT": "0.8s",
        "DWCTL_UPSTREAM__MAX_ANSWER_SIZE": "1000000",
    }


def call(gateway: Gateway, path: str, model: str, *, stream: bool = False) -> requests.Response:
    more = {"stream": True} if stream else {}
    return gateway.post(path, {"model": model} | PATHS[path] | more, stream=stream)


def assert_failed(gateway: Gateway, answer: requests.Response, status: int) -> Any:
    """The row failed, the log has it, nothing was charged."""
    left = gateway.left(answer)
    assert left.request.state == "failed"
    assert left.request.response_status == status
    (log,) = left.logs
    assert log.status_code == status
    assert left.charges == []
    return left


def assert_private(answer: requests.Response, found: list[Any] | None = None) -> None:
    """Nothing of the upstream's own words; `found` are the events of a stream that was read."""
    everything = (answer.text if found is None else str(found)) + str(answer.headers)
    assert SECRET not in everything
    assert PRIVATE_HOST not in everything


# --- no answer, or half of one


SILENT = {
    "reset": 502,
    "drop": 502,
    "not-http": 502,
    "cut": 502,
    "cut-reset": 502,
    "hang": 504,
    "hang-in-head": 504,
    "hang-stream": 504,
    "br": 502,
    "big-2000": 502,
}


@pytest.mark.parametrize("trait", SILENT)
def test_an_upstream_that_does_not_answer_is_a_gateway_error(stage: Gateway, trait: str) -> None:
    for path in PATHS if trait in ("reset", "cut") else ["/chat/completions"]:
        answer = call(stage, path, stage.model(trait))
        error = assert_openai_error(answer, SILENT[trait])
        assert error["code"] in (
            "upstream_unreachable",
            "gateway_timeout",
            "http_502",
            "upstream_response_too_large",
        )
        assert_private(answer)
        assert_failed(stage, answer, SILENT[trait])


@pytest.mark.parametrize("trait", ["reset", "drop", "not-http", "hang", "hang-in-head"])
def test_a_stream_that_never_begins_is_a_gateway_error(stage: Gateway, trait: str) -> None:
    answer = call(stage, "/chat/completions", stage.model(trait), stream=True)
    assert_openai_error(answer, SILENT[trait])
    assert_failed(stage, answer, SILENT[trait])


def test_an_upstream_that_is_not_there_is_a_gateway_error(stage: Gateway) -> None:
    endpoint = stage.endpoint(f"http://127.0.0.1:{free_port()}/v1")
    model = stage.model("ok", alias="nowhere", endpoint=endpoint)
    for stream in (False, True):
        answer = call(stage, "/chat/completions", model, stream=stream)
        assert_openai_error(answer, 502, "upstream_unreachable")
        assert "127.0.0.1" not in answer.text
        assert_failed(stage, answer, 502)


def test_a_name_that_does_not_resolve_is_a_gateway_error(stage: Gateway) -> None:
    endpoint = stage.endpoint("http://no-such-host.invalid/v1")
    model = stage.model("ok", alias="unresolvable", endpoint=endpoint)
    answer = call(stage, "/chat/completions", model)
    assert answer.status_code in (502, 504)
    assert_openai_error(answer, answer.status_code)
    assert "no-such-host" not in answer.text


def test_a_call_that_was_taken_without_an_answer_is_not_sent_again(stage: Gateway) -> None:
    """It reads the call on a kept connection and closes it: it may have done the work."""
    model = stage.model("vanish")
    assert call(stage, "/chat/completions", model).status_code == 200
    stage.upstream.reset()
    assert call(stage, "/chat/completions", model).status_code == 502
    assert call(stage, "/chat/completions", model).status_code == 200


def test_a_call_that_was_sent_is_not_sent_again(stage: Gateway) -> None:
    model = stage.model("drop")
    call(stage, "/chat/completions", stage.model("close"))
    stage.upstream.reset()
    assert call(stage, "/chat/completions", model).status_code == 502
    assert len(stage.upstream.seen()) == 1


# --- refusals


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 501, 503])
def test_refusals_of_the_upstream(stage: Gateway, mode: str, status: int, stream: bool) -> None:
    answer = call(stage, "/chat/completions", stage.model(f"fail-{status}"), stream=stream)
    # 401 and 403 refused our credential, not the caller's.
    shown = 502 if status in (401, 403) else status
    assert_openai_error(answer, shown)
    assert answer.headers.get("retry-after") == ("7" if status in (429, 503) else None)
    if mode == "strict" or shown != status:
        assert_private(answer)
    assert_failed(stage, answer, shown)


def test_a_refusal_keeps_its_secrets_when_it_is_read_again(stage: Gateway, mode: str) -> None:
    for trait in ("fail-500", "fail-401", "fail-400", "error-in-stream", "fail-503+html"):
        for stream in (False, True):
            answer = call(stage, "/chat/completions", stage.model(trait), stream=stream)
            read = stage.get(f"/responses/resp_{answer.headers['x-request-id']}")
            assert read.status_code == 200
            if mode == "strict" or trait == "fail-401":
                assert_private(read)


def test_a_trusted_upstream_is_quoted(stage: Gateway) -> None:
    model = stage.model("fail-400", trusted=True)
    error = assert_openai_error(call(stage, "/chat/completions", model), 400)
    assert "upstream says 400" in error["message"]
    refused = call(stage, "/chat/completions", stage.model("fail-401", trusted=True))
    assert refused.status_code == 401


def test_a_sanitised_model_is_never_quoted(stage: Gateway) -> None:
    for trait in ("fail-400", "fail-500", "fail-429+html"):
        answer = call(stage, "/chat/completions", stage.model(trait, sanitize_responses=True))
        assert_openai_error(answer, int(trait[5:8]))
        assert_private(answer)


def test_an_error_page_becomes_json(stage: Gateway, mode: str) -> None:
    answer = call(stage, "/chat/completions", stage.model("fail-500+html"))
    assert_openai_error(answer, 500)
    if mode == "strict":
        assert_private(answer)


# --- answers that are none


@pytest.mark.parametrize("trait", ["wrong-json", "html", "empty", "error-in-200"])
@pytest.mark.parametrize("path", PATHS)
def test_what_is_no_answer_passes_in_no_mode(
    stage: Gateway, mode: str, path: str, trait: str
) -> None:
    answer = call(stage, path, stage.model(trait))
    assert_openai_error(answer, 502)
    if mode == "strict" or trait != "error-in-200":
        assert_private(answer)
    assert_failed(stage, answer, 502)


@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/responses"])
def test_a_stream_to_a_call_that_wanted_none_is_put_together(stage: Gateway, path: str) -> None:
    answer = call(stage, path, stage.model("sse-anyway"))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert "Hello there friend" in answer.text
    left = stage.left(answer)
    assert left.request.state == "completed"
    # A stream tells its usage to those who ask for it, and nobody asked: 18 characters are 5 tokens.
    assert left.logs[0].usage_source == "estimated"
    assert left.logs[0].completion_tokens == 5
    assert left.charges[0].amount == cost_of(left.logs[0])


def test_usage_in_a_stream_that_nobody_asked_for_counts(stage: Gateway) -> None:
    answer = call(stage, "/chat/completions", stage.model("sse-anyway+usage-always"))
    left = stage.left(answer)
    assert left.logs[0].usage_source == "reported"
    assert left.charges[0].amount == Decimal("0.015")


def test_a_broken_stream_to_a_call_that_wanted_none_is_a_gateway_error(
    stage: Gateway, mode: str
) -> None:
    for trait in ("sse-anyway+error-in-stream", "sse-anyway+half", "sse-anyway+cut"):
        answer = call(stage, "/chat/completions", stage.model(trait))
        assert_openai_error(answer, 502)
        if mode == "strict":
            assert_private(answer)
        assert stage.left(answer).request.state == "failed"


@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/responses"])
def test_a_complete_answer_to_a_stream_becomes_one(stage: Gateway, path: str) -> None:
    answer = call(stage, path, stage.model("json-anyway"), stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "Hello there friend" in answer.text
    left = stage.left(answer)
    assert left.request.state == "completed"
    assert left.charges[0].amount == Decimal("0.015")
    assert left.logs[0].response_type.endswith("_stream")


def test_nonsense_to_a_stream_is_a_gateway_error(stage: Gateway, mode: str) -> None:
    for trait in ("json-anyway+wrong-json", "html", "empty", "error-in-200"):
        for path in ("/chat/completions", "/completions", "/responses"):
            answer = call(stage, path, stage.model(trait), stream=True)
            assert_openai_error(answer, 502)
            if mode == "strict" or trait != "error-in-200":
                assert_private(answer)
            assert_failed(stage, answer, 502)


# --- streams that break


@pytest.mark.parametrize("trait", ["cut", "cut-reset", "hang-stream", "half"])
def test_a_stream_that_breaks_ends_with_an_error_and_is_billed_by_estimate(
    stage: Gateway, trait: str
) -> None:
    answer = call(stage, "/chat/completions", stage.model(f"chunks-20+{trait}"), stream=True)
    found = list(events(answer))
    assert found[-1] == "[DONE]"
    assert found[-2]["error"]["message"]
    delivered = text_of(found)
    assert delivered.startswith("w0 w1 ")
    left = stage.left(answer)
    assert left.request.state == "failed"
    (log,) = left.logs
    assert log.usage_source == "estimated"
    assert log.completion_tokens == -(-len(delivered) // 4)
    assert left.charges[0].amount == cost_of(log)
    assert orjson.loads(left.request.response_body)["choices"][0]["message"]["content"] == delivered


@pytest.mark.parametrize("trait", ["error-in-stream", "error-first"])
def test_an_error_inside_a_stream_is_passed_on_without_secrets(
    stage: Gateway, mode: str, trait: str
) -> None:
    answer = call(stage, "/chat/completions", stage.model(trait), stream=True)
    found = list(events(answer))
    assert found[-1] == "[DONE]"
    assert found[-2]["error"]["message"]
    if mode == "strict":
        assert_private(answer, found)
    assert stage.left(answer).request.state == "failed"


@pytest.mark.parametrize("trait", ["cut", "hang-stream", "error-in-stream", "half", "error-first"])
def test_a_broken_response_stream_ends_with_its_failure(
    stage: Gateway, mode: str, trait: str
) -> None:
    answer = call(stage, "/responses", stage.model(f"chunks-20+{trait}"), stream=True)
    found = list(events(answer))
    assert found[-1] == "[DONE]"
    assert found[-2]["type"] == "response.failed"
    if mode == "strict":
        assert_private(answer, found)
    assert stage.left(answer).request.state == "failed"


def test_a_stream_without_done_is_complete(stage: Gateway) -> None:
    answer = call(stage, "/chat/completions", stage.model("no-done"), stream=True)
    assert list(events(answer))[-1] == "[DONE]"
    left = stage.left(answer)
    assert left.request.state == "completed"
    assert left.charges[0].amount == Decimal("0.015")


def test_a_stream_without_usage_is_billed_by_estimate(stage: Gateway) -> None:
    answer = call(stage, "/chat/completions", stage.model("no-usage"), stream=True)
    assert list(events(answer))[-1] == "[DONE]"
    left = stage.left(answer)
    assert left.request.state == "completed"
    assert left.logs[0].usage_source == "estimated"
    assert left.logs[0].completion_tokens == 5
    assert left.charges[0].amount == cost_of(left.logs[0])


# --- usage that cannot be


@pytest.mark.parametrize("stream", [False, True])
def test_counts_that_are_none_are_estimated(stage: Gateway, stream: bool) -> None:
    answer = call(stage, "/chat/completions", stage.model("odd-usage"), stream=stream)
    assert answer.status_code == 200
    assert "Hello" in answer.text
    (log,) = stage.left(answer).logs
    assert log.usage_source == "estimated"
    assert log.prompt_tokens > 0
    assert log.completion_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt_tokens", [2**31, 2**64 - 2])
def test_a_count_that_no_call_can_have_is_estimated(
    stage: Gateway, stream: bool, prompt_tokens: int
) -> None:
    account = stage.account()
    body = {"model": stage.model(f"usage-{prompt_tokens}-1"), "messages": HELLO, "stream": stream}
    answer = stage.post("/chat/completions", body, by=account, stream=stream)
    assert answer.status_code == 200
    assert "Hello" in answer.text
    left = stage.left(answer)
    assert left.request.state == "completed"
    assert left.logs[0].usage_source == "estimated"
    assert 0 < left.logs[0].prompt_tokens < 100
    assert left.charges[0].amount == cost_of(left.logs[0])
    assert not stage.unbalanced()
