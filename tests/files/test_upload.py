"""Files of requests, uploaded through a real web process: what is taken, what is stored, what is refused and leaves nothing."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import requests

from tests.gateway import Account, Gateway, unique
from tests.processes import eventually

MODEL, OTHER, EMBED = "fine", "fine+other", "fine+embed"
MAX_FILE = 9_000_000
DAY = 86400


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "DWCTL_LIMITS__FILES__MAX_FILE_SIZE": str(MAX_FILE),
        "DWCTL_LIMITS__FILES__MAX_REQUESTS_PER_FILE": "70000",
        "DWCTL_LIMITS__FILES__MAX_CONCURRENT_UPLOADS": "2",
        "DWCTL_LIMITS__FILES__MAX_WAITING_UPLOADS": "1",
        "DWCTL_LIMITS__FILES__MAX_UPLOAD_WAIT_SECS": "20",
        "DWCTL_LIMITS__REQUESTS__BODY_GRACE": "3s",
        "DWCTL_LIMITS__REQUESTS__BODY_MIN_RATE": "1000000",
        "DWCTL_BATCHES__FILES__BATCH_INSERT_SIZE": "500",
    }


@pytest.fixture(scope="module")
def door(stage: Gateway, nothing_fell_over: None) -> Gateway:
    for alias, kind in ((MODEL, "CHAT"), (OTHER, "CHAT"), (EMBED, "EMBEDDINGS")):
        stage.model("fine", alias=alias, wait=False)
        stage.all("UPDATE deployed_models SET type = %s WHERE alias = %s RETURNING id", kind, alias)
    stage.wait_for_model(EMBED)
    return stage


def line(
    custom_id: str = "a", model: str = MODEL, url: str = "/v1/chat/completions", **more: Any
) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]} | more.pop("body", {})
    return orjson.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body} | more)


def lines(count: int, **more: Any) -> bytes:
    return b"".join(line(f"line-{number}", **more) + b"\n" for number in range(count))


def upload(
    door: Gateway, content: Any, *, by: Account | None = None, **fields: str
) -> requests.Response:
    name = fields.pop("name", "input.jsonl")
    fields = {"purpose": "batch"} | fields
    return requests.post(
        f"{door.url}/ai/v1/files",
        files={"file": (name, content, "application/jsonl")},
        data={key.replace("_", ""): value for key, value in fields.items() if value},
        headers=(by or door.alice).authorization,
        timeout=30,
    )


def templates(door: Gateway, file_id: str) -> list[Any]:
    return door.all(
        "SELECT * FROM fusillade.request_templates WHERE file_id = %s ORDER BY line_number", file_id
    )


def said(answer: requests.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() >= {"message", "type", "param", "code"}
    message: str = error["message"]
    return message


def test_a_file_is_stored_line_by_line_and_shown_as_the_reference_does(door: Gateway) -> None:
    content = line("a") + b"\n" + line("b", OTHER) + b"\n"
    answer = upload(door, content)
    assert answer.status_code == 201
    shown = answer.json()
    assert list(shown) == ["id", "object", "bytes", "created_at", "filename", "purpose", "status", "expires_at"]  # fmt: skip
    assert (shown["object"], shown["bytes"], shown["filename"]) == (
        "file",
        len(content),
        "input.jsonl",
    )
    assert (shown["purpose"], shown["status"]) == ("batch", "processed")
    assert shown["expires_at"] - shown["created_at"] == 30 * DAY
    assert abs(shown["created_at"] - time.time()) < 30
    file = door.one("SELECT * FROM fusillade.files WHERE id = %s", shown["id"])
    assert (file.uploaded_by, file.purpose, file.size_bytes) == (
        str(door.alice.id),
        "batch",
        len(content),
    )
    key = door.one("SELECT * FROM api_keys WHERE id = %s", file.api_key_id)
    assert (key.hidden, key.purpose, key.created_by) == (True, "batch", door.alice.id)
    stored = templates(door, shown["id"])
    assert [(t.custom_id, t.model, t.line_number, t.path, t.method, t.single) for t in stored] == [
        ("a", MODEL, 0, "/v1/chat/completions", "POST", False),
        ("b", OTHER, 1, "/v1/chat/completions", "POST", False),
    ]
    assert all(t.body_byte_size == len(t.body) and t.api_key == "" for t in stored)
    models = door.all(
        "SELECT model, requests, bytes FROM fusillade.file_models WHERE file_id = %s ORDER BY model",
        shown["id"],
    )
    assert models == [(t.model, 1, len(t.body)) for t in stored]
    assert door.all("SELECT 1 FROM fusillade.uploads") == []


ODD_BODIES = {
    "numbers beyond 64 bits": b'{"model": "fine", "messages": [], "seed": 123456789012345678901234567890}',
    "members twice": b'{"model":"fine","messages":[],"top_p":0.1,"top_p":0.9}',
    "blanks and a tab": b'{ "model" :\t"fine", "messages":[  ] }',
    "backslashes": rb'{"model":"fine","messages":[{"role":"user","content":"a\\n\t\\N \u0000 C:\\x"}]}',
    "any script": '{"model":"fine","messages":[{"role":"user","content":"日本語 ñ 🙂"}]}'.encode(),
    "an end like that of copied data": rb'{"model":"fine","messages":[{"role":"user","content":"\\."}]}',
}


def test_bodies_are_kept_to_the_byte(door: Gateway) -> None:
    content = b"\n".join(
        b'{"custom_id":"%d","method":"post","url":"/v1/chat/completions","body":%s}' % (n, body)
        for n, body in enumerate(ODD_BODIES.values())
    )
    answer = upload(door, content)
    assert answer.status_code == 201, answer.text
    stored = templates(door, answer.json()["id"])
    assert [t.body.encode() for t in stored] == list(ODD_BODIES.values())
    assert {t.method for t in stored} == {"post"}


def test_priority_is_taken_out_and_nothing_else(door: Gateway) -> None:
    body = b'{"model":"fine","priority":1,"seed":123456789012345678901,"messages":[{"role":"user","content":"priority"}]}'
    given = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":%s}' % body
    (stored,) = templates(door, upload(door, given).json()["id"])
    assert stored.body.encode() == body.replace(b'"priority":1,', b"")


AS_PEOPLE_MAKE_THEM = {
    "byte order mark": b"\xef\xbb\xbf" + line("a") + b"\n" + line("b") + b"\n",
    "CRLF": line("a") + b"\r\n" + line("b") + b"\r\n",
    "blank lines": b"\n" + line("a") + b"\n \t\r\n\n" + line("b") + b"\n\n\n",
    "no last newline": line("a") + b"\n" + line("b"),
    "members in another order, and more of them": b'{"body":{"messages":[],"model":"fine"},"x":[1],"url":"/v1/chat/completions","method":"POST","custom_id":"a"}\n'
    + line("b"),
}


@pytest.mark.parametrize("content", AS_PEOPLE_MAKE_THEM.values(), ids=AS_PEOPLE_MAKE_THEM)
def test_files_as_people_make_them_are_taken(door: Gateway, content: bytes) -> None:
    answer = upload(door, content)
    assert answer.status_code == 201, answer.text
    assert answer.json()["bytes"] == len(content)
    assert [t.custom_id for t in templates(door, answer.json()["id"])] == ["a", "b"]


def test_a_file_and_a_request_may_be_packed(door: Gateway) -> None:
    content = lines(3000)
    packed = gzip.compress(content)
    for name in ("input.jsonl.gz", "input.jsonl"):
        answer = upload(door, packed, name=name)
        assert (answer.status_code, answer.json()["bytes"]) == (201, len(content))
    assert len(templates(door, answer.json()["id"])) == 3000
    assert "not gzip" in said(upload(door, content, name="input.jsonl.gz"))
    assert "damaged" in said(upload(door, packed[:-20]))
    form = requests.Request(
        "POST", door.url, files={"file": ("a", lines(2))}, data={"purpose": "batch"}
    ).prepare()
    assert isinstance(form.body, bytes)
    headers = door.alice.authorization | {
        "content-type": form.headers["content-type"],
        "content-encoding": "gzip",
    }
    url = f"{door.url}/ai/v1/files"
    answer = requests.post(url, gzip.compress(form.body), headers=headers, timeout=30)
    assert answer.status_code == 201, answer.text
    answer = requests.post(
        url, form.body, headers=headers | {"content-encoding": "rot13"}, timeout=30
    )
    assert "rot13" in said(answer, 415)
    answer = requests.post(url, form.body, headers=headers, timeout=30)
    assert "Content-Encoding" in said(answer)


def test_fields_may_stand_anywhere_and_say_when_the_file_expires(door: Gateway) -> None:
    parts = [
        ("unknown", (None, "x")),
        ("file", ("named.jsonl", line())),
        ("expires_after[anchor]", (None, "created_at")),
        ("expires_after[seconds]", (None, "7200")),
        ("other", ("other.bin", b"\n" * 100_000)),
        ("purpose", (None, "batch")),
    ]
    url, headers = f"{door.url}/ai/v1/files", door.alice.authorization
    answer = requests.post(url, files=parts, headers=headers, timeout=30)
    assert answer.status_code == 201, answer.text
    shown = answer.json()
    assert (shown["filename"], shown["expires_at"] - shown["created_at"]) == ("named.jsonl", 7200)
    answer = requests.post(url, files=[("file", (None, line()))], headers=headers, timeout=30)
    assert answer.json()["filename"] == f"upload-{answer.json()['id']}"


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "File contains no valid request templates"),
    "blank": (b"\n \r\n", 400, "File contains no valid request templates"),
    "not JSON": (b"not json\n", 400, "Invalid JSON on line 1: "),
    "a field is missing": (b'{"custom_id": "a"}\n', 400, "Invalid JSON on line 1: Object missing required field `method`"),
    "unknown model": (line(model="nowhere"), 403, "Line 1: Model 'nowhere' has not been configured or is not available to user"),
    "model of another kind": (line(model=EMBED), 400, f"Line 1: Model '{EMBED}' is a EMBEDDINGS model but endpoint '/v1/chat/completions' requires a CHAT model"),
    "path": (line(url="/v1/other"), 400, "Line 1: Unsupported URL path '/v1/other'. Allowed paths are: /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses"),
    "method": (line(method="GET"), 400, "Line 1: Unsupported HTTP method 'GET'. Only POST is currently supported."),
    "custom_id": (line("x" * 65), 400, "Line 1: custom_id exceeds maximum length of 64 characters (got 65)"),
    "repeated custom_id, blank lines counted": (line("a") + b"\n\n\n" + line("b") + b"\n" + line("a"), 400, "Line 5: custom_id 'a' is already used on line 1"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "status", "message"), REFUSED.values(), ids=REFUSED)
def test_a_refused_file_leaves_nothing(
    door: Gateway, content: bytes, status: int, message: str
) -> None:
    before = door.one("SELECT count(*) FROM fusillade.files").count
    assert said(upload(door, content), status).startswith(message)
    assert door.one("SELECT count(*) FROM fusillade.files").count == before


def test_repeats_in_a_long_file_are_told_with_both_lines(door: Gateway) -> None:
    """Longer than what is remembered, and with blank lines, so that numbers and lines differ."""
    count = 60_000
    text = b"\n\n" + lines(count)
    answer = upload(door, text + line("line-59990") + b"\n\n" + line("line-7") + b"\nbad\n")
    assert said(answer) == f"Line {count + 3}: custom_id 'line-59990' is already used on line 59993"
    assert [error["line"] for error in answer.json()["error"]["errors"]] == [
        count + 3,
        count + 5,
        count + 6,
    ]
    answer = upload(door, text)
    assert answer.status_code == 201, answer.text
    found = door.one(
        "SELECT count(*), count(DISTINCT id) AS ids, max(line_number) AS last FROM fusillade.request_templates WHERE file_id = %s",
        answer.json()["id"],
    )
    assert found == (count, count, count - 1)


def test_all_bad_lines_are_told_up_to_a_limit(door: Gateway) -> None:
    bad = b"".join(line(f"{n}", "nowhere") + b"\n" for n in range(50))
    answer = upload(door, line("x") + b"\n" + line("y", method="GET") + b"\n" + bad)
    assert said(answer).startswith("Line 2: Unsupported HTTP method")
    errors = answer.json()["error"]["errors"]
    assert [error["line"] for error in errors] == list(range(2, 22))
    assert errors[0] | {"message": ""} == {
        "line": 2,
        "field": "method",
        "code": "unsupported_method",
        "message": "",
    }
    assert errors[1]["field"] == "body.model"


def test_what_is_no_upload_is_refused(door: Gateway) -> None:
    url, headers = f"{door.url}/ai/v1/files", door.alice.authorization
    assert "Invalid `boundary`" in said(door.post("/files", {"file": "x"}))
    answer = requests.post(url, files={"purpose": (None, "batch")}, headers=headers, timeout=30)
    assert said(answer) == "No file field found in multipart upload"
    twice = [("file", ("a", line())), ("file", ("b", line("b")))]
    answer = requests.post(url, files=twice, headers=headers, timeout=30)
    assert "more than one part of the name `file`" in said(answer)
    for fields, message in (
        ({"purpose": "batch_output"}, "Invalid purpose 'batch_output'. Only 'batch' is supported."),
        ({"purpose": "fine-tune"}, "Invalid purpose 'fine-tune'. Only 'batch' is supported."),
        ({"expires_after[seconds]": "60"}, "must be a whole number from 3600 to 2592000"),
        ({"expires_after[seconds]": "soon"}, "must be a whole number"),
        ({"expires_after[anchor]": "last_active_at"}, "only 'created_at' is supported"),
    ):
        parts: Any = [("file", ("a", line())), *((k, (None, v)) for k, v in fields.items())]
        assert message in said(requests.post(url, files=parts, headers=headers, timeout=30))
        assert message in said(requests.post(url, files=parts[::-1], headers=headers, timeout=30))


def test_who_may_upload(door: Gateway) -> None:
    url = f"{door.url}/ai/v1/files"
    answer = requests.post(url, files={"file": ("a", line())}, timeout=30)
    assert said(answer, 401) == "Authentication required"
    name = unique("user")
    body = {"username": name, "email": f"{name}@x.example", "roles": ["StandardUser"]}
    id = door.admin("POST", "/users", body).json()["id"]
    key = door.admin("POST", f"/users/{id}/api-keys", {"name": "test"}).json()["key"]
    answer = requests.post(
        url,
        files={"file": ("a", line())},
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )
    assert said(answer, 403) == "Insufficient permissions to Create Files"


def test_a_model_that_was_granted_just_now_is_known(door: Gateway) -> None:
    alias = door.model("fine", alias=unique("fresh"), wait=False)
    assert upload(door, line(model=alias)).status_code == 201


def test_a_file_of_the_largest_size_is_taken_and_one_byte_more_is_not(door: Gateway) -> None:
    whole = lines(10_000)
    content = whole + line("pad", body={"user": ""})
    content = whole + line("pad", body={"user": "x" * (MAX_FILE - len(content))})
    assert len(content) == MAX_FILE
    answer = upload(door, content)
    assert answer.status_code == 201, answer.text
    assert len(templates(door, answer.json()["id"])) == 10_001
    message = f"File exceeds the maximum allowed size of {MAX_FILE} bytes"
    assert said(upload(door, content + b"\n"), 413) == message
    assert said(upload(door, content + b"\n" * 20_000), 413) == message
    assert said(upload(door, gzip.compress(content + b"\n")), 413) == message


def test_whoever_sends_all_first_sees_the_refusal(door: Gateway) -> None:
    """More than sockets hold, from a client that looks for an answer at the end only."""
    purpose = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    for refused in (BEGUN + b"bad\n" * 30, purpose + BEGUN):
        with raw(door, "Transfer-Encoding: chunked", b"") as connection:
            for piece in (refused, *[b"x" * 2**20] * 40):
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            connection.sendall(b"0\r\n\r\n")
            assert status_of(connection)[0] == 400
    with raw(door, "Content-Length: 60000000\r\nExpect: 100-continue", b"") as connection:
        assert status_of(connection)[0] == 413


def raw(door: Gateway, head: str, body: bytes) -> socket.socket:
    """A connection on which this much of an upload was sent."""
    where = urlsplit(door.url)
    assert where.hostname
    assert where.port
    connection = socket.create_connection((where.hostname, where.port), timeout=30)
    connection.sendall(
        f"POST /ai/v1/files HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Authorization: Bearer {door.alice.key}\r\n{head}\r\n\r\n".encode()
        + body
    )
    return connection


def status_of(connection: socket.socket) -> tuple[int, bytes]:
    received = b""
    with connection:
        while piece := connection.recv(65536):
            received += piece
            if b"\r\n\r\n" in received:
                break
    return int(received.split(b" ")[1]), received


BEGUN = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def test_what_does_not_come_to_its_end_leaves_nothing(door: Gateway, sql: Any) -> None:
    content = BEGUN + lines(5000)
    before = door.one("SELECT count(*) FROM fusillade.files").count
    stalled = raw(door, "Content-Length: 2000000", content)
    eventually(lambda: door.all("SELECT 1 FROM fusillade.uploads WHERE NOT abandoned"))
    raw(door, "Content-Length: 2000000", content).close()
    cut = raw(door, f"Content-Length: {len(content)}", content)
    assert status_of(cut)[0] == 400
    assert status_of(stalled)[0] == 408
    eventually(
        lambda: (
            not door.all("SELECT 1 FROM fusillade.uploads WHERE NOT abandoned")
            and len(door.all("SELECT 1 FROM fusillade.uploads")) >= 2
        )
    )
    assert door.one("SELECT count(*) FROM fusillade.files").count == before
    while purged(sql):
        pass
    assert orphans(door) == []


def test_an_upload_that_was_given_up_is_not_continued(door: Gateway, sql: Any) -> None:
    """What a process that was taken for dead learns when it goes on. What a dead one left is purged in the same way."""
    content = BEGUN + lines(5000)
    end = b"\r\n--b--\r\n"
    slow = raw(door, f"Content-Length: {len(content + end)}", content)
    eventually(lambda: door.all("SELECT 1 FROM fusillade.uploads"))
    eventually(lambda: purged(sql) == 0 and not door.all("SELECT 1 FROM fusillade.uploads"))
    slow.sendall(end)
    status, answer = status_of(slow)
    assert status == 503, answer
    assert b"upload_interrupted" in answer
    while purged(sql):
        pass
    assert orphans(door) == []


def purged(sql: Any) -> int:
    """Lines of uploads that were given up, or are silent."""
    found: int = sql.execute("SELECT fusillade.purge_uploads(0, 3000)").fetchone()[0]
    return found


def orphans(door: Gateway) -> list[Any]:
    return door.all(
        "SELECT 1 FROM fusillade.request_templates t WHERE NOT single AND NOT EXISTS"
        " (SELECT FROM fusillade.files f WHERE f.id = t.file_id) LIMIT 1"
    )


def test_uploads_beyond_the_slots_wait_and_those_beyond_the_queue_are_refused(
    door: Gateway,
) -> None:
    holders = [raw(door, "Content-Length: 100000", BEGUN) for _ in range(2)]
    answers: list[requests.Response] = []
    time.sleep(0.2)
    waiting = threading.Thread(target=lambda: answers.append(upload(door, lines(10))))
    waiting.start()
    time.sleep(0.3)
    refused = upload(door, lines(10))
    assert said(refused, 429) == "Too many file uploads in progress. Please retry later."
    assert refused.headers["Retry-After"] == "30"
    assert refused.json()["error"]["retry_after_seconds"] == 30
    for holder in holders:
        holder.close()
    waiting.join(20)
    assert [answer.status_code for answer in answers] == [201]
