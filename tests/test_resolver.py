"""Look-ups of names: off the loop, each name once at a time, and never in the way of files."""

from __future__ import annotations

import _socket
import socket
import threading
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from dwctl import resolver, threads
from dwctl.upstream.addresses import Policy, Purpose
from dwctl.upstream.connections import default_tls_context, open_connection
from dwctl.upstream.errors import ConnectionFailed, Phase, Timeout
from dwctl.upstream.target import Origin

ANY = Policy(Purpose.ENDPOINTS, "any")


class System:
    """The system's resolver, as far as names under `.invalid` go: they keep it busy until `answer`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = threading.Event()
        self._real = _socket.getaddrinfo

    def getaddrinfo(self, host: str, port: int, *more: Any) -> Any:
        flags = more[-1]
        if flags & socket.AI_NUMERICHOST:
            return self._real(host, port, *more)
        self.asked.append(host)
        assert self.answer.wait(30)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    found = System()
    monkeypatch.setattr(_socket, "getaddrinfo", found.getaddrinfo)
    yield found
    found.answer.set()
    gevent.wait(list(resolver._running.values()), timeout=30)


def ask(name: str) -> str:
    try:
        resolver.addresses(name, 80, timeout_s=0.05)
    except OSError as error:
        return type(error).__name__
    return "found"


def test_those_who_ask_for_the_same_name_share_one_look_up(system: System):
    for _ in range(2):
        asking = [gevent.spawn(ask, "one.invalid") for _ in range(20)]
        gevent.joinall(asking)
        assert {each.value for each in asking} == {"LookupTimeout"}
    assert system.asked == ["one.invalid"]


def test_they_share_its_failure_too(system: System):
    asking = [gevent.spawn(resolver.addresses, "two.invalid", 80, timeout_s=30) for _ in range(3)]
    for each in asking:
        each.rawlink(lambda _: None)
    gevent.sleep(0.01)
    system.answer.set()
    gevent.joinall(asking)
    assert {type(each.exception) for each in asking} == {socket.gaierror}
    assert system.asked == ["two.invalid"]
    assert not resolver._running


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_while_every_thread_for_names_is_taken_numbers_files_and_hashes_go_on(
    system: System, host: str
):
    asking = [gevent.spawn(ask, f"{n}.invalid") for n in range(20)]
    gevent.joinall(asking)
    assert len(system.asked) == 8
    assert resolver.addresses(host, 80, timeout_s=30)[0][4][0] == host
    assert threads.in_files(threading.get_ident) != threading.get_ident()
    assert threads.in_hashes(len, "hash") == 4


def test_the_time_for_connecting_covers_the_look_up(system: System):
    origin = Origin("http", "three.invalid", 80)
    with pytest.raises(Timeout) as caught:
        open_connection(origin, connect_s=0.05, tls=default_tls_context, policy=ANY)
    assert caught.value.phase is Phase.CONNECT


def test_a_name_that_is_not_there_is_a_failed_connection(system: System):
    system.answer.set()
    with pytest.raises(ConnectionFailed):
        open_connection(
            Origin("http", "four.invalid", 80), connect_s=5, tls=default_tls_context, policy=ANY
        )


def test_what_a_thread_raises_comes_out_and_is_not_printed(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(ValueError, match="invalid literal"):
        threads.in_files(int, "no number")
    assert capfd.readouterr().err == ""


def test_a_loop_of_another_thread_has_threads_of_its_own():
    """gevent's pools belong to the loop that made them."""
    found: list[list[resolver.Address]] = []
    threads.in_names(int)
    other = threading.Thread(
        target=lambda: found.append(resolver.addresses("localhost", 80, timeout_s=30))
    )
    other.start()
    other.join(30)
    assert found
    assert found[0]


def test_what_a_thread_raises_reaches_its_caller_only(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(text: str) -> None:
        raise OSError(text)

    with pytest.raises(OSError, match="no such name"):
        threads.in_names(fail, "no such name")
    gevent.sleep(0.05)
    assert capfd.readouterr().err == ""
