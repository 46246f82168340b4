"""Content codings that an upstream applied though we asked for none: compressed pieces in, plain pieces out. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from dwctl.upstream.errors import BadResponse

_MAX_PIECE_BYTES = 256 * 1024  # a small compressed piece can be a huge plain one
_EITHER_FORMAT = 32 + zlib.MAX_WBITS  # gzip or zlib, by what the first bytes say
_KNOWN = frozenset({"gzip", "x-gzip", "deflate"})


def plain(pieces: Iterator[bytes], coding: str) -> Iterator[bytes]:
    """The body's own bytes, each piece as soon as it can be known.

    Raises: BadResponse for a coding that is not known, for bytes that are not in it, and for an end too early.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return pieces
    if coding not in _KNOWN:
        raise BadResponse(
            "The upstream server's answer has a content coding that nobody asked for."
        )
    return _inflated(pieces)


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(_EITHER_FORMAT)
    begun = False
    try:
        for piece in pieces:
            begun = True
            while piece:
                if inflater.eof:  # a gzip body may be several, one after the other
                    inflater = zlib.decompressobj(_EITHER_FORMAT)
                if text := inflater.decompress(piece, _MAX_PIECE_BYTES):
                    yield text
                piece = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        if rest := inflater.flush():
            yield rest
    except zlib.error as error:
        raise BadResponse(
            "The upstream server's answer is not in the coding that it names."
        ) from error
    if begun and not inflater.eof:
        raise BadResponse("The upstream server's answer was cut short.")
