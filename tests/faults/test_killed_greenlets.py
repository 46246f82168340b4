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


@pytest.mark.skipif(sys.platform != "linux", reason="stops a server process by a signal")
def test_a_killed_greenlet_ends_whatever_the_database_was_doing(database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, database_url],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout == "well\n", done.stderr
