"""How answers leave the server: the head together with the first of the body, whatever the framing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi

from dwctl.web import server


class Client:
    """The other side, as far as an answer sees it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.received.append(data)


def answer(client: Client, *headers: tuple[str, str], method: str = "POST") -> Any:
    request = SimpleNamespace(version=(1, 1), method=method, should_close=lambda: False)
    made = wsgi.Response(request, client, Config())
    made.start_response("200 OK", list(headers))
    return made


def test_gunicorn_makes_its_answers_with_ours():
    assert wsgi.Response is server._Response


def test_the_head_leaves_with_a_body_of_known_length():
    client = Client()
    made = answer(client, ("content-length", "5"))
    made.write(b"hello")
    made.close()
    (whole,) = client.received
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"hello"


def test_the_head_leaves_with_the_first_chunk_and_not_again():
    client = Client()
    made = answer(client)
    for piece in (b"one", b"two"):
        made.write(piece)
    made.close()
    first, second, end = client.received
    assert first.endswith(b"\r\n\r\n3\r\none\r\n")
    assert second == b"3\r\ntwo\r\n"
    assert end == b"0\r\n\r\n"


def test_a_large_body_is_not_copied_for_the_sake_of_its_head():
    client = Client()
    large = b"x" * 100_000
    answer(client, ("content-length", str(len(large)))).write(large)
    assert [len(piece) for piece in client.received[1:]] == [len(large)]


@pytest.mark.parametrize(("method", "body"), [("HEAD", b"hello"), ("POST", b"")])
def test_a_head_without_a_body_leaves_alone(method: str, body: bytes):
    client = Client()
    made = answer(client, ("content-length", str(len(body))), method=method)
    made.write(body)
    made.close()
    (head,) = client.received
    assert head.endswith(b"\r\n\r\n")


def test_nothing_leaves_of_an_answer_that_is_no_bytes():
    """Gunicorn can still say 500."""
    client = Client()
    made = answer(client)
    with pytest.raises(TypeError):
        made.write("text")
    assert not client.received
    assert not made.headers_sent
