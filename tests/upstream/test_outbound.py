"""Sessions of `requests` that call only what their policy allows, at the very address that was judged."""

from __future__ import annotations

import _socket
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from dwctl.upstream import outbound
from dwctl.upstream.addresses import Policy, Purpose
from dwctl.upstream.errors import AddressNotAllowed
from tests import certificates

PUBLIC, PRIVATE = (Policy(Purpose.IMAGES, reach) for reach in ("public", "private"))


class Told(BaseHTTPRequestHandler):
    """Answers with the Host header that it was asked by."""

    def do_GET(self) -> None:
        said = self.headers["Host"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Told) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


class Names:
    """The system's resolver, which gives these answers to look-ups of `*.test`, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[list[str]] = []
        self._real = _socket.getaddrinfo
        monkeypatch.setattr(_socket, "getaddrinfo", self._getaddrinfo)

    def _getaddrinfo(self, host: str, port: int, *more: Any) -> Any:
        if not str(host).endswith(".test"):
            return self._real(host, port, *more)
        if more[-1] & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "no number")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in self.answers.pop(0)]  # fmt: skip


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.0.0.1"])  # fmt: skip
def test_however_an_address_is_spelt_it_is_judged(server: ThreadingHTTPServer, host: str) -> None:
    url = f"http://{host}:{server.server_port}/"
    with outbound.session(PUBLIC) as asking, pytest.raises(AddressNotAllowed):
        asking.get(url, timeout=5)
    with outbound.session(PRIVATE) as asking:
        assert asking.get(url, timeout=5).ok


@pytest.mark.parametrize("host", ["[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[64:ff9b::7f00:1]"])
def test_an_address_within_an_address_is_judged(host: str) -> None:
    with outbound.session(PUBLIC) as asking, pytest.raises(AddressNotAllowed):
        asking.get(f"http://{host}:9/", timeout=5)


def test_a_name_is_looked_up_once_and_the_call_goes_where_it_led(
    server: ThreadingHTTPServer, names: Names
) -> None:
    names.answers = [["127.0.0.1"]]  # a second look-up would fail the test
    url = f"http://rebinding.test:{server.server_port}/"
    with outbound.session(PRIVATE) as asking:
        assert asking.get(url, timeout=5).text == f"rebinding.test:{server.server_port}"
    names.answers = [["127.0.0.1", "169.254.169.254"]]
    with outbound.session(PUBLIC) as asking, pytest.raises(AddressNotAllowed):
        asking.get(url, timeout=5)


def test_the_next_address_is_tried_and_none_that_is_not_allowed(
    server: ThreadingHTTPServer, names: Names
) -> None:
    # Whatever connected to the second one would fail the test: it is not on this machine.
    names.answers = [["127.0.0.2", "169.254.169.254", "127.0.0.1"]]
    with outbound.session(PRIVATE) as asking:
        assert asking.get(f"http://several.test:{server.server_port}/", timeout=5).ok


def test_a_proxy_that_is_set_is_not_asked_about_addresses_that_are_refused(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "")
    with outbound.session(PUBLIC) as asking, pytest.raises(AddressNotAllowed):
        asking.get("http://10.0.0.1/", timeout=5)


def test_redirects_are_judged_too(names: Names) -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        with outbound.session(PRIVATE) as asking, pytest.raises(AddressNotAllowed):
            asking.get(f"http://127.0.0.1:{running.server_port}/", timeout=5)
        running.shutdown()


def test_a_certificate_is_for_the_name_not_for_the_address(names: Names, tmp_path: Path) -> None:
    chain = certificates.for_localhost(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with ThreadingHTTPServer(("127.0.0.1", 0), Told) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        with outbound.session(PRIVATE) as asking:
            asking.verify = str(chain)
            assert asking.get(f"https://localhost:{running.server_port}/", timeout=5).ok
            names.answers = [["127.0.0.1"]]
            with pytest.raises(requests.exceptions.SSLError):
                asking.get(f"https://other.test:{running.server_port}/", timeout=5)
        running.shutdown()


def test_a_proxy_of_the_environment_is_used_where_a_setting_says_so(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with outbound.session(PRIVATE, use_environment_proxies=True) as asking:
        assert asking.get("http://inside.test/", timeout=5).text == "inside.test"
    with outbound.session(PRIVATE) as asking, pytest.raises(requests.ConnectionError):
        asking.get("http://inside.invalid/", timeout=5)
