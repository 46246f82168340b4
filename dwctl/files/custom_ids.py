"""Whether a custom_id was there before, for tens of millions of lines in a few megabytes. Knows no database.

The first ids are remembered as they are, so that a repeat is known at once. Of a longer file only a hash of each id is kept, sorted in runs in
an unlinked temporary file; when all are there, equal hashes are looked for, range by range. Equal ids have equal hashes, so nothing is
missed; ids of equal hashes (once in 100,000 files of 20 million lines) are for the caller to compare.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import IO

from dwctl.errors import Unavailable

REMEMBERED = 50_000
_RUN = 32_768
_RANGES = 256
_AT_ONCE = 100_000
_MOST_SUSPECTS = 200_000
_WIDTH = 2**64 // _RANGES
_BOUNDS = [index * _WIDTH - 2**63 for index in range(_RANGES)]


class CustomIds:
    """Add every id of a file; then ask for `suspects`. Close it at the end."""

    def __init__(self, remembered: int = REMEMBERED, run: int = _RUN) -> None:
        self._most = remembered
        self._run_size = run
        self._first: dict[str, int] = {}
        self._hashes = array("q")
        self._numbers = array("I")
        self._hash_file: IO[bytes] | None = None
        self._number_file: IO[bytes] | None = None
        self._runs: list[array[int]] = []
        """Of each run the offset (in hashes) of each range, and its end."""
        self._written = 0

    @property
    def is_complete(self) -> bool:
        """Every repeat has been told already."""
        return self._hash_file is None

    def add(self, custom_id: str, number: int) -> int | None:
        """Note the id of a line (by its number). Gives the line that had it before, where that is known."""
        if self._hash_file is None:
            earlier = self._first.setdefault(custom_id, number)
            if earlier != number:
                return earlier
            if len(self._first) > self._most:
                self._spill()
            return None
        self._hashes.append(hash(custom_id))
        self._numbers.append(number)
        if len(self._hashes) >= self._run_size:
            self._write_run()
        return None

    def number_of(self, index: int) -> int:
        """The line number of the id that was added as the `index`-th (from 0 on); where ids are not remembered any more."""
        assert self._number_file is not None
        piece = array("I")
        piece.frombytes(os.pread(self._number_file.fileno(), piece.itemsize, index * 4))
        return piece[0]

    def suspects(self, pace: Callable[[], None]) -> set[int]:
        """Hashes (`hash`) that more than one id has, some of them where there are very many. `pace` is called between the steps."""
        if self._hash_file is None:
            return set()
        self._write_run()
        found: set[int] = set()
        total = self._written
        ranges_at_once = max(1, min(_RANGES, _AT_ONCE * _RANGES // max(total, 1)))
        for first in range(0, _RANGES, ranges_at_once):
            hashes = array("q")
            for piece in self._pieces(first, min(first + ranges_at_once, _RANGES)):
                hashes.frombytes(piece)
                pace()
            distinct = set(hashes)
            if len(distinct) < len(hashes) and len(found) < _MOST_SUSPECTS:
                found |= _repeated(hashes)
            pace()
        return found

    def close(self) -> None:
        """Forget everything."""
        for file in (self._hash_file, self._number_file):
            if file is not None:
                file.close()

    def _pieces(self, first: int, end: int) -> Iterator[bytes]:
        assert self._hash_file is not None
        descriptor = self._hash_file.fileno()
        for offsets in self._runs:
            size = (offsets[end] - offsets[first]) * 8
            if size:
                yield os.pread(descriptor, size, offsets[first] * 8)

    def _spill(self) -> None:
        try:
            self._hash_file, self._number_file = _unlinked(), _unlinked()
        except OSError as error:
            raise _no_room() from error
        for custom_id, number in self._first.items():
            self._hashes.append(hash(custom_id))
            self._numbers.append(number)
        self._first = {}
        self._write_run()

    def _write_run(self) -> None:
        hashes = sorted(self._hashes)
        if not hashes or self._hash_file is None or self._number_file is None:
            return
        offsets = array("I", (self._written + bisect_left(hashes, bound) for bound in _BOUNDS))
        offsets.append(self._written + len(hashes))
        try:
            _write(self._hash_file, array("q", hashes))
            _write(self._number_file, self._numbers)
        except OSError as error:
            raise _no_room() from error
        self._runs.append(offsets)
        self._written += len(hashes)
        self._hashes, self._numbers = array("q"), array("I")


def _unlinked() -> IO[bytes]:
    return tempfile.TemporaryFile(prefix="dwctl-ids-", buffering=0)


def _write(file: IO[bytes], values: array[int]) -> None:
    left = memoryview(values).cast("B")
    while left:
        left = left[file.write(left) :]


def _repeated(hashes: array[int]) -> set[int]:
    seen: set[int] = set()
    return {value for value in hashes if value in seen or seen.add(value)}  # type: ignore[func-returns-value]


def _no_room() -> Unavailable:
    return Unavailable("There is no room on this machine to check a file of this size right now.")
