"""A greenlet that is killed while it talks to the database ends: its loop must not take the kill for an outage and go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
from gevent import monkey; monkey.patch_all()
import os, signal, sys
import gevent, psycopg
from sqlalchemy import create_engine
from dwctl.db import Connections, DatabaseAway, sqlalchemy_url

engine = create_engine(sqlalchemy_url(sys.argv[1]), pool_size=1, pool_pre_ping=True)
connections = Connections(engine)
began = []

def for_ever(statement):
    while True:
        try:
            with connections.transaction() as connection:
                began.append(connection.info.backend_pid)
                connection.execute(statement)
        except (DatabaseAway, psycopg.Error):
            gevent.sleep(0.01)

def killed(greenlet):
    with gevent.Timeout(5):
        greenlet.kill()
    return greenlet.dead

# In the middle of a statement.
loop = gevent.spawn(for_ever, "SELECT pg_sleep(60)")
while not began:
    gevent.sleep(0.01)
gevent.sleep(0.05)
assert killed(loop), "statement"

# While a connection is taken: the server does not answer the ping.
with connections.transaction() as connection:
    pid = connection.info.backend_pid
os.kill(pid, signal.SIGSTOP)
loop = gevent.spawn(for_ever, "SELECT 1")
gevent.sleep(0.2)
assert killed(loop), "ping"
os.kill(pid, signal.SIGCONT)

# A time-out is a time-out, not an outage; and the pool is whole.
try:
    with gevent.Timeout(0.1), connections.transaction() as connection:
        connection.execute("SELECT pg_sleep(60)")
except gevent.Timeout:
    with connections.transaction() as connection:
        connection.execute("SELECT 1")
    print("well")
"""

TIDYING_UP = """
from gevent import monkey; monkey.patch_all()
import logging, os, signal, sys
import gevent
from sqlalchemy import create_engine
from dwctl.db import Connections, sqlalchemy_url
from dwctl.pool import Pool

logging.basicConfig(level=logging.WARNING)
engine = create_engine(sqlalchemy_url(sys.argv[1]), poolclass=Pool, pool_size=1, max_overflow=0, pool_timeout=2)
connections = Connections(engine)

class Nothing(Exception):
    pass

def in_a_savepoint(stop):
    with connections.transaction() as connection, connection.transaction():
        connection.execute("SELECT 1")
        with connection.transaction():
            stop()
            connection.execute("SELECT 1")

def making_a_savepoint(stop):
    with connections.transaction() as connection:
        connection.execute("SELECT 1")
        stop()
        with connection.transaction():
            pass

def in_a_rollback(stop):
    with connections.transaction() as connection:
        connection.execute("SELECT 1")
        stop()
        raise Nothing

def in_the_rollback_of_a_moment(stop):
    with connections.moment() as connection:
        connection.execute("SELECT 1")
        stop()
        raise Nothing

def in_a_copy(stop):
    with connections.transaction() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE lines (line text) ON COMMIT DROP")
        with cursor.copy("COPY lines FROM STDIN") as copy:
            stop()
            while True:
                copy.write(b"line\\n" * 100_000)

def between_statements(stop):
    with connections.transaction() as connection:
        connection.execute("SELECT 1")
        stop()
        gevent.sleep(60)

def loop(work, stop):
    while True:
        try:
            work(stop)
        except Exception:
            gevent.sleep(0.01)

for work in (in_a_savepoint, making_a_savepoint, in_a_rollback, in_the_rollback_of_a_moment, in_a_copy, between_statements):
    with connections.transaction() as connection:
        pid = connection.info.backend_pid
    killed = gevent.spawn(loop, work, lambda: os.kill(pid, signal.SIGSTOP))
    try:
        gevent.sleep(0.3)
        with gevent.Timeout(5):
            killed.kill()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert killed.dead, work
    with connections.transaction() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,), work

# What is wrong is told, though the connection broke before the rollback.
with connections.transaction() as connection:
    pid = connection.info.backend_pid
try:
    with connections.transaction() as connection:
        connection.execute("SELECT 1")
        os.kill(pid, signal.SIGTERM)
        gevent.sleep(0.3)
        raise Nothing
except Nothing:
    with connections.transaction() as connection:
        connection.execute("SELECT 1")
    print("well")
"""


def run(script: str, database_url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, database_url],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="stops a server process by a signal")
def test_a_killed_greenlet_ends_whatever_the_database_was_doing(database_url: str) -> None:
    done = run(SCRIPT, database_url)
    assert done.stdout == "well\n", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="stops a server process by a signal")
def test_a_kill_leaves_nothing_half_done_on_a_connection(database_url: str) -> None:
    done = run(TIDYING_UP, database_url)
    assert done.stdout == "well\n", done.stderr
    assert "already in progress" not in done.stderr
    assert "Traceback" not in done.stderr
