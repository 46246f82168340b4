"""What is refused, through both doors: the WSGI front and the Flask route behind it (which a trailing slash reaches)."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import requests

from tests.gateway import HELLO, Gateway, assert_openai_error
from tests.processes import eventually

LIMIT = 100_000
PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses")
Door = Callable[..., requests.Response]


@pytest.fixture(scope="module", params=["strict", "open"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def environ(environ: dict[str, str], mode: str) -> dict[str, str]:
    return environ | {
        "DWCTL_ONWARDS__STRICT_MODE": str(mode == "strict").lower(),
        "DWCTL_LIMITS__REQUESTS__MAX_BODY_SIZE": str(LIMIT),
    }


@pytest.fixture(params=["front", "flask"])
def door(request: pytest.FixtureRequest, seeded: Gateway) -> Door:
    """Posts to a path below /ai/v1 through one of the doors."""
    ending = "" if request.param == "front" else "/"
    return lambda path, *more, **named: seeded.post(path + ending, *more, **named)


def chat_body(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": HELLO} | more


# --- both doors are the same


def test_both_doors_answer_alike(seeded: Gateway) -> None:
    model = seeded.model("ok")
    front, flask = (seeded.post(f"/chat/completions{end}", chat_body(model)) for end in ("", "/"))
    assert front.status_code == flask.status_code == 200
    bodies = [orjson.loads(answer.content) for answer in (front, flask)]
    for answer, body in zip((front, flask), bodies, strict=True):
        assert body.pop("id") == f"resp_{answer.headers['x-request-id']}"
        body.pop("system_fingerprint", None)
        assert len(seeded.left(answer).charges) == 1
    assert bodies[0] == bodies[1]
    changing = {"date", "x-request-id", "x-upstream-request-id"}
    names = [{name.lower() for name in answer.headers} - changing for answer in (front, flask)]
    assert names[0] == names[1]


def test_both_doors_stream(seeded: Gateway) -> None:
    for end in ("", "/"):
        answer = seeded.post(
            f"/chat/completions{end}", chat_body(seeded.model("ok"), stream=True), stream=True
        )
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.endswith("data: [DONE]\n\n")


# --- credentials


NO_KEYS: list[str | bytes | None] = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Basic dXNlcjpwYXNz",
    "Bearer sk-unknown",
    "Bearer sk-unknown with spaces",
    "Bearer " + "x" * 4000,
    b"Bearer \xe2\x98\x83",
    b"Bearer \xff\xfe",
    "sk-without-scheme",
]


def test_who_has_no_key_is_refused(seeded: Gateway, door: Door) -> None:
    body = chat_body(seeded.model("ok"))
    for authorization in NO_KEYS:
        answer = door("/chat/completions", body, headers={"Authorization": authorization})
        code = assert_openai_error(answer, 401)["code"]
        assert code in ("unauthenticated", "invalid_api_key"), authorization


def test_the_scheme_may_be_written_in_any_case(seeded: Gateway, door: Door) -> None:
    for scheme in ("bearer", "BEARER", "Bearer  "):
        headers = {"Authorization": f"{scheme} {seeded.alice.key} "}
        assert door("/chat/completions", chat_body(seeded.model("ok")), headers=headers).ok


def test_other_credentials_do_not_open_inference(seeded: Gateway, door: Door) -> None:
    for headers in (
        {"Authorization": None, "x-api-key": seeded.alice.key},
        {"Authorization": None, "api-key": seeded.alice.key},
        {"Authorization": None} | seeded.alice.session,
    ):
        answer = door("/chat/completions", chat_body(seeded.model("ok")), headers=headers)
        assert_openai_error(answer, 401)


def test_a_revoked_key_stops(seeded: Gateway, door: Door) -> None:
    account, body = seeded.account(), chat_body(seeded.model("ok"))
    assert door("/chat/completions", body, by=account).ok
    seeded.admin("DELETE", f"/users/{account.id}/api-keys/{account.key_id}")
    eventually(lambda: not door("/chat/completions", body, by=account).ok)
    assert_openai_error(door("/chat/completions", body, by=account), 401, "invalid_api_key")


def test_a_deleted_users_key_stops(seeded: Gateway, door: Door) -> None:
    account, body = seeded.account(), chat_body(seeded.model("ok"))
    assert door("/chat/completions", body, by=account).ok
    seeded.admin("DELETE", f"/users/{account.id}")
    eventually(lambda: not door("/chat/completions", body, by=account).ok)
    assert_openai_error(door("/chat/completions", body, by=account), 401, "invalid_api_key")


# --- models


def test_an_unknown_model_is_404(seeded: Gateway, door: Door) -> None:
    for path in PATHS:
        asked = {"prompt": "text"} if path == "/completions" else {"input": "text"}
        body = chat_body("no-such-model", **asked)
        assert_openai_error(door(path, body), 404, "model_not_found")


def test_a_model_of_another_group_is_403(seeded: Gateway, door: Door) -> None:
    hidden = seeded.model("ok", alias="hidden", everyone=False)
    eventually(lambda: door("/chat/completions", chat_body(hidden)).status_code == 403)
    answer = door("/chat/completions", chat_body(hidden))
    error = assert_openai_error(answer, 403, "model_access_denied")
    assert "do not have access to 'hidden'" in error["message"]


NO_NAMES: list[Any] = [None, 5, 1.5, True, [], {}, ["ok"], {"a": 1}, "\x00", "a\nb", "\u202e", "m" * 600]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_what_is_no_model_name_is_refused(seeded: Gateway, door: Door, path: str) -> None:
    for model in NO_NAMES:
        answer = door(path, chat_body(model, input="text", prompt="text"))
        assert assert_openai_error(answer, 400)["param"] == "model", model
    answer = door(path, {"messages": HELLO, "input": "text", "prompt": "text"})
    assert assert_openai_error(answer, 400)["param"] == "model"


# --- bodies


MALFORMED = {
    "empty": b"",
    "blank": b"  ",
    "cut": b'{"model": "ok", "messages": [',
    "array": b"[]",
    "text": b'"text"',
    "null": b"null",
    "number": b"5",
    "not UTF-8": b'{"model": "\xff\xfe"}',
    "no JSON": b"model=ok&messages=hi",
    "two values": b'{"model": "ok"}{"model": "ok"}',
    "NaN": b'{"model": "ok", "temperature": NaN}',
    "trailing comma": b'{"model": "ok",}',
    "lone surrogate": b'{"model": "ok", "user": "\\ud83d"}',
    "deep": b'{"model": "ok", "messages": ' + b"[" * 40_000 + b"]" * 40_000 + b"}",
    "deep objects": b'{"model": "ok", "x": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
}


@pytest.mark.parametrize("path", PATHS)
def test_malformed_json_is_refused(seeded: Gateway, door: Door, path: str) -> None:
    for what, body in MALFORMED.items():
        answer = door(path, body)
        assert assert_openai_error(answer, 400)["code"] == "invalid_json", what


def test_a_body_over_the_limit_is_refused_by_its_length(seeded: Gateway, door: Door) -> None:
    seeded.model("ok")
    for size in (LIMIT + 1, 20 * LIMIT):
        assert_openai_error(
            door("/chat/completions", b'{"model":"ok"}'.ljust(size)), 413, "payload_too_large"
        )


def test_a_body_over_the_limit_is_refused_in_chunks(seeded: Gateway, door: Door) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 8192

    answer = requests.post(
        f"{seeded.url}/ai/v1/chat/completions",
        data=chunks(),
        headers=seeded.alice.authorization,
        timeout=10,
    )
    assert_openai_error(answer, 413, "payload_too_large")


def test_a_body_of_just_the_limit_is_taken(seeded: Gateway, door: Door) -> None:
    body = orjson.dumps(chat_body(seeded.model("ok"))).ljust(LIMIT)
    assert door("/chat/completions", body).status_code == 200


def test_a_chunked_body_is_taken(seeded: Gateway) -> None:
    body = orjson.dumps(chat_body(seeded.model("ok")))
    for end in ("", "/"):
        answer = requests.post(
            f"{seeded.url}/ai/v1/chat/completions{end}",
            data=iter([body[:10], body[10:]]),
            headers=seeded.alice.authorization,
            timeout=10,
        )
        assert answer.status_code == 200, answer.text


def test_after_a_refused_body_the_connection_is_in_step(seeded: Gateway) -> None:
    """What was not read of one request must not be taken for the next."""
    ok = orjson.dumps(chat_body(seeded.model("ok")))
    with requests.Session() as session:
        session.headers.update(seeded.alice.authorization)
        for body in (b" " * (3 * LIMIT), ok, b"{", ok):
            answer = session.post(f"{seeded.url}/ai/v1/chat/completions", body, timeout=10)
            assert answer.status_code == {LIMIT * 3: 413, 1: 400}.get(len(body), 200)


@pytest.mark.parametrize(
    ("framing", "body", "code"),
    [
        ("content-length: 500", b"%s", "incomplete_body"),
        ("transfer-encoding: chunked", b"100\r\n%s", "incomplete_body"),
        ("transfer-encoding: chunked", b"10", "incomplete_body"),
        ("transfer-encoding: chunked", b"zz\r\n%s\r\n0\r\n\r\n", "malformed_request"),
        ("transfer-encoding: chunked", b"-5\r\n%s\r\n0\r\n\r\n", "malformed_request"),
        ("transfer-encoding: chunked", b"3\r\n%s\r\n0\r\n\r\n", "malformed_request"),
    ],
)
def test_a_body_that_does_not_come_to_its_end_is_no_request(
    seeded: Gateway, framing: str, body: bytes, code: str, nothing_fell_over: None
) -> None:
    """Also where what has come reads like one. Nothing behind it is taken for the next request."""
    whole = orjson.dumps(chat_body(seeded.model("ok")))
    head = f"POST /ai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {seeded.alice.key}\r\n{framing}\r\n\r\n"
    host, port = seeded.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as caller:
        caller.sendall(head.encode() + body.replace(b"%s", whole))
        caller.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: caller.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert f'"code":"{code}"'.encode() in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_caller_that_leaves_while_sending_does_no_harm(seeded: Gateway) -> None:
    head = f"POST /ai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {seeded.alice.key}\r\ncontent-length: 500\r\n\r\n"
    with socket.create_connection(
        ("127.0.0.1", int(seeded.url.rsplit(":", 1)[1])), timeout=10
    ) as caller:
        caller.sendall(head.encode() + b'{"model":"ok"')
    assert seeded.chat(seeded.model("ok")).ok


# --- members of wrong types


VALUES = """true -1 1.5 1e300 1000000000000000000000000000000 "text" "" [] {} [null] [[]] [1] ["a"] [{}] {"a":1} {"type":5} {"type":"x"}"""
SENT_ON = "stream stream_options service_tier background user n"
MEMBERS = {
    "/chat/completions": f"""messages {SENT_ON} temperature top_p stop max_tokens max_completion_tokens presence_penalty
        frequency_penalty logit_bias logprobs top_logprobs seed tools tool_choice parallel_tool_calls response_format metadata store
        unknown_member""",
    "/completions": f"prompt {SENT_ON} suffix max_tokens stop best_of logprobs echo seed",
    "/embeddings": f"input {SENT_ON} encoding_format dimensions",
}


@pytest.mark.parametrize("path", MEMBERS)
def test_no_value_of_any_member_breaks_the_gateway(seeded: Gateway, path: str, mode: str) -> None:
    seeded.model("ok")
    good = b'{"model":"ok","messages":[{"role":"user","content":"hi"}],"prompt":"hi","input":"hi","%b":%b}'
    # Open mode passes on what it does not look at itself.
    for member in (MEMBERS[path] if mode == "strict" else SENT_ON).split():
        for value in VALUES.split():
            answer = seeded.post(path, good % (member.encode(), value.encode()))
            assert answer.status_code in (200, 400), (member, value, answer.text)
            if answer.status_code == 400:
                named = assert_openai_error(answer, 400)["param"]
                assert re.split(r"[.\[]", named or member)[0] == member, (value, answer.text)


WRONG = {
    "messages": (5, "messages"),
    "messages as text": ("hi", "messages"),
    "a message": ([5], "messages[0]"),
    "no role": ([{"content": "hi"}], "messages[0].role"),
    "role": ([{"role": 5}], "messages[0].role"),
    "content": ([{"role": "user", "content": 5}], "messages[0].content"),
    "a part": ([{"role": "user", "content": [5]}], "messages[0].content[0]"),
    "a part's text": (
        [{"role": "user", "content": [{"type": "text", "text": 5}]}],
        "messages[0].content[0].text",
    ),
}


def test_strict_mode_names_the_wrong_member(seeded: Gateway, mode: str, door: Door) -> None:
    model = seeded.model("ok")
    for what, (messages, param) in WRONG.items() if mode == "strict" else ():
        answer = door("/chat/completions", {"model": model, "messages": messages})
        assert assert_openai_error(answer, 400)["param"] == param, what


def test_open_mode_leaves_messages_to_the_upstream(seeded: Gateway, mode: str, door: Door) -> None:
    answer = door("/chat/completions", {"model": seeded.model("ok"), "messages": [5]})
    assert answer.status_code == (200 if mode == "open" else 400)


def test_background_is_for_responses_only(seeded: Gateway, door: Door) -> None:
    body = chat_body(seeded.model("ok"), input="x", prompt="x", background=True)
    for path in PATHS[:3]:
        assert assert_openai_error(door(path, body), 400)["param"] == "background"


def test_an_unknown_service_tier_is_refused(seeded: Gateway, door: Door) -> None:
    for path in PATHS:
        body = {"model": seeded.model("ok"), "messages": HELLO, "input": "x", "prompt": "x"}
        answer = door(path, body | {"service_tier": "turbo"})
        assert assert_openai_error(answer, 400)["param"] == "service_tier"
