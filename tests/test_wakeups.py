"""Notifications in a process of its own, as it runs in production (patched): with many descriptors, and behind transaction poolers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from tests.pooler import Pooler
from tests.processes import ROOT, eventually, free_port

PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")

LISTENER = """
from gevent import monkey; monkey.patch_all()
import json, logging, os, resource, sys, gevent
from dwctl import config
from dwctl.wakeups import Wakeups
above, environ = int(sys.argv[1]), json.loads(sys.argv[2])
if above:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(above)]
def say(*what):
    print(json.dumps(what), flush=True)
class Said(logging.Handler):
    def emit(self, record):
        say("log", record.getMessage())
logging.getLogger("dwctl.wakeups").addHandler(Said())
wakeups = Wakeups(config.load(environ), test_every_s=0.2, test_patience_s=1.0)
wakeups.subscribe("greeting", lambda payload: say("heard", payload), lambda: say("gap"))
wakeups.start()
before = None
while True:
    now = (wakeups.connected, wakeups.delivers, wakeups.deaf)
    if now != before:
        say("state", *now)
        before = now
    gevent.sleep(0.01)
"""


class Listener:
    """The process, and what it has said so far."""

    def __init__(self, folder: Path, environ: dict[str, str], descriptors: int = 0) -> None:
        self._output = folder / "output"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LISTENER, str(descriptors), json.dumps(environ)],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def said(self) -> list[list[Any]]:
        assert self.process.poll() is None, self._output.read_text()
        return [json.loads(line) for line in self._output.read_text().splitlines()]

    def wait_for(self, *what: Any, times: int = 1) -> None:
        eventually(lambda: self.said().count(list(what)) >= times)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def listen(tmp_path: Path, database_url: str) -> Iterator[Any]:
    started: list[Listener] = []

    def start(descriptors: int = 0, **environ: str) -> Listener:
        listener = Listener(tmp_path, {"DATABASE_URL": database_url, **environ}, descriptors)
        started.append(listener)
        return listener

    yield start
    for listener in started:
        listener.stop()


def notify(sql: psycopg.Connection[Any], text: str) -> None:
    sql.execute("SELECT pg_notify('greeting', %s)", (text,))


HEARS = ("state", True, True, False)
DEAF = ("state", True, False, True)


@pytest.mark.parametrize("descriptors", [0, 1500])
def test_others_are_heard_whatever_the_number_of_descriptors(
    listen: Any, sql: psycopg.Connection[Any], descriptors: int
):
    listener = listen(descriptors)
    listener.wait_for(*HEARS)
    for word in ("one", "two"):
        notify(sql, word)
        listener.wait_for("heard", word)
    assert not [said for said in listener.said() if said[0] == "log"]


def test_a_lost_connection_is_made_up_for_and_tested_anew(
    listen: Any, sql: psycopg.Connection[Any]
):
    listener = listen(1500)
    listener.wait_for(*HEARS)
    sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )
    listener.wait_for(*HEARS, times=2)
    listener.wait_for("gap", times=2)
    assert ["log", "listening stopped"] in listener.said()


def test_behind_a_pooler_a_process_knows_that_it_is_deaf_and_says_it_once(
    listen: Any, database_url: str
):
    with Pooler(database_url) as pooler:
        listener = listen(DATABASE_URL=pooler.url, DWCTL_DATABASE__PREPARED_STATEMENTS="false")
        listener.wait_for(*DEAF)
        pooler.transparent = True
        listener.wait_for(*HEARS)
        listener.wait_for("gap", times=2)  # what was said meanwhile
        pooler.transparent = False
        listener.wait_for(*DEAF, times=2)
        logs = [said[1] for said in listener.said() if said[0] == "log"]
        assert logs == [
            "notifications do not arrive",
            "notifications arrive again",
            "notifications do not arrive",
        ]


def test_a_direct_url_leads_around_a_pooler(
    listen: Any, database_url: str, sql: psycopg.Connection[Any]
):
    with Pooler(database_url) as pooler:
        listener = listen(DATABASE_URL=pooler.url, DWCTL_DATABASE__DIRECT_URL=database_url)
        listener.wait_for(*HEARS)
        notify(sql, "hello")
        listener.wait_for("heard", "hello")


@pytest.fixture
def pgbouncer(database_url: str) -> Iterator[str]:
    """A URL through the real thing, in transaction mode."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed")
    parts = urlsplit(database_url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    name, port = parts.path[1:], free_port()
    server = f"host={query['host']} port={query['port']} user={parts.username} password={parts.password or ''}"
    folder = Path(tempfile.mkdtemp(prefix="dwctl-test-"))
    folder.chmod(0o755)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n{name} = {server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        "unix_socket_dir =\nauth_type = any\npool_mode = transaction\n"
    )
    command = [PGBOUNCER, str(settings)]
    if os.getuid() == 0:
        # It refuses to run as root; the server's socket is its own account's.
        command[1:1] = ["-u", Path(query["host"]).owner()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"postgresql://{parts.username}@127.0.0.1:{port}/{name}"

    def answers() -> bool:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        eventually(answers)
        yield url
    finally:
        process.kill()
        process.wait(10)
        shutil.rmtree(folder)


def test_behind_pgbouncer_a_process_knows_that_it_is_deaf(listen: Any, pgbouncer: str):
    listener = listen(DATABASE_URL=pgbouncer, DWCTL_DATABASE__PREPARED_STATEMENTS="false")
    listener.wait_for(*DEAF)
    assert list(HEARS) not in listener.said()
