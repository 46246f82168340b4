"""An upload's bytes as they were before they were packed: the request's own content coding, and a file that is gzip itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dwctl.ai.bodies import TooLargeDecoded, UnsupportedCoding
from dwctl.errors import Invalid
from dwctl.web import codings
from dwctl.web.refusals import TooLarge

FORM_BYTES = 10 * 1024
"""What a form may have beside its file."""

_GZIP = b"\x1f\x8b"
_RATIO_FROM_BYTES = 1024 * 1024


def applied_codings(header: str) -> tuple[str, ...]:
    """Those of a Content-Encoding header. Raises UnsupportedCoding."""
    try:
        return codings.named(header)
    except codings.Unknown:
        raise UnsupportedCoding(
            f"The content coding {header[:100]!r} is not supported. Send the body as it is, or as one of {', '.join(codings.NAMES)}."
        ) from None


def bounded(pieces: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The pieces of a body of up to `most` bytes (0: any). Raises TooLarge."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if most and size > most + FORM_BYTES:
            raise too_large(most)
        yield piece


def unpacked(
    pieces: Iterable[bytes], applied: tuple[str, ...], most: int, ratio: int
) -> Iterator[bytes]:
    """A body without its content codings; of no more than `most` bytes, nor more than `ratio` times what was sent (0: no such limit)."""
    sent = [0]
    found = _counted(pieces, sent)
    for coding in reversed(applied):
        found = _judged(codings.decoded(found, coding), sent, most, ratio)
    try:
        yield from (piece for piece in found if piece)
    except codings.Malformed:
        raise Invalid(
            "The request body is not in the content coding that Content-Encoding names, or ends too early.",
            code="invalid_encoding",
        ) from None


def plain_file(pieces: Iterator[bytes], name: str | None) -> Iterator[bytes]:
    """A file as it is, or unpacked where it is gzip. Raises Invalid for one that only its name says to be so, and for a damaged one."""
    begun = b""
    for piece in pieces:
        begun += piece
        if len(begun) >= len(_GZIP):
            break
    whole = _before(begun, pieces)
    if not begun.startswith(_GZIP):
        if begun and (name or "").lower().endswith(".gz"):
            raise Invalid(
                "The file's name ends in .gz, but it is not gzip.", code="invalid_encoding"
            )
        yield from whole
        return
    try:
        yield from (piece for piece in codings.decoded(whole, "gzip") if piece)
    except codings.Malformed:
        raise Invalid(
            "The file begins as gzip, but it is damaged or ends too early.", code="invalid_encoding"
        ) from None


def too_large(most: int) -> TooLarge:
    """The refusal of a file."""
    return TooLarge(f"File exceeds the maximum allowed size of {most} bytes")


def _before(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from pieces


def _counted(pieces: Iterable[bytes], sent: list[int]) -> Iterator[bytes]:
    for piece in pieces:
        sent[0] += len(piece)
        yield piece


def _judged(pieces: Iterable[bytes], sent: list[int], most: int, ratio: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if most and size > most + FORM_BYTES:
            raise too_large(most)
        if ratio and size > _RATIO_FROM_BYTES and size > ratio * sent[0]:
            raise TooLargeDecoded(
                f"The decoded request body is more than {ratio} times as large as what was sent."
            )
        yield piece
