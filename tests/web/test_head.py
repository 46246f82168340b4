"""Heads as they come over a connection: what is read from them, and what is refused. The same cases through a real server: `tests/attack`."""

from __future__ import annotations

import pytest

from dwctl.errors import DwctlError
from dwctl.web import head as heads
from dwctl.web.head import Head


def read(text: str) -> Head:
    received = text.encode("latin-1")
    end = heads.end_of(received)
    assert end, "the head is not there in full"
    return heads.read(received, end)


def request(*lines: str, first: str = "POST /a?b=c HTTP/1.1", host: str | None = "x") -> str:
    fields = [*(() if host is None else (f"Host: {host}",)), *lines]
    return "".join(f"{line}\r\n" for line in (first, *fields)) + "\r\n"


def test_a_head_is_read_as_it_was_sent():
    found = read(request("X-One: 1", "x-ONE: 2", "Content-Length: 12", "a_b: c") + "the body")
    assert (found.method, found.target, found.path, found.query) == ("POST", "/a?b=c", "/a", "b=c")
    assert found.headers == [
        ("host", "x"),
        ("x-one", "1"),
        ("x-one", "2"),
        ("content-length", "12"),
    ]
    assert found.length == 12
    assert found.is_1_1
    assert found.keeps_alive
    assert not found.expects_continue


@pytest.mark.parametrize(
    ("text", "length"),
    [
        (request(), 0),
        (request("Content-Length: 0"), 0),
        (request("Content-Length: 007"), 7),
        (request("Transfer-Encoding: chunked"), None),
        (request("transfer-encoding: CHUNKED"), None),
    ],
)
def test_framing(text: str, length: int | None):
    assert read(text).length == length


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        (request(), True),
        (request("Connection: close"), False),
        (request("Connection: x, Close"), False),
        (request("Connection: x", "Connection: close"), False),
        (request("Connection: keep-alive"), True),
        (request(first="GET / HTTP/1.0"), False),
        (request("Connection: Keep-Alive", first="GET / HTTP/1.0"), True),
        (request("Connection: keep-alive, close", first="GET / HTTP/1.0"), False),
    ],
)
def test_who_may_go_on(text: str, keeps: bool):
    assert read(text).keeps_alive is keeps


@pytest.mark.parametrize(
    ("first", "path", "query", "host"),
    [
        ("GET http://other:81/a?b HTTP/1.1", "/a", "b", "other:81"),
        ("GET HTTP://other HTTP/1.1", "/", "", "other"),
        ("GET http://other?b HTTP/1.1", "/", "b", "other"),
        ("OPTIONS * HTTP/1.1", "*", "", "x"),
        ("GET //a//b HTTP/1.1", "//a//b", "", "x"),
        ("GET /a?b?c HTTP/1.1", "/a", "b?c", "x"),
        ("GET /\xe9 HTTP/1.1", "/\xe9", "", "x"),
    ],
)
def test_targets(first: str, path: str, query: str, host: str):
    found = read(request(first=first))
    assert (found.path, found.query) == (path, query)
    assert [value for name, value in found.headers if name == "host"] == [host]


@pytest.mark.parametrize("host", ["", "x", "x:", "x:80", "[::1]:80", "a_b", "1.2.3.4"])
def test_hosts(host: str):
    assert ("host", host) in read(request(host=host)).headers


def test_only_what_http_1_1_knows_is_expected():
    assert read(request("Expect: 100-Continue")).expects_continue
    assert not read(request("Expect: 100-continue", first="GET / HTTP/1.0")).expects_continue


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (request(host=None), 400),
        (request("Host: y"), 400),
        (request(host="a b"), 400),
        (request(host="a/b"), 400),
        (request(host="u@x"), 400),
        (request(host="x:80:80"), 400),
        (request(first="GET http:///a HTTP/1.1"), 400),
        (request(first="GET http://u@x/ HTTP/1.1"), 400),
        (request(first="GET ftp://x/ HTTP/1.1"), 400),
        (request(first="CONNECT x:80 HTTP/1.1"), 400),
        (request(first="GET * HTTP/1.1"), 400),
        (request(first="GET /a#b HTTP/1.1"), 400),
        (request(first="GET /a b HTTP/1.1"), 400),
        (request(first="GET  /a HTTP/1.1"), 400),
        (request(first="GET /a  HTTP/1.1"), 400),
        (request(first="GET\t/a\tHTTP/1.1"), 400),
        (request(first="GET /a"), 400),
        (request(first="get /a HTTP/1.1"), 400),
        (request(first="GET /a http/1.1"), 505),
        (request(first="GET /a HTTP/1.2"), 505),
        (request(first="GET /a HTTP/2.0"), 505),
        (request(first="PRI * HTTP/2.0"), 505),
        (request(" folded: yes"), 400),
        (request("\tfolded"), 400),
        (request("no colon"), 400),
        (request(": no name"), 400),
        (request("a : b"), 400),
        (request("a\x01: b"), 400),
        (request("a: b\x00c"), 400),
        (request("a: b\rc"), 400),
        (request("a: b\x7f"), 400),
        (request("a: b\nc: d"), 400),
        ("GET / HTTP/1.1\nHost: x\r\n\r\n", 400),
        (request("Content-Length: 1", "Content-Length: 1"), 400),
        (request("Content-Length: 1", "Content-Length: 2"), 400),
        (request("Content-Length: 1, 1"), 400),
        (request("Content-Length: +1"), 400),
        (request("Content-Length: -1"), 400),
        (request("Content-Length: 0x1"), 400),
        (request("Content-Length: 1 1"), 400),
        (request("Content-Length:"), 400),
        (request("Content-Length: \xb2"), 400),
        (request("Content-Length: 1" + "0" * 30), 400),
        (request("Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (request("Transfer-Encoding: chunked", first="POST / HTTP/1.0"), 400),
        (request("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
        (request("Transfer-Encoding: chunked, chunked"), 400),
        (request("Transfer-Encoding: gzip, chunked"), 501),
        (request("Transfer-Encoding: gzip", "Transfer-Encoding: chunked"), 501),
        (request(*["a: b"] * 2000), 431),
        (request("Transfer-Encoding: chunked, gzip"), 400),
        (request("Transfer-Encoding:"), 400),
        (request("Transfer-Encoding: identity"), 501),
        (request("Transfer-Encoding: xchunked"), 400),
        (request("Transfer-Encoding: \x0bchunked"), 400),
        (request("Authorization: Bearer a", "Authorization: Bearer b"), 400),
        (request("Content-Type: a/b", "Content-Type: c/d"), 400),
        (request("Expect: tea"), 417),
        (request(first="GET /" + "a" * 9000 + " HTTP/1.1"), 414),
        ("GET /" + "a" * 9000, 414),
        (request("a: " + "b" * 9000), 431),
        (request(*[f"a{n}: b" for n in range(101)]), 431),
        (request(*[f"a{n}: b" for n in range(2000)]), 431),
        (request(*["a: " + "b" * 8000 for _ in range(9)]), 431),
        ("GET / HTTP/1.1\r\n" + "a: b\r\n" * 12_000, 431),
        ("GET / HTTP/1.1\r\nHost: x\n", 400),
        ("\n", 400),
    ],
)  # fmt: skip
def test_what_two_readers_could_read_in_two_ways_is_refused(text: str, status: int):
    with pytest.raises(DwctlError) as refused:
        read(text)
    assert refused.value.status == status
    assert "sk-" not in refused.value.message


def test_a_head_is_waited_for():
    whole = request("a: b").encode()
    assert [heads.end_of(whole[:n]) for n in range(len(whole))] == [0] * len(whole)
    assert heads.end_of(whole) == len(whole)


def test_empty_lines_before_a_request_are_passed_over_but_not_for_ever():
    whole = request().encode()
    assert heads.without_blank_lines(b"\r\n\r\n" + whole) == whole
    assert heads.without_blank_lines(b"\r\n" * 5 + whole) != whole


@pytest.mark.parametrize(
    ("received", "path"),
    [(b"GET /ai/v1/x HTTP/9", "/ai/v1/x"), (b"GET", ""), (b"\x16\x03", ""), (b"", "")],
)
def test_the_path_of_what_is_no_request(received: bytes, path: str):
    assert heads.path_of(received) == path


def test_a_head_that_comes_byte_by_byte_is_judged_as_in_one_piece():
    """Also where a line ends just there."""
    whole = request("a: b").encode()
    assert not any(heads.end_of(whole[: n + 1], n) for n in range(len(whole) - 1))
    assert heads.end_of(whole, len(whole) - 1) == len(whole)
    bad = b"GET / HTTP/1.1\r\na: b\n"
    assert not any(heads.end_of(bad[: n + 1], n) for n in range(len(bad) - 1))
    with pytest.raises(DwctlError):
        heads.end_of(bad, len(bad) - 1)
