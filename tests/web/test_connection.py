"""What a connection does when the network, the process or the access log gets in its way; on a pair of sockets, without a server."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket

from dwctl.config import RequestLimits
from dwctl.web.connection import Connection
from dwctl.web.head import Head
from dwctl.web.peers import Peers
from dwctl.web.responses import Writer

ASK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
AWAIT = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"


class House:
    """The smallest that a connection can live in."""

    def __init__(self) -> None:
        self.alive = True
        self.door = None
        self.environ: dict[str, Any] = {}
        self.keepalive_s = 5.0
        self.limits = RequestLimits()
        self.peers = Peers()
        self.logs_access = True
        self.logged: list[str] = []
        self.wsgi: Callable[..., Iterable[bytes]] = answer

    def count(self) -> None: ...

    def access(self, head: Head, writer: Writer, environ: dict[str, Any], took_s: float) -> None:
        self.logged.append(writer.status.split()[0])


def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    environ["wsgi.input"].read()
    start_response("200 OK", [("content-length", "2")])
    return [b"ok"]


@pytest.fixture
def pair() -> Iterator[tuple[Any, Any]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def serve(house: House, client: Any) -> gevent.Greenlet:
    def run() -> None:
        Connection(house, client, "", "", "").serve()

    return gevent.spawn(run)


class Failing:
    """A socket on which one call fails as the network may make it fail."""

    def __init__(self, client: Any, call: str, code: int) -> None:
        def fail(*_arguments: object) -> None:
            raise OSError(code, "so says the network")

        self._client = client
        inner = client._sock
        self._sock = SimpleNamespace(**{"recv": inner.recv, "send": inner.send, call: fail})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.mark.parametrize("code", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ECONNRESET])
@pytest.mark.parametrize("call", ["recv", "send"])
def test_whatever_the_network_says_the_caller_has_left(
    pair: tuple[Any, Any], call: str, code: int, caplog: pytest.LogCaptureFixture
):
    ours, theirs = pair
    theirs.send(ASK)
    with caplog.at_level(logging.WARNING):
        serve(House(), Failing(ours, call, code)).get(timeout=5)
    # Greenlets of modules before may still have something to say.
    assert not [record for record in caplog.records if record.name.startswith("dwctl.web")]


def test_a_caller_who_leaves_before_any_answer_has_no_line_in_the_access_log(pair: tuple[Any, Any]):
    ours, theirs = pair
    house = House()
    theirs.send(AWAIT)
    theirs.close()
    serve(house, ours).get(timeout=5)
    assert house.logged == []


def test_a_killed_connection_ends_as_one_that_was_killed(pair: tuple[Any, Any]):
    ours, theirs = pair
    house = House()
    house.wsgi = lambda *_: gevent.sleep(60)  # type: ignore[assignment,return-value]
    theirs.send(ASK)
    serving = serve(house, ours)
    gevent.sleep(0.05)
    serving.kill(timeout=5)
    assert isinstance(serving.value, gevent.GreenletExit)


def test_an_answer_that_begins_while_the_process_ends_promises_no_other(pair: tuple[Any, Any]):
    ours, theirs = pair
    house = House()

    def told_to_end(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        house.alive = False
        return answer(environ, start_response)

    house.wsgi = told_to_end
    theirs.send(ASK)
    serve(house, ours).get(timeout=5)
    assert b"\r\nConnection: close\r\n" in theirs.recv(4096)
    assert house.logged == ["200"]
