"""A body in chunks, decoded as it comes (RFC 9112, 7.1). Pure, and strict: what two readers could read in two ways is refused."""

from __future__ import annotations

import re

from dwctl.web.refusals import Malformed

_MAX_LINE = 4096
_MAX_EXTENSIONS = 16 * 1024
_MAX_TRAILERS = 8 * 1024
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")


class Chunks:
    """Give it what was received; it gives back what of the body that was. Trailers are checked and thrown away."""

    def __init__(self) -> None:
        self._held = b""
        self._left = 0
        self._closes = False
        self._in_trailers = False
        self._extensions = 0
        self._trailers = 0
        self.is_over = False

    @property
    def rest(self) -> bytes:
        """Once it is over: what came behind it."""
        return self._held

    def feed(self, received: bytes) -> bytes:
        """The body's bytes in it. Raises Malformed."""
        data = self._held + received if self._held else received
        found: list[bytes] = []
        at = 0
        while not self.is_over:
            if self._left:
                piece = data[at : at + self._left]
                if not piece:
                    break
                found.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._closes = True
            elif self._closes:
                ending = data[at : at + 2]
                if ending != b"\r\n":
                    if len(ending) < 2 and b"\r\n".startswith(ending):
                        break
                    raise Malformed("A chunk is longer than its size says.")
                at += 2
                self._closes = False
            else:
                line, after = _line(data, at)
                if line is None:
                    break
                at = after
                self._trailer(line) if self._in_trailers else self._size(line)
        self._held = data[at:]
        return b"".join(found)

    def _size(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise Malformed("A chunk does not begin with its size.")
        self._extensions += len(match[2] or b"")
        if self._extensions > _MAX_EXTENSIONS:
            raise Malformed("The chunks have too long extensions.")
        self._left = int(match[1], 16)
        self._in_trailers = not self._left

    def _trailer(self, line: bytes) -> None:
        if not line:
            self.is_over = True
            return
        self._trailers += len(line)
        if self._trailers > _MAX_TRAILERS or not _TRAILER.fullmatch(line):
            raise Malformed("What follows the last chunk is not a list of header fields.")


def _line(data: bytes, at: int) -> tuple[bytes | None, int]:
    """The line that begins there, without its end, and where the next one begins; None while it has not come in full."""
    end = data.find(b"\n", at, at + _MAX_LINE + 2)
    if end < 0:
        if len(data) - at > _MAX_LINE:
            raise Malformed("A line between two chunks is too long.")
        return None, at
    if end == at or data[end - 1] != 0x0D:
        raise Malformed("A line between two chunks ends without a carriage return.")
    return data[at : end - 1], end + 1
