"""What a provider of files must offer. A new one is a module like `s3.py` and a line in `providers.py`.

SourceError            may help to try again (`retryable`) or not; its message is for the connection's owner
  SourceRefused        the source said no: wrong credential, no such bucket, an address that may not be called
  ObjectAbsent         there is no such object (any more)
  ObjectChanged        it is not the object that was listed
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from dwctl.errors import DwctlError


class SourceError(DwctlError):
    """The source could not be read."""

    code = "source_unreachable"
    status = 502
    retryable = True


class SourceRefused(SourceError):
    """The source refused us."""

    code = "source_refused"
    retryable = False


class ObjectAbsent(SourceError):
    """There is no such object."""

    code = "source_object_absent"
    retryable = False


class ObjectChanged(SourceError):
    """The object was changed after it had been listed."""

    code = "source_object_changed"
    retryable = False


@dataclass(frozen=True, slots=True)
class SourceObject:
    """One file of a source, as it was when it was listed. `etag` names its content; a source without such names gives None."""

    key: str
    size: int
    last_modified: datetime
    etag: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Objects in the order of their keys. `next`: the key after which to go on, None at the end."""

    objects: Sequence[SourceObject]
    next: str | None


class Source(Protocol):
    """An open source. Its methods wait for somebody else's server: no transaction may be open. All raise SourceError."""

    def test(self) -> str:
        """Whether it can be read; what there is to say about it."""

    def page(self, after: str | None, limit: int) -> Page:
        """Up to `limit` objects under the prefix behind a key, whatever their names."""

    def find(self, key: str) -> SourceObject:
        """One object by its key. Raises ObjectAbsent."""

    def read(self, wanted: SourceObject, offset: int) -> AbstractContextManager[Iterator[bytes]]:
        """The object's bytes from an offset on, as they come. Raises ObjectAbsent, ObjectChanged."""

    def close(self) -> None:
        """Close its connections."""
