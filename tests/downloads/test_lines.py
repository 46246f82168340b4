"""The functions that make lines, against the readers of the same texts in Python."""

from __future__ import annotations

import json
import uuid
from typing import Any

import orjson
import psycopg
import pytest

from dwctl.protocols.failures import FailureKind, read_failure

ID = uuid.UUID("018f0000-0000-7000-8000-000000000001")


def tagged(kind: str, details: Any = None) -> str:
    return orjson.dumps({"type": kind} | ({} if details is None else {"details": details})).decode()


FAILURES = {
    **{f"kind {kind}": tagged(kind.value) for kind in FailureKind},
    **{
        f"{kind} with words": tagged(kind.value, {"error": "in other words"})
        for kind in FailureKind
    },
    "OpenAI's shape": tagged(
        "RetriableHttpStatus", {"status": 429, "body": '{"error":{"message":"slow down"}}'}
    ),
    "a text": tagged("RetriableHttpStatus", {"status": 503, "body": " upstream is away \n"}),
    "a page": tagged("NonRetriableHttpStatus", {"status": 404, "body": "<html>no</html>"}),
    "an object without words": tagged(
        "NonRetriableHttpStatus", {"status": 401, "body": '{"choices":[],"usage":null}'}
    ),
    "a list": tagged("NonRetriableHttpStatus", {"status": 422, "body": "[1, 2]"}),
    "detail": tagged("NonRetriableHttpStatus", {"status": 422, "body": '{"detail":"no model"}'}),
    "an empty message": tagged(
        "NonRetriableHttpStatus", {"status": 400, "body": '{"error":" ","message":"said here"}'}
    ),
    "no body": tagged("NonRetriableHttpStatus", {"status": 400}),
    "an odd status": tagged("NonRetriableHttpStatus", {"status": "what", "body": "x"}),
    "no details": tagged("NonRetriableHttpStatus"),
    "its own code and message": '{"type":"Timeout","code":"first_byte_timeout","message":"Nothing came."}',
    "its own of an unknown kind": '{"type":"BatchExpired","code":"batch_expired","message":"Too late."}',
    "a code without a message": '{"type":"Timeout","code":"first_byte_timeout"}',
    "a message that is none": '{"type":"Timeout","code":"x","message":""}',
    "a status with its own message": '{"type":"RetriableHttpStatus","details":{"status":429,"body":"slow"},"code":"http_500","message":"no"}',
    "details that are none": tagged("Timeout", [1]),
    "an unknown kind": tagged("GpuCaughtFire", {"message": "it burns"}),
    "an unknown kind without words": tagged("GpuCaughtFire"),
    "a sentence with a status": "Upstream returned 418: teapot",
    "a sentence with a status only": "Upstream returned 418",
    "a sentence": "it broke",
    "an object without type": '{"error":"it broke"}',
    "a type that is no text": '{"type":7,"message":"seven"}',
    "nothing": "",
    "blanks": " \n ",
    "a number": "17",
    "words in any script": tagged(
        "NonRetriableHttpStatus",
        {"status": 400, "body": '{"error":{"message":"né \\u00e9 \\ud83d\\ude00"}}'},
    ),
}


@pytest.mark.parametrize("text", FAILURES.values(), ids=FAILURES)
def test_a_failure_says_the_same_in_a_file_as_elsewhere(sql: psycopg.Connection, text: str) -> None:
    row = sql.execute(
        "SELECT code, message, status FROM fusillade.read_failure(%s)", (text,)
    ).fetchone()
    expected = read_failure(text)
    assert row == (expected.code, expected.message, expected.status)


HOSTILE = {
    "NUL as it is spelled": '{"type":"NonRetriableHttpStatus","details":{"status":400,"body":"a\\u0000b"}}',
    "half a pair": '{"type":"NonRetriableHttpStatus","details":{"status":400,"body":"\\ud800"}}',
    "deep": '{"type":' + "[" * 20_000 + "]" * 20_000 + "}",
    "NUL in a type": '{"type":"a\\u0000b"}',
    "NUL in a message": '{"message":"a\\u0000b"}',
    "NUL in a message inside": tagged(
        "NonRetriableHttpStatus", {"status": 400, "body": '{"error":{"message":"a\\u0000b"}}'}
    ),
    "a huge status": '{"type":"NonRetriableHttpStatus","details":{"status":99999999999999999999}}',
    "line ends": tagged("NonRetriableHttpStatus", {"status": 400, "body": '{\n"a":\r\n1}'}),
    "broken": '{"type":"Timeout"',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_whatever_is_stored_as_an_error_gives_one_line(sql: psycopg.Connection, text: str) -> None:
    row = sql.execute("SELECT fusillade.error_line(%s, 'c', 'failed', %s)", (ID, text)).fetchone()
    assert row
    line: str = row[0]
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert "\r" not in line
    found = json.loads(line)
    assert found["id"] == f"batch_req_{ID}"
    assert found["error"]["code"]
    assert found["error"]["message"]


BODIES = {
    "compact": ('{"a":1}', '{"a":1}'),
    "as it was spelled": (
        '{ "a" : 1.00, "a": 1e400,  "b":"\\u00e9" }',
        '{ "a" : 1.00, "a": 1e400,  "b":"\\u00e9" }',
    ),
    "printed for people": ('{\n  "a": 1,\r\n  "b": "x\\ny"\n}', '{   "a": 1,    "b": "x\\ny" }'),
    "a text": ("it broke\n", '"it broke\\n"'),
    "a text with quotes": ('say "hi" \\ \x01', '"say \\"hi\\" \\\\ \\u0001"'),
    "nothing": ("", '""'),
    "half": ('{"a":', '"{\\"a\\":"'),
    "a number beyond 64 bits": ("123456789012345678901234567890", "123456789012345678901234567890"),
    "none": (None, "null"),
    "NUL as it is spelled": ('{"a":"\\u0000"}', '{"a":"\\u0000"}'),
    "two values": ("{} {}", '"{} {}"'),
    "NaN": ('{"a":NaN}', '"{\\"a\\":NaN}"'),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
def test_a_body_is_json_in_one_line(
    sql: psycopg.Connection, body: str | None, expected: str
) -> None:
    row = sql.execute("SELECT fusillade.one_line(%s)", (body,)).fetchone()
    assert row == (expected,)
    json.loads(expected)


@pytest.mark.parametrize("mark", ["\u0085", "\u2028", "\u2029"])
def test_line_ends_of_unicode_are_escapes(sql: psycopg.Connection, mark: str) -> None:
    """They may stand in JSON; who splits text into lines by Unicode's rules would take a line for two."""
    said, custom_id = f"one{mark}two \\u2028", f"c{mark}"
    body = json.dumps({"said": said}, ensure_ascii=False)
    failure = tagged("NonRetriableHttpStatus", {"status": 400, "body": body})
    row = sql.execute(
        "SELECT fusillade.escape_line_ends(fusillade.output_line(%s, %s, 200, %s)),"
        " fusillade.escape_line_ends(fusillade.error_line(%s, %s, 'failed', %s))",
        (ID, custom_id, body, ID, custom_id, failure),
    ).fetchone()
    assert row
    for text in row:
        (line,) = text.splitlines()
        found = json.loads(line)
        assert found["custom_id"] == custom_id
        assert found["response"]["body"] == {"said": said}


CODES = {
    "cancelled": ("canceled", None, "batch_cancelled"),
    "cancelled while it ran": ("failed", tagged("Cancelled"), "batch_cancelled"),
    "expired": ("failed", tagged("DeadlinePassed"), "batch_expired"),
    "expired with its batch": ("failed", tagged("BatchExpired"), "batch_expired"),
    "failed": ("failed", tagged("Timeout"), "timeout"),
}


@pytest.mark.parametrize(("state", "error", "code"), CODES.values(), ids=CODES)
def test_lines_that_were_not_run_say_why(
    sql: psycopg.Connection, state: str, error: str | None, code: str
) -> None:
    row = sql.execute(
        "SELECT fusillade.error_line(%s, NULL, %s, %s)", (ID, state, error)
    ).fetchone()
    assert row
    found = json.loads(row[0])
    assert found["custom_id"] is None
    assert found["response"] is None
    assert found["error"]["code"] == code
