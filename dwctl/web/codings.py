"""Content codings (RFC 9110, 8.4): coded pieces in, plain pieces out, each of a bounded size. Pure.

Between two pieces a caller may let others run: neither a large body nor one that unfolds without end holds anybody up. Windows are bounded by the
formats (deflate 32 KiB, brotli 16 MiB) and, for zstd, by what RFC 9659 allows (8 MiB).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator

import brotli
from backports import zstd

NAMES = ("gzip", "deflate", "br", "zstd")
"""What is understood, as `Accept-Encoding` lists it."""

_PIECE_BYTES = 64 * 1024
_MOST_STACKED = 3
_ZSTD_WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS

Pieces = Iterator[bytes]


class Unknown(Exception):
    """A coding that nobody here understands, or too many of them."""


class Malformed(Exception):
    """The bytes are not in the coding that they are said to be in."""


class Cut(Malformed):
    """They end too early."""


def named(header: str) -> tuple[str, ...]:
    """The codings of a `Content-Encoding` header, in the order in which they were applied; none for `identity`. Raises Unknown."""
    stated = (part.strip().lower().removeprefix("x-") for part in header.split(","))
    codings = tuple(coding for coding in stated if coding not in ("", "identity"))
    if len(codings) > _MOST_STACKED or any(coding not in NAMES for coding in codings):
        raise Unknown
    return codings


def decoded(pieces: Iterable[bytes], coding: str) -> Pieces:
    """The plain pieces, none of them empty; also one empty piece now and then where much input makes no output.

    No input at all is no body. Raises Malformed, and Cut, also after some pieces.
    """
    slices = (
        piece[at : at + _PIECE_BYTES]
        for piece in pieces
        for at in range(0, len(piece), _PIECE_BYTES)
    )
    try:
        yield from _DECODERS[coding](slices)
    except (zlib.error, brotli.error, zstd.ZstdError, MemoryError) as error:
        raise Malformed from error


def _gzip(pieces: Pieces) -> Pieces:
    return _deflated(pieces, _GZIP, several=True)


def _deflate(pieces: Pieces) -> Pieces:
    """With zlib's head, as the RFC says, or without, as some servers and clients have it."""
    begun = b""
    for piece in pieces:
        begun += piece
        if len(begun) > 1:
            break
    has_head = begun[:1] and begun[0] & 15 == 8 and int.from_bytes(begun[:2]) % 31 == 0
    return _deflated(_before(begun, pieces), _ZLIB if has_head else _RAW, several=False)


def _before(first: bytes, pieces: Pieces) -> Pieces:
    if first:
        yield first
    yield from pieces


def _deflated(pieces: Pieces, bits: int, *, several: bool) -> Pieces:
    """several: one body may be some of them, one after the other."""
    inflater = zlib.decompressobj(bits)
    begun = False
    for piece in pieces:
        begun = True
        while piece:
            if inflater.eof:
                if not several:
                    raise Malformed
                inflater = zlib.decompressobj(bits)
            yield inflater.decompress(piece, _PIECE_BYTES)
            piece = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    # What was taken in may have more to say than fitted into the last piece.
    while begun and not inflater.eof and (rest := inflater.decompress(b"", _PIECE_BYTES)):
        yield rest
    if begun and not inflater.eof:
        raise Cut


def _br(pieces: Pieces) -> Pieces:
    decoder = brotli.Decompressor()
    begun = False
    for piece in pieces:
        begun = True
        yield decoder.process(piece, output_buffer_limit=_PIECE_BYTES)
        while not decoder.can_accept_more_data():
            yield decoder.process(b"", output_buffer_limit=_PIECE_BYTES)
    # All was taken in, which does not mean that all has come out.
    while begun and not decoder.is_finished():
        if not (rest := decoder.process(b"", output_buffer_limit=_PIECE_BYTES)):
            raise Cut
        yield rest


def _zstd(pieces: Pieces) -> Pieces:
    """One frame or several, with skippable ones among them."""
    decoder = zstd.ZstdDecompressor(options=_ZSTD_WINDOW)
    begun = False
    for piece in pieces:
        begun = True
        while piece:
            if decoder.eof:
                decoder = zstd.ZstdDecompressor(options=_ZSTD_WINDOW)
            yield decoder.decompress(piece, _PIECE_BYTES)
            while not (decoder.eof or decoder.needs_input):
                yield decoder.decompress(b"", _PIECE_BYTES)
            piece = decoder.unused_data if decoder.eof else b""
    if begun and not decoder.eof:
        raise Cut


_DECODERS: dict[str, Callable[[Pieces], Pieces]] = {
    "gzip": _gzip,
    "deflate": _deflate,
    "br": _br,
    "zstd": _zstd,
}
