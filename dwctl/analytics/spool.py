"""Records on disk while the database is away: one file for each process, fsynced before a caller is answered.

A line is `{"kind": "open" | "final", "record": {...}}`. The owner holds a lock (flock) on its file for as long as it lives, so a sibling
that gets the lock has found an orphan, and adopts it. File names carry a digest of the database's address: processes of two
deployments that share a machine never drain each other's. A line that was cut by a crash is skipped: its caller got no answer.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import orjson
from gevent import get_hub

from dwctl.config import Settings
from dwctl.db import identity_of

log = logging.getLogger(__name__)

Line = tuple[str, bytes]
"""Kind (`open`, `final`) and record, a JSON text."""


class Spool:
    """The spool files of one database on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own: SpoolFile | None = None

    @cached_property
    def folder(self) -> Path:
        """Where the files lie; made when it is first needed."""
        return folder_of(self._settings)

    @cached_property
    def _prefix(self) -> str:
        database = identity_of(self._settings.database.url or "")
        return hashlib.sha256(database.encode()).hexdigest()[:12] + "-"

    @property
    def pending_bytes(self) -> int:
        """Size of what waits to be drained here, of this process and of dead ones."""
        return sum(path.stat().st_size for path in self._paths() if path.exists())

    def append(self, lines: Iterable[Line]) -> None:
        """Write and fsync, in a native thread so that the loop goes on. Raises OSError when the disk refuses."""
        if self._own is None:
            self._own = SpoolFile.create(self.folder, self._prefix)
        get_hub().threadpool.apply(self._own.append, (list(lines),))

    def take_own(self) -> SpoolFile | None:
        """This process's file, to be drained; later lines go to a new one."""
        own, self._own = self._own, None
        return own

    def adopt(self) -> Iterator[SpoolFile]:
        """Files whose process is gone; each is locked for the one that drains it."""
        for path in self._paths():
            if self._own is None or path != self._own.path:
                orphan = SpoolFile.lock(path)
                if orphan is not None:
                    yield orphan

    def reject(self, line: Line, reason: str) -> None:
        """Set a record aside that the database refuses for good, so that it does not hold up the others."""
        path = self.folder / f"{self._prefix}rejected.jsonl"
        with path.open("ab") as file:
            file.write(orjson.dumps({"reason": reason, "kind": line[0]}) + b"\n" + line[1] + b"\n")
        log.error("record set aside", extra={"file": str(path), "reason": reason})

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self._prefix}*.spool"))


class SpoolFile:
    """One locked file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def create(cls, folder: Path, prefix: str) -> SpoolFile:
        """A new file, locked before anybody can take it for an orphan."""
        path = folder / f"{prefix}{uuid4().hex}.spool"
        hidden = path.with_suffix(".new")
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        hidden.rename(path)
        _sync_folder(folder)
        return cls(path, descriptor)

    @classmethod
    def lock(cls, path: Path) -> SpoolFile | None:
        """The file, if its owner is gone."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another one may have drained and removed it between the listing and the lock.
            if os.fstat(descriptor).st_nlink:
                return cls(path, descriptor)
        except OSError:
            pass
        os.close(descriptor)
        return None

    def append(self, lines: list[Line]) -> None:
        text = b"".join(b'{"kind":"%b","record":%b}\n' % (k.encode(), r) for k, r in lines)
        while text:
            text = text[os.write(self._descriptor, text) :]
        os.fsync(self._descriptor)

    def lines(self) -> Iterator[Line]:
        """What is in it, from the beginning."""
        with self.path.open("rb") as file:
            for text in file:
                try:
                    entry = orjson.loads(text)
                    yield entry["kind"], orjson.dumps(entry["record"])
                except (ValueError, KeyError, TypeError):
                    log.warning("spool line skipped", extra={"file": str(self.path)})

    def remove(self) -> None:
        """Everything in it is in the database."""
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def release(self) -> None:
        """Leave it for the next one that tries."""
        os.close(self._descriptor)


def folder_of(settings: Settings) -> Path:
    """Where spool files lie: `recorder.spool_dir`, else the user's state folder, else (not writable) the temporary one."""
    given = settings.recorder.spool_dir
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    for folder in (Path(given),) if given else (Path(state, "dwctl", "spool"), Path(tempfile.gettempdir(), "dwctl-spool")):  # fmt: skip
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise OSError(f"recorder.spool_dir: {given or state} is not writable")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
