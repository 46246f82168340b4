"""Finds the objects of a synchronisation, a page at a time; what a dead worker has found is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dwctl.config import Settings
from dwctl.db import Connections
from dwctl.errors import DwctlError
from dwctl.sources.browsing import is_file, within
from dwctl.sources.jobs import MOST_TRIES, QUERIES, ClaimLost, Listing, reason, wait_s
from dwctl.sources.open_sources import OpenSources
from dwctl.sources.provider import ObjectAbsent, Source, SourceError, SourceObject

_PAGE = 250
_KEYS_AT_ONCE = 20
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class _Found:
    """A page: objects, keys that lead to none, and how far the listing has come."""

    objects: Sequence[SourceObject]
    absent: Sequence[tuple[str, str]]
    listed_to: str


class _TooMany(SourceError):
    code = "too_many_objects"
    retryable = False


def carry_out(
    connections: Connections, settings: Settings, sources: OpenSources, job: Listing
) -> None:
    """List what there is (left) to list. Raises ClaimLost, DatabaseAway."""
    try:
        source = sources.of(job.connection_id, job.provider, job.config_sealed)
        keys = job.file_keys
        pages = _listed(source, job.listed_to) if keys is None else _looked_up(source, job, keys)
        for page in pages:
            _add(connections, settings.connections.sync.max_objects, job, page)
        with connections.transaction() as connection:
            values = {"sync_id": job.id, "claim": job.claim}
            if connection.execute(QUERIES["end_listing"], values).rowcount == 0:
                raise ClaimLost
    except DwctlError as error:
        if not isinstance(error, SourceError) and error.retryable:
            raise  # the database's
        _give_up(connections, settings, job, error)


def _listed(source: Source, after: str | None) -> Iterator[_Found]:
    while True:
        with within(_PATIENCE_S):
            page = source.page(after, _PAGE)
        if page.objects:
            # A text of PostgreSQL has no NUL; nor has any name that somebody would want.
            files = [item for item in page.objects if is_file(item.key) and "\0" not in item.key]
            last = page.objects[-1].key.replace("\0", "")
            yield _Found(files, (), last)
        if page.next is None:
            return
        after = page.next


def _looked_up(source: Source, job: Listing, keys: Sequence[str]) -> Iterator[_Found]:
    done = int(job.listed_to or 0)
    while done < len(keys):
        objects: list[SourceObject] = []
        absent: list[tuple[str, str]] = []
        some = keys[done : done + _KEYS_AT_ONCE]
        for key in some:
            with within(_PATIENCE_S):
                try:
                    objects.append(source.find(key))
                except ObjectAbsent as error:
                    absent.append((key, error.message))
        done += len(some)
        yield _Found(objects, absent, str(done))


def _add(connections: Connections, most: int, job: Listing, page: _Found) -> None:
    missing = len(page.absent)
    values = {
        "sync_id": job.id,
        "claim": job.claim,
        "connection_id": job.connection_id,
        "force": job.force,
        "keys": [*(item.key for item in page.objects), *(key for key, _ in page.absent)],
        "modified": [*(item.last_modified for item in page.objects), *[None] * missing],
        "sizes": [*(item.size for item in page.objects), *[None] * missing],
        "etags": [*(item.etag for item in page.objects), *[None] * missing],
        "errors": [*[None] * len(page.objects), *(text for _, text in page.absent)],
        "listed_to": page.listed_to,
    }
    with connections.transaction() as connection:
        if connection.execute(QUERIES["hold_connection"], values).fetchone() is None:
            raise ClaimLost
        row = connection.execute(QUERIES["add_entries"], values).fetchone()
        if row is None:
            raise ClaimLost
        if row[0] > most:
            raise _TooMany(
                f"There are more than {most} files under the prefix: synchronise a part of them, by their keys or by a connection"
                " with a longer prefix"
            )


def _give_up(connections: Connections, settings: Settings, job: Listing, why: DwctlError) -> None:
    values = {"sync_id": job.id, "claim": job.claim, "error": reason(why.message)}
    with connections.transaction() as connection:
        if why.retryable and job.attempts + 1 < MOST_TRIES:
            values["wait_s"] = wait_s(settings, job.attempts)
            connection.execute(QUERIES["put_listing_off"], values)
        elif connection.execute(QUERIES["fail_sync"], values).fetchone():
            connection.execute(QUERIES["drop_entries"], values)
