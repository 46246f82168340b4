import json

import pytest

from dwctl.protocols.failures import Failure, FailureKind, http_failure, read_failure


def tagged(type, **details):
    return json.dumps({"type": type, "details": details} if details else {"type": type})


def http(status, body, message, type="server_error"):
    return tagged("NonRetriableHttpStatus", status=status, body=body), Failure(
        f"http_{status}", message, type, status
    )


READ = {
    "OpenAI's error": http(401, '{"error":{"message":"No key"}}', "No key", "authentication_error"),
    "a message alone": http(429, '{"message":"Slow down"}', "Slow down", "rate_limit_error"),
    "an error as text": http(500, '{"error":"Boom"}', "Boom"),
    "FastAPI's detail": http(422, '{"detail":"Bad"}', "Bad"),
    "plain text": http(503, "overloaded\n", "overloaded"),
    "HTML": http(502, "<html>nginx</html>", "The upstream provider answered with status 502."),
    "JSON without a message": http(401, '{"choices":[],"usage":null}', "The upstream provider answered with status 401.", "authentication_error"),
    "no body": http(404, "", "The upstream provider answered with status 404.", "not_found_error"),
    "a body that is no text": http(400, {"error": {"message": "Bad"}}, "Bad", "invalid_request_error"),
    "retriable": (tagged("RetriableHttpStatus", status=500, body="x"), Failure("http_500", "x", "server_error", 500)),
    "strange status": (tagged("RetriableHttpStatus", status="x", body="y"), Failure("http_500", "y", "server_error", 500)),
    "network": (tagged("NetworkError", error="tcp 10.0.0.1"), Failure("network_error", "The upstream provider could not be reached.")),
    "timeout": (tagged("Timeout", error="30s"), Failure("timeout", "The upstream provider took too long to answer.")),
    "interrupted": (tagged("TaskTerminated"), Failure("interrupted", "The request was interrupted before it was done.")),
    "batch ended": (tagged("BatchTerminated"), Failure("batch_terminated", "The batch ended before the request was run.")),
    "sentence of the gateway": ('Upstream returned 429: {"error":{"message":"Slow"}}', Failure("http_429", "Slow", "rate_limit_error", 429)),
    "sentence without body": ("Upstream returned 500", Failure("http_500", "The upstream provider answered with status 500.", "server_error", 500)),
    "any sentence": ("interrupted", Failure("server_error", "interrupted")),
    "cancelled": (tagged("Cancelled"), Failure("cancelled", "The request was cancelled.")),
    "the client left": (tagged("ClientDisconnected"), Failure("client_disconnected", "The client left before the answer was complete.")),
    "a tag with a message": (tagged("StreamBroken", error="It ended too early."), Failure("stream_broken", "It ended too early.")),
    "a tag that says nothing": (tagged("Odd", number=5), Failure("odd", "The request failed.")),
    "an error object": ('{"error":{"message":"No"}}', Failure("server_error", "No")),
    "a list": ("[1]", Failure("server_error", "[1]")),
    "nothing": (None, Failure("server_error", "The request failed.")),
    "blanks": (" ", Failure("server_error", "The request failed.")),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), READ.values(), ids=READ)
def test_a_stored_failure_is_readable(text, expected):
    assert read_failure(text) == expected


def test_a_body_of_bytes_is_not_shown():
    assert http_failure(500, b"x").message == "The upstream provider answered with status 500."


def test_only_passing_failures_are_worth_a_retry():
    assert {kind for kind in FailureKind if kind.retry_helps} == {
        "RetriableHttpStatus",
        "NetworkError",
        "Timeout",
    }


@pytest.mark.parametrize("kind", [k for k in FailureKind if "Status" not in k])
def test_every_kind_is_readable_without_its_details(kind):
    failure = read_failure(tagged(kind.value))
    assert failure.message not in ("", "The request failed.")
    assert failure.code.replace("_", "").isalpha()
