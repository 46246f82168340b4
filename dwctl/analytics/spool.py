"""Records on disk while the database is away: one file for each process, fsynced before a caller is answered.

A line is `{"kind":"open" | "final" | "withdraw","record":{...}}`. The owner holds a lock (flock) on its file for as long as it lives, so a sibling
that gets the lock has found an orphan, and adopts it. File names carry a digest of the database's address: processes of two
deployments that share a machine never drain each other's.

What is in a file up to its last good end is whole lines. A write that fails in the middle (the disk is full) is cut back to there; where
even that fails the file is left as it is, and the next line goes to another one. Only a kill can leave a torn line, as the last of its
file: its caller got no answer. How far a file was drained stands beside it (`.drained`): what is drained twice changes nothing, but
costs time. The folder and the files are ours alone: bodies are in them, and what is in them is charged.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from gevent import monkey
from gevent.lock import BoundedSemaphore

from dwctl.analytics import spool_folder
from dwctl.config import ConfigError, Settings
from dwctl.db import identity_of
from dwctl.threads import in_files

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Line:
    """A record in a file: its kind, its JSON text, and the offset at which its line ends. An unreadable line has the kind "unreadable"."""

    kind: str
    record: bytes
    end: int


class _Spooled(msgspec.Struct):
    kind: str
    record: msgspec.Raw


_read = msgspec.json.Decoder(_Spooled).decode
_UNREADABLE = "unreadable"
_allocate_lock = monkey.get_original("_thread", "allocate_lock")


class Spool:
    """The spool files of one database on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own: SpoolFile | None = None
        # A file that is taken is read to its end, closed and removed: nobody may be in the middle of writing to it.
        self._writing = BoundedSemaphore()

    @cached_property
    def folder(self) -> Path:
        """Where the files lie; made when it is first needed."""
        try:
            return spool_folder.of(self._settings)
        except ConfigError as error:
            raise OSError(str(error)) from error  # as any other disk that refuses

    @cached_property
    def _prefix(self) -> str:
        database = identity_of(self._settings.database.url or "")
        return hashlib.sha256(database.encode()).hexdigest()[:12] + "-"

    @property
    def pending_bytes(self) -> int:
        """Size of what waits to be drained here, of this process and of dead ones."""
        total = 0
        for path in self._paths():
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def append(self, lines: Iterable[tuple[str, bytes]]) -> None:
        """Write and fsync (kind, record), in a native thread so that the loop goes on. Raises OSError when the disk refuses: then none is in it."""
        with self._writing:
            if self._own is None:
                self._own = SpoolFile.create(self.folder, self._prefix)
            own = self._own
            try:
                _wait_for(own.append, list(lines))
            except OSError:
                if own.is_torn:
                    self._own = None
                    own.release()
                raise

    def take_own(self) -> SpoolFile | None:
        """This process's file, to be drained, once what is being written is in it; later lines go to a new one."""
        with self._writing:
            own, self._own = self._own, None
            return own

    def adopt(self) -> Iterator[SpoolFile]:
        """Files whose process is gone; each is locked for the one that drains it."""
        for path in self._paths():
            if self._own is None or path != self._own.path:
                orphan = SpoolFile.lock(path)
                if orphan is not None:
                    yield orphan

    def reject(self, kind: str, record: bytes, reason: str) -> None:
        """Set a record aside that the database refuses for good, so that it does not hold up the others."""
        path = self.folder / f"{self._prefix}rejected.jsonl"
        head = msgspec.json.encode({"reason": reason, "kind": kind})
        _wait_for(_append_to, path, head + b"\n" + record + b"\n")
        log.error("record set aside", extra={"file": str(path), "reason": reason})

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self._prefix}*.spool"))


class SpoolFile:
    """One locked file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.is_torn = False
        """Its end is not that of a line, and could not be mended: nothing may be appended."""
        self._descriptor = descriptor
        # A greenlet that is killed while it waits for its native thread leaves that one writing.
        self._lock = _allocate_lock()
        self._good_end = os.fstat(descriptor).st_size

    @classmethod
    def create(cls, folder: Path, prefix: str) -> SpoolFile:
        """A new file, locked before anybody can take it for an orphan."""
        path = folder / f"{prefix}{uuid4().hex}.spool"
        hidden = path.with_suffix(".new")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(hidden, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            hidden.rename(path)
            _sync_folder(folder)
        except OSError:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    @classmethod
    def lock(cls, path: Path) -> SpoolFile | None:
        """The file, if its owner is gone, and it is ours and a file."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(descriptor)
            # Another one may have drained and removed it between the listing and the lock.
            if found.st_nlink:
                if spool_folder.is_our_file(found):
                    return cls(path, descriptor)
                log.error("spool file is not ours, left alone", extra={"file": str(path)})
        except OSError:
            pass
        os.close(descriptor)
        return None

    def append(self, lines: list[tuple[str, bytes]]) -> None:
        """Write and fsync; all of it or, with an OSError, nothing. For a native thread: it waits for another one that writes."""
        with self._lock:
            self._append(lines)

    def _append(self, lines: list[tuple[str, bytes]]) -> None:
        if self.is_torn:
            raise OSError("the end of the spool file is torn")
        try:
            for kind, record in lines:
                _write_all(self._descriptor, b'{"kind":"%b","record":' % kind.encode())
                _write_all(self._descriptor, record)
                _write_all(self._descriptor, b"}\n")
            os.fsync(self._descriptor)
        except OSError:
            self._cut_back()
            raise
        self._good_end = os.fstat(self._descriptor).st_size

    def lines(self) -> Iterator[Line]:
        """What is in it and was not drained before, in its order."""
        end = self._drained()
        with self.path.open("rb") as file:
            file.seek(end)
            for text in file:
                end += len(text)
                try:
                    entry = _read(text)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    yield Line(_UNREADABLE, text.rstrip(b"\n"), end)
                else:
                    yield Line(entry.kind, bytes(entry.record), end)

    def mark(self, end: int) -> None:
        """All up to this offset is in the database. (Not fsynced: a mark that is lost costs time only.)"""
        beside = self._mark_path.with_suffix(".mark")
        beside.write_text(str(end))
        beside.rename(self._mark_path)

    def remove(self) -> None:
        """Everything in it is in the database."""
        self.path.unlink(missing_ok=True)
        self._mark_path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def release(self) -> None:
        """Leave it for the next one that tries."""
        os.close(self._descriptor)

    @property
    def _mark_path(self) -> Path:
        return self.path.with_suffix(".drained")

    def _drained(self) -> int:
        try:
            end = int(self._mark_path.read_text())
        except (OSError, ValueError):
            return 0
        return end if 0 <= end <= os.fstat(self._descriptor).st_size else 0

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._descriptor, self._good_end)
            os.fsync(self._descriptor)
        except OSError:
            self.is_torn = True


def _wait_for(function: Callable[..., None], *arguments: Any) -> None:
    """Run it in a native thread. (Its error is carried out of there: a pool of threads prints the stack of what is raised in it.)"""
    fault = in_files(_fault_from, function, arguments)
    if fault is not None:
        raise fault


def _fault_from(function: Callable[..., None], arguments: tuple[Any, ...]) -> OSError | None:
    try:
        function(*arguments)
    except OSError as error:
        return error
    return None


def _append_to(path: Path, text: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        _write_all(descriptor, text)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, text: bytes) -> None:
    left = memoryview(text)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
