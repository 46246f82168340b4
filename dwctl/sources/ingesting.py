"""Makes a file of an object while its bytes come.

Lines are judged as those of uploads are, but for their `url`, in whose place the synchronisation's endpoint stands. A line that an upload would
refuse is left out and noted; the object fails where none is left, or where it cannot be read as a whole.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from dwctl.config import Settings
from dwctl.db import Connections, DatabaseAway
from dwctl.errors import DwctlError
from dwctl.files import intake, models
from dwctl.files.codings import plain_file
from dwctl.files.intake import Limits, Taken
from dwctl.files.lines import LineError, Rules
from dwctl.files.storing import FileHead
from dwctl.printable import printable
from dwctl.sources import jobs
from dwctl.sources.jobs import MOST_TRIES, QUERIES, Ingest
from dwctl.sources.open_sources import OpenSources
from dwctl.sources.provider import SourceObject
from dwctl.sources.reading import chunks_of

_TOLD_LINES = 1000
_LONGEST_NAME = 255
_WAITS_WHILE_READING = 10
"""How many times shorter waits are where reading goes on, than where it begins again."""


def carry_out(
    connections: Connections, settings: Settings, sources: OpenSources, job: Ingest
) -> None:
    """Read the object and store its lines. Raises ClaimLost, DatabaseAway."""
    if _is_there(connections, job):
        return
    try:
        taken = _take_in(connections, settings, sources, job)
    except DatabaseAway:
        raise
    except DwctlError as error:
        _give_up(connections, settings, job, error)
        return
    _ingested(connections, job, taken.file.requests, taken.wrong, taken.errors)


def _take_in(
    connections: Connections, settings: Settings, sources: OpenSources, job: Ingest
) -> Taken:
    source = sources.of(job.connection_id, job.provider, job.config_sealed)
    wanted = SourceObject(
        job.external_key,
        job.external_size_bytes,
        job.external_last_modified,
        job.external_etag,
    )
    name = printable(job.external_key.rsplit("/", 1)[-1], _LONGEST_NAME)
    with connections.transaction() as connection:
        usable = models.usable_by(connection, job.owner_id)
    rules = Rules(
        models=usable,
        paths=settings.batches.allowed_url_paths,
        strict=settings.onwards.strict_mode,
        max_body_size=settings.limits.requests.max_body_size,
        max_requests=settings.limits.files.max_requests_per_file,
        endpoint=job.endpoint,
    )
    files = settings.batches.files
    limits = Limits(settings.connections.sync.max_object_size, _TOLD_LINES, files.batch_insert_size)
    heading = partial(_heading, connections, job, name, files.default_expiry_seconds)
    wait_s = settings.connections.sync.retry_wait / _WAITS_WHILE_READING
    pieces = plain_file(chunks_of(source, wanted, wait_s), name)
    return intake.take_in(connections, pieces, heading, rules, limits, tolerant=True)


def _heading(
    connections: Connections, job: Ingest, name: str, expires_after_s: int, file_id: UUID
) -> FileHead:
    """All lines have come: the file's id is written down before there is a file, so that a second try finds the first one's."""
    with connections.transaction() as connection:
        jobs.change(connection, "announce_file", job, file_id=file_id)
    return FileHead(
        id=file_id,
        name=name,
        owner=str(job.owner_id),
        api_key_id=job.api_key_id,
        expires_after_s=expires_after_s,
        source_connection_id=job.connection_id,
        source_external_key=job.external_key,
    )


def _is_there(connections: Connections, job: Ingest) -> bool:
    """Whether an earlier try has made the file, and died before it could say so."""
    if job.file_id is None:
        return False
    with connections.transaction() as connection:
        row = connection.execute(QUERIES["known_file"], {"file_id": job.file_id}).fetchone()
    if row is None:
        return False
    _ingested(connections, job, row[0], 0, ())
    return True


def _ingested(
    connections: Connections,
    job: Ingest,
    requests: int,
    wrong: int,
    errors: tuple[LineError, ...],
) -> None:
    with connections.transaction() as connection:
        jobs.change(
            connection,
            "ingested",
            job,
            requests=requests,
            invalid_lines=wrong,
            line_errors=_noted(errors),
        )
        jobs.count(connection, job.sync_id, ingested=1)


def _noted(errors: tuple[LineError, ...]) -> Any:
    """Bad lines as they are kept, None where there are none."""
    noted = [
        {"line": error.line, "error": jobs.reason(error.message)}
        for error in errors
        if error.line is not None
    ]
    return Jsonb(noted) if noted else None


def _give_up(connections: Connections, settings: Settings, job: Ingest, why: DwctlError) -> None:
    if why.retryable and job.attempts + 1 < MOST_TRIES:
        jobs.put_off(connections, settings, job, why.message)
        return
    told = [
        {"line": line["line"], "error": jobs.reason(line["message"])}
        for line in why.members.get("errors", ())
        if line["line"] is not None
    ]
    jobs.fail(
        connections,
        job,
        why.message,
        invalid_lines=len(told) or None,
        line_errors=Jsonb(told) if told else None,
    )
