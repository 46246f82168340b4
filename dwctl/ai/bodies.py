"""A call's body: read, counted among what its account holds, and decoded where it came compressed."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from gevent.lock import BoundedSemaphore

from dwctl.ai.calls import Incoming
from dwctl.ai.holdings import Hold, Kind
from dwctl.errors import DwctlError, Invalid
from dwctl.pace import Pace
from dwctl.protocols.surfaces import Surface
from dwctl.web import codings

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s\";]+)", re.IGNORECASE)
_UTF8 = ("", "utf-8", "utf8")
_BOM = codecs.BOM_UTF8
_WIDE = (codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE)
_RATIO_FROM_BYTES = 1024 * 1024  # below that, how well a body was compressed harms nobody

_LARGE_BYTES = 1024 * 1024

_parsing = BoundedSemaphore(1)
"""Parsing a large body stops the loop for as long as it takes: one at a time, with a rest in between."""
_decoding = BoundedSemaphore(8)
"""Each may have a window of 16 MiB beside what it gives out."""


class UnsupportedCoding(DwctlError):
    """The body's coding is not supported."""

    code = "unsupported_media_type"
    status = 415

    headers = (("accept-encoding", ", ".join(codings.NAMES)),)


class TooLargeDecoded(DwctlError):
    """The decoded body is too large."""

    code = "payload_too_large"
    status = 413


def read(gateway: Gateway, incoming: Incoming, hold: Hold) -> bytes:
    """The body in UTF-8, held in memory for as long as the call runs.

    Where files are taken it is as it came, and may be as large as those. Raises TooLarge, TooMany or Full; UnsupportedCoding before anything is read; TooLargeDecoded; Invalid for what is not in its coding.
    """
    applied = _codings_of(incoming)
    limits = gateway.settings.limits.requests
    most = limits.max_file_body_size if incoming.surface.takes_files else limits.max_body_size
    body = _received(most, incoming, hold)
    if applied and body:
        with _decoding:
            body = _decoded(body, applied, most, limits.max_compression_ratio, hold)
    if not incoming.surface.takes_text:
        return body
    return _as_utf8(body, incoming.first.get("content-type") or "")


def content_of(surface: Surface, body: bytes) -> dict[str, Any]:
    """What of the body is read, as JSON. Raises Invalid."""
    if len(body) < _LARGE_BYTES:
        return surface.content_of(body)
    with _parsing:
        Pace().rest()
        return surface.content_of(body)


def _codings_of(incoming: Incoming) -> tuple[str, ...]:
    if incoming.first.get("content-encoding") is None:
        return ()
    stated = ",".join(value for name, value in incoming.headers if name == "content-encoding")
    try:
        return codings.named(stated)
    except codings.Unknown:
        raise UnsupportedCoding(
            f"The content coding {stated[:100]!r} is not supported. Send the body as it is, or as one of"
            f" {', '.join(codings.NAMES)}."
        ) from None


def _received(most: int, incoming: Incoming, hold: Hold) -> bytes:
    # Counted as it comes: a body in chunks announces nothing, and what is only announced takes no memory from others.
    if incoming.length is not None and (not most or incoming.length <= most):
        hold.check(Kind.BYTES, incoming.length)
    return incoming.read_body(partial(hold.take, Kind.BYTES))


def _decoded(body: bytes, applied: Iterable[str], most: int, ratio: int, hold: Hold) -> bytes:
    pieces: Iterator[bytes] = iter([body])
    for coding in reversed(tuple(applied)):
        pieces = _bounded(codings.decoded(pieces, coding), len(body), most, ratio)
    pace = Pace()
    found = []
    try:
        for piece in pieces:
            if piece:
                hold.take(Kind.BYTES, len(piece))
                found.append(piece)
            pace()
    except codings.Cut:
        raise Invalid(
            "The request body ends before its content coding does.", code="invalid_encoding"
        ) from None
    except codings.Malformed:
        raise Invalid(
            "The request body is not in the content coding that Content-Encoding names, or something follows it.",
            code="invalid_encoding",
        ) from None
    return b"".join(found)


def _bounded(pieces: Iterator[bytes], coded_bytes: int, most: int, ratio: int) -> Iterator[bytes]:
    """Also what lies between two codings may not be larger than a body."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if most and size > most:
            raise TooLargeDecoded(
                f"The decoded request body is larger than the limit of {most} bytes."
            )
        if ratio and size > _RATIO_FROM_BYTES and size > ratio * coded_bytes:
            raise TooLargeDecoded(
                f"The decoded request body is more than {ratio} times as large as what was sent."
            )
        yield piece


def _as_utf8(body: bytes, content_type: str) -> bytes:
    stated = _charset_of(content_type)
    if body.startswith(_WIDE) or b"\0" in body[:4]:
        raise Invalid(
            "The request body must be JSON in UTF-8, not UTF-16 or UTF-32.", code="invalid_json"
        )
    # Some clients call ASCII by the name of another charset: the bytes are the same.
    if stated not in _UTF8 and not body.isascii():
        raise UnsupportedCoding(
            f"The charset {stated[:40]!r} is not supported. Send JSON in UTF-8."
        )
    return body.removeprefix(_BOM)


@lru_cache(256)
def _charset_of(content_type: str) -> str:
    """What it names; nothing where it names none."""
    stated = _CHARSET.search(content_type)
    return stated[1].lower() if stated else ""
