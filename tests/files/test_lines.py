"""What a line must be: tables of lines and what is said of them. Pure."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from dwctl.files.custom_ids import CustomIds
from dwctl.files.lines import Line, LineChecker, Rules, UsableModel

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
PATHS = (CHAT, "/v1/completions", EMBEDDINGS, RESPONSES)
MODELS = {
    "m": UsableModel("CHAT"),
    "relayed": UsableModel("CHAT", frozenset({False})),
    "both": UsableModel("CHAT", frozenset({False, True})),
    "picky": UsableModel("CHAT", refuses_unrunnable_tools=True),
    "e": UsableModel("EMBEDDINGS"),
    "untyped": UsableModel(None),
    "r": UsableModel("RERANKER"),
}
MESSAGES = [{"role": "user", "content": "Hi"}]
OPEN = Rules(MODELS, PATHS, max_body_size=1000)
STRICT = Rules(MODELS, PATHS, max_body_size=1000, strict=True)


def checked(
    text: bytes, rules: Rules = OPEN, piece: int = 0, **more: Any
) -> tuple[list[Line], LineChecker]:
    checker = LineChecker(rules, CustomIds(), **more)
    step = piece or len(text) or 1
    found = [
        line for at in range(0, len(text), step) for line in checker.feed(text[at : at + step])
    ]
    return [*found, *checker.finish()], checker


def line(
    custom_id: object = "a", url: object = CHAT, method: object = "POST", **body: Any
) -> bytes:
    body = body or {"model": "m", "messages": MESSAGES}
    return orjson.dumps({"custom_id": custom_id, "method": method, "url": url, "body": body})


def of(body: bytes, custom_id: bytes = b'"a"') -> bytes:
    return b'{"custom_id":%s,"method":"POST","url":"%s","body":%s}' % (
        custom_id,
        CHAT.encode(),
        body,
    )


WRONG: dict[str, tuple[bytes, str, str]] = {
    "an array": (b"[]", "invalid_json", "Invalid JSON on line 1: Expected `object`, got `array`"),
    "two objects": (line() + b" {}", "invalid_json", "Invalid JSON on line 1: "),
    "cut": (line()[:-1], "invalid_json", "Invalid JSON on line 1: "),
    "NaN": (of(b'{"model":"m","messages":[],"top_p":NaN}'), "invalid_json", "Invalid JSON on line 1: "),
    "a text as number": (line(custom_id=7), "invalid_json", "Invalid JSON on line 1: Expected `str`, got `int` - at `$.custom_id`"),
    "no custom_id": (b'{"method":"POST","url":"/v1/embeddings","body":{}}', "invalid_json", "Invalid JSON on line 1: Object missing required field `custom_id`"),
    "no url": (b'{"custom_id":"","method":"POST","body":{}}', "invalid_json", "Invalid JSON on line 1: Object missing required field `url`"),
    "no body": (b'{"custom_id":"","method":"POST","url":"/v1/embeddings"}', "invalid_json", "Invalid JSON on line 1: Object missing required field `body`"),
    "body is null": (of(b"null"), "invalid_json", "Invalid JSON on line 1: Expected `object` - at `$.body`"),
    "body is a text": (of(b'"{}"'), "invalid_json", "Invalid JSON on line 1: Expected `object` - at `$.body`"),
    "body cannot be read": (of(b'{"model":"m","messages":[],"x":"\xc3\x28"}'), "invalid_utf8", "File contains invalid UTF-8 on/near line 1 at byte offset 101: "),
    "half a character at the end": (line() + b"\xe6\x97", "invalid_utf8", "File contains invalid UTF-8 on/near line 1 at byte offset "),
    "UTF-16": ("\ufeffx".encode("utf-16-le"), "invalid_utf8", "File contains invalid UTF-8 on/near line 1 at byte offset 0: "),
    "Latin-1": (line("k\u00f6nig").decode().encode("latin-1"), "invalid_utf8", "File contains invalid UTF-8"),
    "NUL": (line() + b"\0", "invalid_json", f"Invalid JSON on line 1: NUL at byte offset {len(line())}"),
    "a control character in a text": (of(b'{"model":"m","messages":[],"x":"\x01"}'), "invalid_json", "Invalid JSON on line 1: "),
    "half a surrogate pair": (of(b'{"model":"m","messages":[],"x":"\\ud800"}'), "invalid_json", "Invalid JSON on line 1: "),
    "half a surrogate pair as id": (of(b"{}", b'"\\ud800"'), "invalid_json", "Invalid JSON on line 1: "),
    "long custom_id": (line("\u00e9" * 65), "custom_id_too_long", "Line 1: custom_id exceeds maximum length of 64 characters (got 65)"),
    "control character in custom_id": (line("a\nb"), "invalid_custom_id", "Line 1: custom_id contains invalid characters"),
    "NUL in custom_id": (line("a\0"), "invalid_custom_id", "Line 1: custom_id contains invalid characters"),
    "method": (line(method="PUT"), "unsupported_method", "Line 1: Unsupported HTTP method 'PUT'. Only POST is currently supported."),
    "method that is POST in capitals only": (line(method="poſt"), "unsupported_method", "Line 1: Unsupported HTTP method 'poſt'. Only POST is currently supported."),
    "full URL": (line(url="https://x" + CHAT), "unsupported_url", f"Line 1: Unsupported URL path 'https://x{CHAT}'. Allowed paths are: {', '.join(PATHS)}"),
    "slash at the end": (line(url=CHAT + "/"), "unsupported_url", "Line 1: Unsupported URL path"),
    "no model": (line(messages=[]), "missing_required_parameter", "Line 1: Missing 'model' field in request body"),
    "model is a number": (line(model=1), "missing_required_parameter", "Line 1: Missing 'model' field in request body"),
    "unknown model": (line(model="x"), "model_access_denied", "Line 1: Model 'x' has not been configured or is not available to user"),
    "the last model counts": (of(b'{"model":"m","model":"x","messages":[]}'), "model_access_denied", "Line 1: Model 'x' has not"),
    "chat by an embeddings model": (line(model="e", messages=[]), "wrong_model_type", f"Line 1: Model 'e' is a EMBEDDINGS model but endpoint '{CHAT}' requires a CHAT model"),
    "embeddings by a chat model": (line(url=EMBEDDINGS, model="m", input="x"), "wrong_model_type", f"Line 1: Model 'm' is a CHAT model but endpoint '{EMBEDDINGS}' requires a EMBEDDINGS model"),
    "chat by a reranker": (line(model="r", messages=[]), "wrong_model_type", "Line 1: Model 'r' is a RERANKER model"),
    "large body": (line(model="m", messages=MESSAGES, x="x" * 1000), "body_too_large", "Line 1: Request body is 1064 bytes, which exceeds the maximum allowed size of 1000 bytes"),
    "huge line": (b" " * 100_000 + line(), "body_too_large", "Line 1: Request body is "),
    "deep": (of(b'{"model":"m","messages":%s%s}' % (b"[" * 300, b"]" * 300)), "invalid_value", "Line 1: The request is nested deeper than"),
    "very deep": (b"[" * 60_000, "invalid_json", "Invalid JSON on line 1: "),
    "background chat": (line(model="m", messages=[], background=True), "unsupported_parameter", "Line 1: `background` is only supported on /responses."),
    "stream is a text": (line(model="m", messages=[], stream="yes"), "invalid_type", "Line 1: `stream` must be true or false."),
    "adapted responses": (line(url=RESPONSES, model="m", input=[{"type": "message", "role": "user", "content": 5}]), "invalid_type", "Line 1: "),
    "what only a provider keeps": (line(url=RESPONSES, model="relayed", input="x", conversation="c"), "unsupported_parameter", "Line 1: `conversation` is not supported"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "code", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_line_is_told_with_its_reason(text: bytes, code: str, message: str) -> None:
    for piece in (0, 7):
        found, checker = checked(text, piece=piece)
        assert found == []
        (error,) = checker.errors
        assert error.message.startswith(message), error.message
        assert (error.code, error.line) == (code, 1)
        assert error.status == (403 if code == "model_access_denied" else 400)


RIGHT: dict[str, bytes] = {
    "plain": line(),
    "blanks around": b" \t" + line() + b" \r",
    "custom_id of 64 characters": line("\u65e5" * 64),
    "empty custom_id": line(""),
    "tab in custom_id": line("a\tb"),
    "emoji joined": line("\U0001f469\u200d\U0001f680"),
    "method in lower case": line(method="post"),
    "more members": line()[:-1] + b',"extra":{"x":[1,2]}}',
    "a member twice": line()[:-1] + b',"custom_id":"b"}',
    "untyped model anywhere": line(url=EMBEDDINGS, model="untyped", input="x"),
    "streamed": line(model="m", messages=[], stream=True),
    "unknown tier": line(model="m", messages=[], service_tier="batch"),
    "what open mode passes on": line(model="m", messages="later"),
    "background response": line(url=RESPONSES, model="m", input="x", background=True),
}


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_a_right_line_is_given(text: bytes) -> None:
    found, checker = checked(text)
    assert checker.errors == []
    assert [one.number for one in found] == [1]


STRICTLY_WRONG = {
    "messages": (line(model="m", messages="later"), "body.messages"),
    "content part": (line(model="m", messages=[{"role": "user", "content": [{"type": "x"}]}]), "body.messages[0].content[0].type"),
    "sampling": (line(model="m", messages=MESSAGES, temperature="hot"), "body.temperature"),
    "embeddings": (line(url=EMBEDDINGS, model="e"), "body.input"),
    "relayed responses": (line(url=RESPONSES, model="relayed", input=5), "body.input"),
    "responses either way": (line(url=RESPONSES, model="both", input=5), "body.input"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "field"), STRICTLY_WRONG.values(), ids=STRICTLY_WRONG)
def test_strict_mode_refuses_what_the_route_would_refuse(text: bytes, field: str) -> None:
    good = b"".join(line(f"id-{n}") + b"\n" for n in range(300))
    found, checker = checked(good + text + b"\n" + line("last"), STRICT)
    assert len(found) == 300
    (error,) = checker.errors
    assert (error.line, error.field) == (301, field)
    assert error.message.startswith("Line 301: ")


def test_lines_and_offsets_are_those_of_the_file_wherever_it_is_cut() -> None:
    text = b"\xef\xbb\xbf\r\n" + line("a") + b"\r\n\n \n" + line("b") + b"\n\xff"
    for piece in (1, 2, 3, 50, 0):
        found, checker = checked(text, piece=piece)
        assert [(one.number, one.custom_id) for one in found] == [(2, "a"), (5, "b")]
        (error,) = checker.errors
        assert error.message.startswith(
            f"File contains invalid UTF-8 on/near line 6 at byte offset {len(text) - 1}: "
        )


def test_errors_are_collected_in_order_up_to_the_limit() -> None:
    text = line("a") + b"\n" + b"bad\n" * 30
    found, checker = checked(text, most_errors=20)
    assert [one.number for one in found] == [1]
    assert [error.line for error in checker.errors] == list(range(2, 22))
    assert checker.is_full
    found, checker = checked(text + line("b"), most_errors=5, tolerant=True)
    assert ([one.number for one in found], checker.wrong) == ([1, 32], 30)
    assert [error.line for error in checker.errors] == [2, 3, 4, 5, 6]


def test_a_file_is_bounded_and_not_empty() -> None:
    rules = Rules(MODELS, PATHS, max_requests=2)
    two = line("a") + b"\n\n" + line("b") + b"\n"
    assert len(checked(two, rules)[0]) == 2
    (error,) = checked(two + line("c") + b"\nbad", rules)[1].errors
    assert error.message == "File contains 4 requests, which exceeds the maximum of 2"
    for empty in (b"", b"\n", b"\xef\xbb\xbf", b"\r\n \t\r\n"):
        (error,) = checked(empty)[1].errors
        assert error.message == "File contains no valid request templates"
        assert checked(empty, tolerant=True)[1].fatal == error


def test_every_line_goes_to_the_endpoint_that_is_given() -> None:
    text = b'{"custom_id":"a","body":{"model":"m","messages":[]}}\n' + line("b", url="/v1/other")
    found, checker = checked(text, Rules(MODELS, PATHS, endpoint=CHAT))
    assert checker.errors == []
    assert [(one.path, one.method) for one in found] == [(CHAT, "POST")] * 2


KEPT = {
    "numbers": b'{"model":"m","messages":[],"seed":123456789012345678901234567890,"top_p":1.000}',
    "twice": b'{"model":"x","x":1,"x":2,"messages":[],"model":"m"}',
    "blanks": b'{ "model" : "m" ,\t"messages":[ ]}',
    "order and escapes": b'{"z":"\\u00e9\\/","model":"m","messages":[],"a":null}',
    "priority further in": b'{"model":"m","messages":[],"x":{"priority":1}}',
}


@pytest.mark.parametrize("body", KEPT.values(), ids=KEPT)
def test_a_body_is_kept_to_the_byte(body: bytes) -> None:
    (found,), _ = checked(of(body))
    assert found.body == body


def test_a_priority_of_the_whole_is_taken_out() -> None:
    body = b'{"model":"m","priority":"high","seed":12345678901234567890123,"messages":[]}'
    (found,), _ = checked(of(body))
    assert found.body == body.replace(b'"priority":"high",', b"")
    (found,), _ = checked(of(b'{"prior\\u0069ty":[{}],"model":"m","messages":[]}'))
    assert found.body == b'{"model":"m","messages":[]}'


def test_repeats_are_found_in_files_of_any_length() -> None:
    def rest() -> None:
        """Others run."""

    for count in (5, 100, 5000):
        ids = CustomIds(remembered=50, run=64)
        told = [ids.add(f"id-{number}", number + 1) for number in range(count)]
        assert told == [None] * count
        assert ids.suspects(rest) == set()
        earlier = ids.add("id-3", count + 7)
        ids.add("new", count + 8)
        suspects = ids.suspects(rest)
        if ids.is_complete:
            assert (earlier, suspects) == (4, set())
        else:
            assert suspects == {hash("id-3")}
            assert [ids.number_of(index) for index in (3, count, count + 1)] == [
                4,
                count + 7,
                count + 8,
            ]
        ids.close()
