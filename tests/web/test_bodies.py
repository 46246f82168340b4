"""How much of a body is read, of whom, and in which form: through a real process, byte by byte where that matters."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import orjson
import pytest
import requests
from flask.testing import FlaskClient

from tests.cast import Cast
from tests.gateway import Gateway

ADMIN_SIZE, SIGN_IN_SIZE = 2 * 1024 * 1024, 16 * 1024
GROUPS = "/admin/api/v1/groups"
SMALL = (
    "/authentication/login",
    "/authentication/register",
    "/authentication/logout",
    "/authentication/password-change",
    "/nothing",
    "/",
)
JSON = {"Content-Type": "application/json"}


def raw(stage: Gateway, head: str, *pieces: bytes) -> tuple[int, bytes]:
    """The status and the rest of the answer to these bytes; the connection is not closed by us."""
    address = urlsplit(stage.url)
    with socket.create_connection((address.hostname or "", address.port or 0), 20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        for piece in pieces:
            connection.sendall(piece)
        answer = connection.recv(65_536)
    return int(answer.split()[1]), answer


@pytest.mark.parametrize("path", SMALL)
def test_what_is_open_to_all_takes_small_bodies(stage: Gateway, path: str) -> None:
    head = f"POST {path} HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: "
    # Nothing of it is sent, and it is not waited for.
    status, answer = raw(stage, head + str(SIGN_IN_SIZE + 1))
    assert status == 413
    assert b'"payload_too_large"' in answer
    assert b"%d bytes" % SIGN_IN_SIZE in answer


def test_a_body_of_the_right_size_is_read(stage: Gateway) -> None:
    body = orjson.dumps({"email": "a@b.example", "password": "x"})
    for size, status in ((SIGN_IN_SIZE, 401), (SIGN_IN_SIZE + 1, 413)):
        answer = requests.post(
            f"{stage.url}/authentication/login", body.ljust(size), headers=JSON, timeout=20
        )
        assert answer.status_code == status, answer.text


def test_chunks_are_counted_as_they_come(stage: Gateway) -> None:
    head = "POST /authentication/login HTTP/1.1\nHost: x\nContent-Type: application/json\nTransfer-Encoding: chunked"
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    # The end never comes.
    status, answer = raw(stage, head, *[chunk] * 5)
    assert (status, b'"payload_too_large"' in answer) == (413, True), answer


def test_an_administrator_may_send_more(client: FlaskClient, cast: Cast) -> None:
    for size, status in ((ADMIN_SIZE, 422), (ADMIN_SIZE + 1, 413)):
        answer = client.post(GROUPS, data=b"{}".ljust(size), headers=Cast.headers("admin") | JSON)
        assert answer.status_code == status, answer.text


def test_nobodys_body_is_not_waited_for(stage: Gateway) -> None:
    """The caller is judged by the headers: 401 comes although the body does not."""
    for method, path in (("POST", GROUPS), ("POST", "/admin/api/v1/users"), ("PATCH", "/admin/api/v1/users/current"), ("POST", "/authentication/password-change"),
                         ("POST", "/admin/api/v1/transactions"), ("POST", "/admin/api/v1/ai/v1/chat/completions")):  # fmt: skip
        head = f"{method} {path} HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 10000"
        status, answer = raw(stage, head)
        assert status == (400 if path.endswith("users/current") else 401), answer


def test_who_may_not_is_told_before_the_body_is_read(stage: Gateway) -> None:
    user = f"x-doubleword-user: {stage.alice.email}"
    head = f"POST {GROUPS} HTTP/1.1\nHost: x\n{user}\nContent-Type: application/json\nContent-Length: 10000"
    assert raw(stage, head)[0] == 403


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, b"{}", 422),
        ({"Content-Type": "application/json; charset=utf-8"}, b"{}", 422),
        ({"Content-Type": "application/json; charset=UTF8"}, b"\xef\xbb\xbf{}", 422),
        ({"Content-Type": "application/merge-patch+json"}, b"{}", 422),
        ({"Content-Encoding": "identity"}, b"{}", 422),
        ({"Content-Type": "application/json; charset=utf-16"}, b"{\x00}\x00", 415),
        ({"Content-Type": "application/json; charset=latin-1"}, b"{}", 415),
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({"Content-Type": ""}, b"{}", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"name=x", 415),
        ({"Content-Encoding": "gzip"}, b"\x1f\x8b", 415),
        ({"Content-Encoding": "br, gzip"}, b"{}", 415),
        ({}, b"", 400),
        ({}, b" ", 400),
        ({}, b"{", 400),
        ({}, b"{}{}", 400),
        ({}, b"\xff\xfe{\x00}\x00", 400),
        ({}, b'{"name": "\xff"}', 400),
        ({}, b"[" * 30_000, 400),
        ({}, b"[" + b",".join([b"[]"] * 25_000) + b"]", 400),
        ({}, b"[]", 422),
        ({}, b"null", 422),
        ({}, b'"x"', 422),
        ({}, b"1", 422),
    ],
)  # fmt: skip
def test_a_body_is_json_in_utf_8(
    client: FlaskClient, cast: Cast, headers: dict[str, str], body: bytes, status: int
) -> None:
    sent = Cast.headers("admin") | JSON | headers
    answer = client.post(GROUPS, data=body, headers=sent)
    assert answer.status_code == status, answer.text
    assert answer.json["code"]
    assert answer.json["message"]


HEAVY = {
    "floats": b'{"amount": ' + b"[" + b",".join([b"1.25"] * 400_000) + b"]}",
    "one deep": b'{"name": ' + b"[" * 60 + b",".join([b"1.5"] * 400_000) + b"]" * 60 + b"}",
    "members": b"{" + b",".join(b'"k%d":1' % n for n in range(150_000)) + b"}",
    "texts": b'{"name": [' + b",".join([b'"x"'] * 400_000) + b"]}",
    "objects": b'{"tariffs": [' + b",".join([b"{}"] * 600_000) + b"]}",
    "one text": b'{"name": "' + b"x" * 2_000_000 + b'"}',
    "escapes": b'{"name": "' + b"\\u00fc" * 300_000 + b'"}',
    "digits": b'{"amount": 0.' + b"1" * 2_000_000 + b"}",
}


@pytest.mark.parametrize("path", ["/transactions", "/models", "/groups", "/endpoints", "/users"])
@pytest.mark.parametrize("what", HEAVY)
def test_the_largest_bodies_are_refused_before_much_is_made_of_them(client: FlaskClient, cast: Cast, path: str, what: str) -> None:  # fmt: skip
    assert len(HEAVY[what]) <= ADMIN_SIZE
    answer = client.post(f"/admin/api/v1{path}", data=HEAVY[what], headers=Cast.headers("admin") | JSON)  # fmt: skip
    assert answer.status_code in (400, 422), answer.text[:300]


# --- what goes out


def test_answers_about_an_account_are_kept_by_no_cache(client: FlaskClient, cast: Cast) -> None:
    who = Cast.headers("admin")
    for path in ("/admin/api/v1/users/current", "/admin/api/v1/groups", "/authentication/login", "/admin/api/v1/nothing", "/ai/v1/models", "/ai/v1/responses/x"):  # fmt: skip
        assert client.get(path, headers=who).headers["Cache-Control"] == "no-store", path
    made = client.post("/admin/api/v1/users/current/api-keys", json={"name": "x"}, headers=who)
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    assert client.get("//x").headers["Cache-Control"] == "no-store"


def test_nosniff_is_the_servers_and_said_once(client: FlaskClient) -> None:
    for path in ("/", "/healthz", "/nothing", "//nothing", "/ai/v1/models"):
        assert "X-Content-Type-Options" not in client.get(path).headers
