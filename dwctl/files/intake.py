"""A file of requests, from the bytes that come to the row by which it is known: what uploads and external sources have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from uuid import UUID

import msgspec

from dwctl.clock import uuid7
from dwctl.db import Connections
from dwctl.errors import DwctlError
from dwctl.files.codings import too_large
from dwctl.files.custom_ids import CustomIds
from dwctl.files.lines import LineChecker, LineError, Rules, duplicate_error
from dwctl.files.storing import FileHead, Store, StoredFile
from dwctl.pace import Pace

_STEP_BYTES = 16 * 1024


class InvalidFile(DwctlError):
    """The file cannot be taken."""

    code = "invalid_file"
    status = 400

    def __init__(self, errors: list[LineError]) -> None:
        """`errors` in the order of the file; the first one is the answer, all are its `errors`."""
        first = errors[0]
        super().__init__(
            first.message,
            code=first.code,
            status=first.status,
            members={"errors": [_shown(error) for error in errors]},
        )


class Limits(msgspec.Struct, frozen=True):
    """max_bytes of the file (0: any), how many bad lines are told, how many lines are stored at once."""

    max_bytes: int
    most_errors: int
    lines_at_once: int


class Taken(msgspec.Struct, frozen=True):
    """A file that was taken in; errors and wrong are of lines that were left out, where that is tolerated."""

    file: StoredFile
    errors: tuple[LineError, ...] = ()
    wrong: int = 0


Heading = Callable[[UUID], FileHead]
"""Asked when all bytes have come; what it raises refuses the file."""


def take_in(
    connections: Connections,
    pieces: Iterable[bytes],
    heading: Heading,
    rules: Rules,
    limits: Limits,
    *,
    tolerant: bool = False,
) -> Taken:
    """Check and store a file while its bytes come. Raises InvalidFile, TooLarge, DatabaseAway, and what `pieces` and `heading` raise.

    Nothing is seen of the file before it is all there, and nothing stays of one that is refused. tolerant: bad lines are left out, if any is
    right; a repeated custom_id refuses the file all the same, since nobody could tell the answers apart.
    Memory: some slices of a few megabytes, and the longest line.
    """
    id = uuid7()
    ids = CustomIds()
    store = Store(connections, id, limits.lines_at_once)
    try:
        pace = Pace()
        checker = LineChecker(
            rules, ids, most_errors=limits.most_errors, tolerant=tolerant, rest=pace.rest
        )
        size = _feed(pieces, checker, store, limits.max_bytes, pace)
        errors, fatal = checker.errors, checker.fatal
        if not ids.is_complete:
            repeats = _repeats(ids, store, limits.most_errors)
            errors = sorted([*errors, *repeats], key=_place)[: limits.most_errors]
            fatal = fatal or next(iter(repeats), None)
        if tolerant and fatal is not None:
            raise InvalidFile([fatal])
        # What is said of the whole file (its name, its purpose) is judged after what it holds; with bad lines nothing is asked any more.
        if errors and not (tolerant and store.requests):
            raise InvalidFile(errors)
        stored = store.finish(heading(id), size)
    except BaseException:
        store.abandon()
        raise
    finally:
        ids.close()
    return Taken(stored, tuple(errors), checker.wrong)


def _feed(
    pieces: Iterable[bytes], checker: LineChecker, store: Store, most: int, pace: Pace
) -> int:
    """All lines of all pieces, until no further error would be told. Gives the bytes."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if most and size > most:
            raise too_large(most)
        # Thousands of blank lines are one step.
        for at in range(0, len(piece), _STEP_BYTES):
            for line in checker.feed(piece[at : at + _STEP_BYTES]):
                store.add(line)
                del line
                pace()
            pace()
        if checker.is_full:
            return size
    for line in checker.finish():
        store.add(line)
    return size


def _repeats(ids: CustomIds, store: Store, most: int) -> list[LineError]:
    """Lines whose custom_id an earlier one has: the first ones. Looks at ids again only where their hashes say that there may be some."""
    pace = Pace()
    suspects = ids.suspects(pace)
    found: list[LineError] = []
    first: dict[str, int] = {}
    if not suspects:
        return found
    for index, custom_id in store.ids():
        pace()
        if hash(custom_id) not in suspects:
            continue
        earlier = first.setdefault(custom_id, index)
        if earlier != index:
            found.append(duplicate_error(ids.number_of(index), ids.number_of(earlier), custom_id))
            if len(found) == most:
                break
    return found


def _place(error: LineError) -> int:
    return error.line or 2**62


def _shown(error: LineError) -> dict[str, object]:
    return {
        "line": error.line,
        "field": error.field,
        "code": error.code,
        "message": error.message,
    }
