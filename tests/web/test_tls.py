"""TLS of gunicorn's own, for who has no router in front."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.certificates import for_localhost
from tests.processes import GUNICORN, Process, eventually, free_port

APP = """
def app(environ, start_response):
    start_response("200 OK", [("content-length", "5")])
    return [b"hello"]
"""


LARGE = """
def app(environ, start_response):
    start_response("200 OK", [])
    return (b"x" * 1_000_000 for _ in range(40))
"""

QUICK = """
def post_worker_init(worker):
    from dwctl.config import RequestLimits
    from dwctl.web.peers import Peers

    worker.limits = RequestLimits(head_timeout=1, stalled_reader_timeout=1)
    worker.peers = Peers(connections_per_peer=3)
"""


@contextmanager
def serving(folder: Path, app: str, config: str = "") -> Iterator[tuple[int, ssl.SSLContext]]:
    """A port, and what a client needs to trust who listens there."""
    certificate = for_localhost(folder)
    (folder / "tls_app.py").write_text(app)
    (folder / "tls_config.py").write_text(config)
    port = free_port()
    command = [GUNICORN, "-c", str(folder / "tls_config.py"), "-k", "dwctl.web.server.Server"]
    command += ["--certfile", str(certificate), "--keyfile", str(certificate)]
    command += ["--no-control-socket", "-b", f"127.0.0.1:{port}", "tls_app:app"]
    process = Process(command, {"PYTHONPATH": str(folder)}, port)

    def listens() -> bool:
        assert process.lives, process.output()
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", port)) == 0

    try:
        assert eventually(listens, 10)
        yield port, ssl.create_default_context(cafile=str(certificate))
    finally:
        process.stop()


def test_our_worker_class_speaks_tls(tmp_path: Path) -> None:
    with serving(tmp_path, APP) as (port, _):
        pem = str(tmp_path / "localhost.pem")
        with requests.get(f"https://localhost:{port}/", verify=pem, timeout=10) as r:
            assert r.content == b"hello"


def test_who_never_begins_with_tls_is_counted_and_hung_up_on(tmp_path: Path) -> None:
    patient = QUICK.replace("head_timeout=1", "head_timeout=4")
    with serving(tmp_path, APP, patient) as (port, _):
        callers = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(4)]
        try:
            # The one that is too many at once, the others when their time is over.
            assert select.select(callers, [], [], 3.5)[0] == callers[3:]
            assert [caller.recv(100) for caller in callers] == [b""] * 4
        finally:
            for caller in callers:
                caller.close()


def test_who_reads_nothing_of_an_answer_over_tls_is_hung_up_on(tmp_path: Path) -> None:
    with serving(tmp_path, LARGE, QUICK) as (port, context):
        bare = socket.create_connection(("127.0.0.1", port), timeout=10)
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        with context.wrap_socket(bare, server_hostname="localhost") as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert caller.recv(100).startswith(b"HTTP/1.1 200 ")
            poll = select.poll()
            poll.register(caller, select.POLLERR)
            assert eventually(lambda: poll.poll(0), 10)


def test_a_large_answer_over_tls_arrives_in_full(tmp_path: Path) -> None:
    with serving(tmp_path, LARGE) as (port, _):
        pem = str(tmp_path / "localhost.pem")
        with requests.get(f"https://localhost:{port}/", verify=pem, timeout=20) as r:
            assert len(r.content) == 40_000_000
