"""Content codings that an upstream applied though we asked for none: compressed pieces in, plain pieces out. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from dwctl.upstream.errors import BadResponse
from dwctl.web import codings


def plain(pieces: Iterator[bytes], coding: str) -> Iterator[bytes]:
    """The body's own bytes, each piece as soon as it can be known.

    Raises: BadResponse for a coding that is not known, for bytes that are not in it, and for an end too early.
    """
    try:
        applied = codings.named(coding)
    except codings.Unknown:
        raise BadResponse(
            "The upstream server's answer has a content coding that nobody asked for."
        ) from None
    for name in reversed(applied):
        pieces = codings.decoded(pieces, name)
    return _checked(pieces) if applied else pieces


def _checked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from filter(None, pieces)
    except codings.Cut as error:
        raise BadResponse("The upstream server's answer was cut short.") from error
    except codings.Malformed as error:
        raise BadResponse(
            "The upstream server's answer is not in the coding that it names."
        ) from error
