import json
import random
from uuid import UUID

import orjson
import pytest

from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.openresponses import resource
from dwctl.protocols.openresponses.from_row import from_row
from dwctl.protocols.openresponses.stream import ResponsesStream
from dwctl.protocols.rows import StoredRow
from dwctl.protocols.surfaces import CHAT, Asked
from tests.protocols.openresponses.samples import COMPLETIONS, ID, REQUESTS, skeleton
from tests.protocols.openresponses.schema import check_response
from tests.protocols.streams import drive, hello, sse


def row(body=None, state="completed", **members):
    text = body if body is None or isinstance(body, str) else json.dumps(body)
    defaults = {"model": "m", "created_at": 100, "completed_at": 107, "response_status": 200}
    return StoredRow(response_id=ID, state=state, response_body=text, **{**defaults, **members})  # fmt: skip


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("pending", "queued"),
        ("claimed", "in_progress"),
        ("processing", "in_progress"),
        ("completed", "completed"),
        ("failed", "failed"),
        ("canceled", "cancelled"),
        ("superseded", "failed"),
    ],
)
def test_the_status_follows_from_the_state(state, status):
    response = from_row(row(state=state))
    check_response(response)
    assert (response["status"], response["output"]) == (status, [])
    assert response["created_at"] == 100


def test_a_complete_object_is_given_out_as_it_was_stored():
    kept = resource.from_chat(skeleton(), COMPLETIONS["text"], completed_at=105)
    assert from_row(row(kept)) == kept
    failed = resource.failed(kept, code="server_error", message="No")
    assert from_row(row(failed)) == failed
    assert from_row(row(failed, "failed", error="Timeout")) == failed
    cancelled = resource.cancelled(kept)
    assert from_row(row(cancelled, "canceled")) == cancelled
    assert from_row(row({**kept, "id": "resp_x"})) == kept


def test_an_object_of_another_status_than_the_rows_is_not():
    kept = resource.from_chat(skeleton(), COMPLETIONS["text"], completed_at=105)
    response = from_row(row(kept, "canceled"))
    check_response(response)
    assert (response["status"], response["completed_at"]) == ("cancelled", None)
    assert response["output"] == kept["output"]
    assert from_row(row({**kept, "status": "in_progress"}))["status"] == "completed"


def test_a_hand_written_body_is_completed():
    body = {"output": [{"type": "message", "content": "flex result"}], "usage": {"input_tokens": 5, "output_tokens": 3}}  # fmt: skip
    response = from_row(row(body, service_tier="flex", request_body='{"background":false}'))
    check_response(response)
    [item] = response["output"]
    assert (item["role"], item["status"]) == ("assistant", "completed")
    assert item["content"][0]["text"] == "flex result"
    assert response["usage"]["total_tokens"] == 8
    assert (response["status"], response["service_tier"], response["completed_at"]) == ("completed", "flex", 107)  # fmt: skip


def test_an_upstreams_own_object_is_shown_as_it_was_given_out():
    body = {"id": "resp_x", "object": "response", "created_at": 5, "model": "theirs", "status": "completed", "region": "eu", "temperature": "hot", "top_p": 0,
            "output": [{"type": "message", "id": "m1", "status": "completed", "role": "assistant", "content": []}], "usage": {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}}  # fmt: skip
    response = from_row(row(body))
    check_response(response)
    assert {n: response[n] for n in ("created_at", "model", "status", "region", "output")} == {n: body[n] for n in ("created_at", "model", "status", "region", "output")}  # fmt: skip
    assert response["usage"].items() >= body["usage"].items()
    assert (response["temperature"], response["top_p"]) == (1.0, 0)
    assert response["id"] == row(body).response_id


@pytest.mark.parametrize("body", COMPLETIONS.values(), ids=COMPLETIONS)
def test_a_chat_completion_is_converted(body):
    response = from_row(row(body, request_body=json.dumps(REQUESTS["chat"])))
    check_response(response)
    if body.get("choices") and isinstance(body["choices"], list):
        request = REQUESTS["chat"]
        expected = resource.from_chat(skeleton(request), body, completed_at=107)
        assert response == expected


def text_of(response):
    return "".join(p["text"] for i in response["output"] for p in i["content"])


STREAMS = {
    "chat": sse(hello()).decode(),
    "chat, CRLF": sse(hello()).decode().replace("\n", "\r\n"),
    "chat, cut": sse(hello(), done=False).decode(),
    "completions": sse([{"object": "text_completion", "choices": [{"text": "Hello there friend"}]}]).decode(),
    "responses": drive(lambda: ResponsesStream(skeleton(), now=lambda: 105), sse(hello()))[1].decode(),
}  # fmt: skip


@pytest.mark.parametrize("body", STREAMS.values(), ids=STREAMS)
def test_a_stream_is_put_together(body):
    response = from_row(row(body))
    check_response(response)
    assert (response["status"], text_of(response)) == ("completed", "Hello there friend")


PARTS_OF_A_USAGE = {
    "a total": ({"total_tokens": 9}, (3, 6, 9)),
    "the prompt": ({"prompt_tokens": 4}, (4, 2, 6)),
    "the answer": ({"completion_tokens": 4}, (3, 4, 7)),
    "zeros": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (3, 2, 5)),
    "too small a total": ({"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 1}, (4, 2, 6)),
}  # fmt: skip


@pytest.mark.parametrize(("usage", "counted"), PARTS_OF_A_USAGE.values(), ids=PARTS_OF_A_USAGE)
def test_what_is_shown_of_a_chats_usage_is_what_was_charged(usage, counted):
    """A chat's row holds the answer as its caller got it, in open mode with the parts of a usage that its upstream told."""
    request = {"model": "m", "messages": [{"role": "user", "content": "Hello you"}]}
    body = {**COMPLETIONS["text"], "usage": usage}
    asked = Asked(CHAT, orjson.dumps(request), request, "m", UUID(int=7), 100.5)
    charged = CHAT.treat(asked, Disclosure()).complete(orjson.dumps(body)).usage
    shown = from_row(row(body, request_body=orjson.dumps(request)))["usage"]
    assert (charged.prompt_tokens, charged.completion_tokens, charged.total_tokens) == counted
    assert (shown["input_tokens"], shown["output_tokens"], shown["total_tokens"]) == counted


def test_the_usage_of_a_stored_embedding_is_a_prompt():
    body = {"object": "list", "data": [{"embedding": [1.5]}], "usage": {"total_tokens": 9}}
    shown = from_row(row(body))["usage"]
    assert (shown["input_tokens"], shown["output_tokens"], shown["total_tokens"]) == (9, 0, 9)


def test_the_usage_of_a_stored_stream_is_kept():
    assert from_row(row(STREAMS["chat"]))["usage"]["total_tokens"] == 12
    assert from_row(row(STREAMS["responses"]))["usage"]["total_tokens"] == 12


ODD_OUTPUT = {"output": [5, {}, {"type": 5}, {"type": None, "content": 5, "id": 5}]}
STRANGE = {
    "nothing": None,
    "empty": "",
    "text": "oops",
    "NUL": "a\x00b",
    "lone surrogate": "\ud800",
    "number": "5",
    "list": "[1]",
    "null": "null",
    "empty object": "{}",
    "cut JSON": '{"output": [',
    "too deep": "[" * 5000,
    "output as text": {"output": "x"},
    "output of anything": ODD_OUTPUT,
    "message without content": {"output": [{"type": "message"}]},
    "usage of anything": {"output": [], "usage": [1]},
    "status of anything": {"output": [], "status": [], "error": "x", "incomplete_details": "y"},
    "embeddings": {"object": "list", "data": [{"embedding": [1.5]}], "usage": {"prompt_tokens": 4, "total_tokens": 4}},
    "stream of nothing": "data: \n\n",
    "stream of garbage": "data: {oops\n\ndata: 5\n\n: hi\n\n",
    "an object of its own": {"object": "response"},
    "a response in a response": {"response": {"output": [{"type": "message", "content": "x"}]}},
}  # fmt: skip


@pytest.mark.parametrize("state", ["completed", "failed", "canceled", "processing", "pending"])
@pytest.mark.parametrize("body", STRANGE.values(), ids=STRANGE)
def test_no_body_is_too_strange(body, state):
    for request in (None, "oops", "[]", json.dumps(REQUESTS["wrong types"])):
        response = from_row(row(body, state, request_body=request, completed_at=None))
        json.dumps(response)
        if body is not ODD_OUTPUT:
            check_response(response)


def test_what_a_hand_written_body_says_of_its_end_is_kept():
    body = {"output": [], "status": "incomplete", "incomplete_details": {"reason": "x"}, "error": {"message": "m"}}  # fmt: skip
    response = from_row(row(body))
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "x"})
    assert response["error"] == {"code": "server_error", "message": "m"}


def test_a_failure_is_readable():
    record = {"type": "NonRetriableHttpStatus", "details": {"status": 401, "body": '{"error":{"message":"No key"}}'}}  # fmt: skip
    response = from_row(row(state="failed", error=json.dumps(record)))
    check_response(response, sdk=False)
    assert response["status"] == "failed"
    assert response["error"] == {"code": "http_401", "message": "No key", "type": "authentication_error"}  # fmt: skip


def test_a_completed_row_with_an_error_status_has_failed():
    response = from_row(row('{"error":{"message":"Slow down"}}', response_status=429))
    assert response["status"] == "failed"
    assert response["error"] == {"code": "http_429", "message": "Slow down", "type": "rate_limit_error"}  # fmt: skip


def test_the_request_is_echoed():
    response = from_row(row(request_body=json.dumps({**REQUESTS["in full"], "background": True})))
    check_response(response)
    assert response["background"] is True
    assert response["instructions"] == "Be brief"
    assert response["metadata"] == {"a": "b"}


def test_random_bytes_never_fail():
    rng = random.Random(11)
    seeds = [json.dumps(body) for body in COMPLETIONS.values()] + list(STREAMS.values())
    for _ in range(300):
        text = list(rng.choice(seeds))
        for _ in range(rng.randrange(1, 6)):
            text[rng.randrange(len(text))] = rng.choice('{}[]",:x5 \n')
        from_row(row("".join(text), rng.choice(["completed", "failed"]), error="".join(text)))
