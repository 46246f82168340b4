"""An object's bytes from its beginning to its end, through failures of its source: reading goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import gevent

from dwctl.sources.provider import ObjectChanged, Source, SourceError, SourceObject

_TRIES = 4
"""In a row; bytes that came count as success once there are enough of them (`_PROGRESS`)."""
_PROGRESS = 1024 * 1024
_GRACE_S = 60.0
_LEAST_BYTES_PER_S = 4096


class Truncated(SourceError):
    """The source ended the object before its end."""

    code = "source_object_truncated"


class TooSlow(SourceError):
    """The source sends the object too slowly."""

    code = "source_too_slow"


def chunks_of(source: Source, wanted: SourceObject, wait_s: float) -> Iterator[bytes]:
    """The object as it was listed. Raises SourceError when a source fails again and again, or sends next to nothing.

    wait_s: before the first try after a failure; longer with each in a row.
    """
    offset, since, failures = 0, 0, 0
    rate = _Rate()
    while offset < wanted.size:
        try:
            with source.read(wanted, offset) as body:
                for chunk in rate.watch(body):
                    offset += len(chunk)
                    if offset > wanted.size:
                        raise ObjectChanged
                    yield chunk
            if offset < wanted.size:
                raise Truncated
        except SourceError as error:
            if offset - since >= _PROGRESS:
                failures = 0
            failures, since = failures + 1, offset
            if not error.retryable or failures >= _TRIES:
                raise
            gevent.sleep(wait_s * failures)


class _Rate:
    """Counts the time in which the source is waited for; what is done with its bytes takes the time that it takes."""

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._bytes = 0

    def watch(self, body: Iterator[bytes]) -> Iterator[bytes]:
        while True:
            began = monotonic()
            chunk = next(body, None)
            self._waited_s += monotonic() - began
            if chunk is None:
                return
            self._bytes += len(chunk)
            if self._waited_s > _GRACE_S and self._bytes < self._waited_s * _LEAST_BYTES_PER_S:
                raise TooSlow
            yield chunk
