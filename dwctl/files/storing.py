"""Where the lines of one upload go while they come: into the database, some at a time, unseen until the file has its row.

    lines -> rows (text of COPY) -> a slice of some megabytes -> one transaction for each slice -> `finish`: the last slice and the file's own row

No transaction is open while more lines are waited for: a slice is stored while the next one fills. What is not finished is purged by a duty
(`fusillade.purge_uploads`), whatever happens to this process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

import gevent
import msgspec
import orjson
import psycopg
from gevent.lock import BoundedSemaphore

from dwctl import sql
from dwctl.db import Connections
from dwctl.errors import Unavailable
from dwctl.files.lines import Line
from dwctl.queue import identifiers

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.files")
_SLICE_BYTES = 4 * 1024 * 1024
_LARGE_BYTES = 256 * 1024
"""Bodies of that size are not copied once more to stand in one piece with other rows."""
_IDS_AT_ONCE = 20_000
_AT_ONCE = BoundedSemaphore(2)
"""Slices that one process stores at the same time: each takes a connection of the pool."""


class FileHead(msgspec.Struct, frozen=True):
    """What is known of a file before its lines. owner: as `files.uploaded_by` has it. api_key_id: of the hidden key of its maker."""

    id: UUID
    name: str
    owner: str
    api_key_id: UUID | None
    expires_after_s: int
    source_connection_id: UUID | None = None
    source_external_key: str | None = None


class StoredFile(msgspec.Struct, frozen=True):
    """A file that is there. size_bytes: as uploaded, unpacked."""

    head: FileHead
    size_bytes: int
    requests: int
    created_at: datetime
    expires_at: datetime


class Interrupted(Unavailable):
    """The upload took too long to be continued. Try again."""

    code = "upload_interrupted"


class Store:
    """The lines of one file. Add them in their order, then `finish`; else `abandon`."""

    def __init__(self, connections: Connections, id: UUID, lines_at_once: int) -> None:
        self.requests = 0
        self._connections = connections
        self._id = id
        self._lines_at_once = lines_at_once
        # A line's id is the file's with the line's number in its last digits: all but those stand in each row.
        self._id_prefix = identifiers.line_id(id, 0).hex[:24]
        self._file_column = id.hex
        self._rows: list[bytes] = []
        self._lines = 0
        self._bytes = 0
        self._begun = False
        self._storing: gevent.Greenlet | None = None
        self._counted: dict[tuple[str, str], _Counted] = {}

    def add(self, line: Line) -> None:
        """Store a line, soon. Waits only where the database is slower than the lines come. Raises DatabaseAway, Interrupted."""
        size = len(line.body)
        counted = self._counted.get((line.model, line.path))
        if counted is None:
            counted = _Counted(_escaped(line.model))
            self._counted[line.model, line.path] = counted
        counted.requests += 1
        counted.bytes += size
        head = (
            f"{self._id_prefix}{self.requests:08x}\t{self.requests}\t{_escaped(line.custom_id)}\t{line.path}"
            f"\t{counted.escaped}\t{size}\t{line.method}\t{self._file_column}\t\t"
        )
        # Put together when the slice is sent: formatting bytes would cost more than all the rest.
        self._rows += (head.encode(), _escaped_bytes(line.body), b"\n")
        self._bytes += len(head) + size
        self._lines += 1
        self.requests += 1
        if self._bytes >= _SLICE_BYTES or self._lines >= self._lines_at_once:
            self.flush()

    def flush(self) -> None:
        """Begin to store what has been added."""
        self._wait()
        rows, self._rows = self._rows, []
        self._lines = self._bytes = 0
        if rows:
            self._storing = gevent.spawn(_outcome, self._store, rows)

    def ids(self) -> Iterator[tuple[int, str]]:
        """The custom ids of all lines that were added, with the number of each (from 0 on)."""
        self.flush()
        self._wait()
        first = 0
        while True:
            values = {"file": self._id, "first": first, "most": _IDS_AT_ONCE}
            with self._connections.transaction() as connection:
                found = connection.execute(_QUERIES["stored_ids"], values).fetchall()
            yield from found
            if len(found) < _IDS_AT_ONCE:
                return
            first = found[-1][0] + 1

    def finish(self, head: FileHead, size_bytes: int) -> StoredFile:
        """The file is complete: from here on it is there. Raises DatabaseAway, Interrupted."""
        self._wait()
        given = {
            "id": str(head.id),
            "name": head.name,
            "size_bytes": size_bytes,
            "owner": head.owner,
            "api_key_id": head.api_key_id and str(head.api_key_id),
            "source_connection_id": head.source_connection_id and str(head.source_connection_id),
            "source_external_key": head.source_external_key,
            "expires_after_s": head.expires_after_s,
        }
        models = [
            {"model": alias, "path": path, "requests": counted.requests, "bytes": counted.bytes}
            for (alias, path), counted in sorted(self._counted.items())
        ]
        rows, self._rows = self._rows, []
        with _AT_ONCE, self._connections.transaction() as connection:
            self._continue(connection)
            self._copy(connection, rows)
            made_at, ends_at = connection.execute(
                "SELECT made_at, ends_at FROM fusillade.finish_upload(%s, %s)",
                (orjson.dumps(given).decode(), orjson.dumps(models).decode()),
            ).fetchone() or (None, None)
            if made_at is None or ends_at is None:
                raise Interrupted
        self._begun = False
        return StoredFile(head, size_bytes, self.requests, made_at, ends_at)

    def abandon(self) -> None:
        """Nothing of it is to stay. What cannot be said to the database now is found by the duty."""
        if self._storing is not None:
            self._storing.join()
        if not self._begun:
            return
        try:
            with self._connections.transaction() as connection:
                connection.execute("SELECT fusillade.abandon_upload(%s)", (self._id,))
        except (Unavailable, psycopg.Error):
            log.warning("an upload is left to be purged", extra={"file_id": str(self._id)})

    def _store(self, rows: list[bytes]) -> None:
        with _AT_ONCE, self._connections.transaction() as connection:
            # The last transaction of an upload waits for the disk, and so for all those before it.
            connection.execute("SET LOCAL synchronous_commit = off")
            self._continue(connection)
            self._copy(connection, rows)

    def _continue(self, connection: psycopg.Connection[Any]) -> None:
        if not self._begun:
            connection.execute("SELECT fusillade.begin_upload(%s)", (self._id,))
            self._begun = True
            return
        row = connection.execute("SELECT fusillade.continue_upload(%s)", (self._id,)).fetchone()
        if not (row and row[0]):
            raise Interrupted

    def _copy(self, connection: psycopg.Connection[Any], rows: list[bytes]) -> None:
        if not rows:
            return
        with connection.cursor() as cursor, cursor.copy(_QUERIES["copy_lines"]) as copy:
            for large, pieces in groupby(rows, lambda piece: len(piece) >= _LARGE_BYTES):
                for piece in pieces if large else (b"".join(pieces),):
                    copy.write(piece)

    def _wait(self) -> None:
        """Until the slice before is stored."""
        if self._storing is None:
            return
        # Whoever is killed while waiting leaves it to `abandon`.
        error = self._storing.get()
        self._storing = None
        if error is not None:
            raise error


class _Counted:
    """What of a file goes to one model. escaped: its alias as COPY wants it."""

    __slots__ = ("bytes", "escaped", "requests")

    def __init__(self, escaped: str) -> None:
        self.escaped = escaped
        self.requests = 0
        self.bytes = 0


def _escaped(text: str) -> str:
    r"""As COPY's text format has it. (A line has no line feed; `\N` cannot come out of this.)"""
    if "\\" in text or "\t" in text or "\r" in text:
        return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r")
    return text


def _escaped_bytes(text: bytes) -> bytes:
    """The same of a body."""
    text = text.replace(b"\\", b"\\\\")
    if b"\t" in text or b"\r" in text:
        return text.replace(b"\t", b"\\t").replace(b"\r", b"\\r")
    return text


def _outcome(function: Callable[[list[bytes]], None], rows: list[bytes]) -> Exception | None:
    """gevent prints whatever is raised in a greenlet, also where somebody expects it."""
    try:
        function(rows)
    except Exception as error:
        return error
    return None
