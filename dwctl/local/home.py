"""The folder where `dwctl up` keeps what must outlive it.

lock          held by flock while `dwctl up` runs; says which process that is, and where it answers
postgres/     the database, where no other is named (see `postgres`)
secret_key    made at the first start; 0600, as are all secrets here
demo_api_key  of `dwctl up --demo`
spool/        records that wait for the database
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dwctl.local.postgres import EmbeddedPostgres, PostgresUnavailable


class HomeUnavailable(Exception):
    """The data folder cannot be used; the message says why, and what to do instead."""


class Home:
    """One such folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().resolve()
        self.postgres = EmbeddedPostgres(self.folder / "postgres")
        self.spool = self.folder / "spool"

    @contextmanager
    def occupied(self, address: str) -> Iterator[None]:
        """Make the folder and hold it for one `dwctl up`, which will answer at `address`. Raises HomeUnavailable."""
        with self._open_lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HomeUnavailable(
                    f"dwctl is running on {self.folder} already ({lock.read().strip()}). "
                    "Stop it, or choose another folder with --data-dir."
                ) from None
            lock.truncate()
            lock.write(f"process {os.getpid()}, {address}\n")
            lock.flush()
            yield

    def secret_key(self) -> str:
        """The key that seals credentials and sessions; made when it is first wanted."""
        return self.kept("secret_key") or self.keep("secret_key", secrets.token_urlsafe(32))

    def kept(self, name: str) -> str | None:
        """What was kept under this name."""
        try:
            return (self.folder / name).read_text("utf-8").strip() or None
        except FileNotFoundError:
            return None

    def keep(self, name: str, secret: str) -> str:
        """Keep a secret for later starts. The file is whole or not there."""
        unfinished = self.folder / f"{name}.new"
        unfinished.unlink(missing_ok=True)
        with open(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(self.folder / name)
        return secret

    def running_environment(self) -> dict[str, str]:
        """What another command needs to work on the database that runs here; empty when none runs, or for another user."""
        try:
            if not self.postgres.running():
                return {}
            found = {"DATABASE_URL": self.postgres.start()}
            if secret_key := self.kept("secret_key"):
                found["DWCTL_SECRET_KEY"] = secret_key
        except (OSError, PostgresUnavailable):
            return {}
        return found

    def _open_lock(self) -> IO[str]:
        try:
            self._make()
            return os.fdopen(os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600), "r+")
        except OSError as error:
            raise HomeUnavailable(
                f"The data folder {self.folder} cannot be used: {error.strerror}. "
                "Choose another one with --data-dir."
            ) from error

    def _make(self) -> None:
        """For root a folder that others can pass through: PostgreSQL will not run as root."""
        mode = 0o711 if os.geteuid() == 0 else 0o700
        for folder in (*reversed(self.folder.parents), self.folder):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                folder.chmod(mode)
        if mode == 0o711 and not any(self.folder.iterdir()):
            self.folder.chmod(mode)
