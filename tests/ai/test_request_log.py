"""What the request log shows of calls: headers and bodies, without secrets, cut, and only of those that are to be shown."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import requests

from tests.gateway import HELLO, Gateway, marker
from tests.lifecycle.test_store import places_of
from tests.processes import eventually

MOST = 600
SECRETS = {
    "Proxy-Authorization": "Basic {secret}",
    "Cookie": "session={secret}; theme=dark",
    "X-Api-Key": "{secret}",
    "Api-Key": "{secret}",
    "X-Goog-Api-Key": "{secret}",
    "Ocp-Apim-Subscription-Key": "{secret}",
    "X-Amz-Security-Token": "{secret}",
    "X-Auth": "{secret}",
    "X-Session-Id": "{secret}",
    "X-Vault_Secret": "{secret}",
    "X-Mine": "{secret}",
    "User-Agent": "curl/8 sk-{secret}",
    "X-Innocent": "see sk-{secret} or Bearer {secret}",
    "X-Signed": "eyJhbGciOiJIUzI1NiJ9.{secret}.c2lnbmF0dXJl",
    "Referer": "https://me:{secret}@example.org/",
}
QUERY = "api-version=3&api_key={secret}&access_token={secret}&key={secret}&sig={secret};password={secret}&x=sk-{secret}"


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "DWCTL_REQUEST_LOGGING__HEADERS": "all",
        "DWCTL_REQUEST_LOGGING__REDACTED_HEADERS": "x-mine",
        "DWCTL_REQUEST_LOGGING__MAX_BODY_SIZE": str(MOST),
    }


def chat(stage: Gateway, said: str, model: str = "echo", **more: Any) -> requests.Response:
    messages = [{"role": "user", "content": said}]
    path = "/chat/completions" + more.pop("query", "")
    by, headers = more.pop("by", None), more.pop("headers", None)
    body = {"model": stage.model(model), "messages": messages} | more
    return stage.post(path, body, by=by, headers=headers)


def head(text: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(text)
    return found


DOORS = {
    "a chat": "/chat/completions",
    "a path that is handed on": "/rerank",
    "a refused call": "/responses",
}


@pytest.mark.parametrize("path", DOORS.values(), ids=DOORS)
def test_no_secret_of_a_head_comes_into_the_database(stage: Gateway, path: str) -> None:
    secret = marker().replace("-", "") + "ABCDEFGH"
    headers = {name: value.format(secret=secret) for name, value in SECRETS.items()}
    model = "no-such-model" if path == "/responses" else stage.model("plain")
    body = {"model": model, "messages": HELLO, "query": "q", "documents": ["d"], "input": "i"}
    answer = stage.post(f"{path}?{QUERY.format(secret=secret)}", body, headers=headers)
    log = stage.log_of(answer)
    assert places_of(stage, secret) == []
    assert places_of(stage, stage.alice.key) == []
    shown = head(log.request_headers)
    assert shown["authorization"] == shown["x-mine"] == shown["cookie"] == "[redacted]"
    assert shown["x-innocent"] == "see [redacted] or [redacted]"
    assert shown["content-type"] == "application/json"
    assert log.uri.startswith(f"{path}?api-version=3&api_key=[redacted]&")


def test_a_key_in_the_place_of_a_model_is_not_written_down(stage: Gateway) -> None:
    answer = stage.post("/chat/completions", {"model": stage.alice.key, "messages": HELLO})
    assert stage.log_of(answer).model == "[redacted]"
    assert stage.log_of(answer).bodies is None


def test_headers_of_answers_are_there_for_streams_too(stage: Gateway) -> None:
    for stream in (False, True):
        log = stage.log_of(chat(stage, "Hello", stream=stream))
        kind = "text/event-stream" if stream else "application/json"
        assert head(log.response_headers)["content-type"].startswith(kind)
        assert head(log.request_headers)["accept"] == "*/*"


def test_the_texts_of_a_call_with_a_row_stand_there_and_nowhere_else(stage: Gateway) -> None:
    mark = marker()
    log = stage.log_of(chat(stage, mark))
    assert (log.bodies, log.request_body, log.response_body) == (None, None, None)
    assert places_of(stage, mark) == [
        "fusillade.request_templates.body",
        "fusillade.requests.response_body",
    ]


UNTRACKED = {
    "tracked elsewhere": lambda stage, said: chat(
        stage, said, headers={"X-Fusillade-Request-Id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47"}
    ),
    "handed on": lambda stage, said: stage.post(
        "/rerank", {"model": stage.model("echo"), "query": said, "messages": HELLO}
    ),
    "refused": lambda stage, said: stage.post("/chat/completions", {"model": "none", "x": said}),
    "not JSON": lambda stage, said: stage.post("/chat/completions", b"{" + said.encode()),
}


@pytest.mark.parametrize("call", UNTRACKED.values(), ids=UNTRACKED)
def test_the_texts_of_a_call_without_a_row_stand_in_the_log(stage: Gateway, call: Any) -> None:
    mark = marker()
    answer = call(stage, mark)
    log = stage.log_of(answer)
    assert log.bodies is None
    assert mark in log.request_body
    assert log.response_body == answer.text
    assert places_of(stage, mark)[0] == "public.http_analytics.request_body"


@pytest.mark.parametrize("call", UNTRACKED.values(), ids=UNTRACKED)
def test_what_is_long_is_cut_with_a_mark(stage: Gateway, call: Any) -> None:
    log = stage.log_of(call(stage, "ä" * MOST))
    begins, _, rest = log.request_body.partition("… [cut: ")
    assert len(begins.encode()) in (MOST, MOST - 1)
    assert int(rest.removesuffix(" bytes in all]")) > 2 * MOST


REFUSED = {
    "store": b'{"model": "none", "store": false, "x": "%b"}',
    "store, and no JSON": b'{"model": "none", "store" : false, "x": "%b"',
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_is_not_to_be_stored_is_not_when_it_is_refused(stage: Gateway, body: bytes) -> None:
    mark = marker()
    log = stage.log_of(stage.post("/chat/completions", body % mark.encode()))
    assert (log.bodies, log.request_body) == ("not_stored", None)
    assert places_of(stage, mark) == []


def test_of_strangers_there_is_nothing(stage: Gateway) -> None:
    mark = marker()
    headers = {"Authorization": f"Bearer sk-{mark}"}
    assert stage.post("/chat/completions", {"x": mark}, headers=headers).status_code == 401
    assert places_of(stage, mark) == []


def test_a_list_of_models_is_in_the_log(stage: Gateway) -> None:
    account = stage.account()
    listed = stage.get("/models", by=account)
    logged = "SELECT * FROM http_analytics WHERE user_id = %s"
    (row,) = eventually(lambda: stage.all(logged, account.id))
    assert (row.method, row.uri, row.model, row.status_code) == ("GET", "/models", None, 200)
    assert row.api_key_id == account.key_id
    assert str(row.request_id) == listed.headers["x-request-id"]
    assert row.response_body[:MOST] == listed.text[:MOST]
