"""What a caller sees of a source while they wait: whether it can be read, and its files by page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dwctl.patience import Patience
from dwctl.sources.provider import Source, SourceError, SourceObject

_SEARCHED = 10_000
"""Objects that one call looks at for those that it is asked for."""
_PAGE = 250


@dataclass(frozen=True, slots=True)
class Found:
    """Some objects, and behind which key to go on."""

    data: list[SourceObject]
    next_cursor: str | None

    @property
    def has_more(self) -> bool:
        """Whether there may be more."""
        return self.next_cursor is not None


def is_file(key: str) -> bool:
    """Whether a synchronisation of everything takes it."""
    return key.endswith((".jsonl", ".jsonl.gz"))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Whatever a source does, its caller is answered by then. Raises SourceError."""
    patience = Patience(seconds)
    try:
        with patience:
            yield
    except Patience as error:
        if error is not patience:
            raise
        raise SourceError("the source did not answer in time") from error


def find_files(source: Source, after: str | None, search: str | None, limit: int) -> Found:
    """Up to `limit` files behind a key whose keys contain a text; fewer when too many others lie between. Raises SourceError."""
    found: list[SourceObject] = []
    wanted = (search or "").strip().lower()
    for _ in range(_SEARCHED // _PAGE):
        page = source.page(after, _PAGE)
        for item in page.objects:
            if not is_file(item.key) or wanted not in item.key.lower():
                continue
            if len(found) == limit:
                return Found(found, found[-1].key)
            found.append(item)
        after = page.next
        if after is None:
            return Found(found, None)
    return Found(found, after)
