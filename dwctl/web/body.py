"""A request's body: read when somebody asks for it, as far as its framing says, and never further.

It is `wsgi.input` for Flask, and what the hot routes read at once (`read_all`). Nothing is read, and no `100 Continue` sent, before that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING

from dwctl.errors import DwctlError
from dwctl.web.chunks import Chunks
from dwctl.web.refusals import Incomplete, TooLarge

if TYPE_CHECKING:
    from dwctl.web.connection import Connection

_AT_ONCE = 64 * 1024


class Body:
    """`length` in bytes, None where it comes in chunks. Each method raises DwctlError where the body is cut short, malformed or too slow;
    the connection cannot be used after that.
    """

    __slots__ = ("_chunks", "_connection", "_held", "_left", "length")

    def __init__(self, connection: Connection, length: int | None) -> None:
        self._connection = connection
        self.length = length
        self._left = length or 0
        self._chunks = Chunks() if length is None else None
        self._held = b""

    def allow(self, seconds: float) -> None:
        """Give the whole of it so much time, where it may take longer than others. Its lowest rate holds all the same."""
        self._connection.body_timeout_s = seconds

    @property
    def is_over(self) -> bool:
        """Nothing of it is left on the connection."""
        return not self._left if self._chunks is None else self._chunks.is_over

    @property
    def is_at_hand(self) -> bool:
        """Another request can be read after this one without waiting for the rest of it."""
        if self._chunks is None:
            return self._left <= self._connection.received
        try:
            while not self._chunks.is_over and self._connection.received:
                self._held += self._step(self._chunks)
        except DwctlError:
            self._connection.spoil()
        return self._chunks.is_over

    def read_all(self, limit: int = 0, took: Callable[[int], object] | None = None) -> bytes:
        """The whole of it. Raises TooLarge for more than `limit` bytes (0: no limit), before they are read where it is announced.

        `took` is told the size of each piece that has come; what it raises ends the reading.
        """
        if limit and self.length is not None and self.length > limit:
            raise TooLarge(f"The request body has {self.length} bytes; the limit is {limit}.")
        pieces, size = [], 0
        while piece := self._next():
            pieces.append(piece)
            size += len(piece)
            if limit and size > limit:
                raise TooLarge(f"The request body is larger than the limit of {limit} bytes.")
            if took is not None:
                took(len(piece))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read(self, size: int | None = -1) -> bytes:
        """As of a file: `size` bytes, fewer only at the end."""
        if size is None or size < 0:
            return self.read_all()
        pieces, missing = [], size
        while missing > 0:
            piece = self._next()
            if not piece:
                break
            pieces.append(piece[:missing])
            self._held = piece[missing:]
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def readline(self, size: int | None = -1) -> bytes:
        """As of a file."""
        most = size if size is not None and size >= 0 else None
        pieces: list[bytes] = []
        while most is None or most > 0:
            piece = self._next()
            if not piece:
                break
            end = piece.find(b"\n") + 1 or len(piece)
            end = end if most is None else min(end, most)
            pieces.append(piece[:end])
            self._held = piece[end:]
            if piece[end - 1] == 0x0A:
                break
            if most is not None:
                most -= end
        return b"".join(pieces)

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """As of a file; a hint is not taken."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def skip(self, most: int, seconds: float) -> None:
        """Read and throw away what still comes, within these bounds: who only sends would never see the answer.

        Nothing where the caller waits for our word before it sends.
        """
        until = monotonic() + seconds
        try:
            while most > 0 and monotonic() < until and not self._connection.expects_continue:
                piece = self._next()
                if not piece:
                    return
                most -= len(piece)
        except DwctlError:
            return

    def skip_what_came(self) -> None:
        """Throw away what of it has been received already; `is_over` tells whether that was all."""
        while not self.is_over and self._connection.received:
            try:
                self._next_of_length() if self._chunks is None else self._step(self._chunks)
            except DwctlError:
                return

    def _next(self) -> bytes:
        """The next piece; nothing at the end."""
        if self._held:
            held, self._held = self._held, b""
            return held
        if self.is_over:
            return b""
        try:
            return self._next_of_length() if self._chunks is None else self._next_of(self._chunks)
        except DwctlError:
            # Nobody can tell any more where the next request begins.
            self._connection.spoil()
            raise

    def _next_of_length(self) -> bytes:
        piece = self._connection.receive_body(min(self._left, _AT_ONCE))
        if not piece:
            stated = self.length or 0
            raise Incomplete(f"The request body has {stated - self._left} of {stated} bytes.")
        self._left -= len(piece)
        self._connection.credit(len(piece))
        return piece

    def _next_of(self, chunks: Chunks) -> bytes:
        found = b""
        while not found and not chunks.is_over:
            found = self._step(chunks)
        return found

    def _step(self, chunks: Chunks) -> bytes:
        """What of the body is in what comes next; waits only where nothing has come."""
        received = self._connection.receive_body(_AT_ONCE)
        if not received:
            raise Incomplete("The request body ends before its last chunk.")
        found = chunks.feed(received)
        self._connection.credit(len(found))
        if chunks.is_over:
            self._connection.give_back(chunks.rest)
        return found
