"""Content codings: whole, in pieces, cut, followed by something, and without end."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
from backports import zstd

from dwctl.web import codings

PLAIN = b'{"model":"m","input":"' + bytes(range(32, 127)) * 3000 + b'"}'


def raw_deflate(plain: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(plain) + packer.flush()


def streamed_zstd(plain: bytes) -> bytes:
    """As a client streams it: no content size in the frame."""
    packer = zstd.ZstdCompressor()
    half = len(plain) // 2
    return packer.compress(plain[:half]) + packer.compress(plain[half:]) + packer.flush()


CODED = {
    "gzip": ("gzip", gzip.compress(PLAIN)),
    "gzip in members": ("gzip", gzip.compress(PLAIN[:9]) + gzip.compress(PLAIN[9:])),
    "deflate": ("deflate", zlib.compress(PLAIN)),
    "raw deflate": ("deflate", raw_deflate(PLAIN)),
    "br": ("br", brotli.compress(PLAIN)),
    "zstd": ("zstd", zstd.compress(PLAIN)),
    "zstd streamed": ("zstd", streamed_zstd(PLAIN)),
    "zstd in frames": (
        "zstd",
        zstd.compress(PLAIN[:9]) + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd.compress(PLAIN[9:]),
    ),
}


def decoded(body: bytes, coding: str, step: int = 1 << 30) -> bytes:
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    found = list(codings.decoded(pieces, coding))
    assert all(
        len(piece) <= 128 * 1024 for piece in found
    )  # brotli: a block more than was asked for
    return b"".join(found)


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 30])
@pytest.mark.parametrize("name", CODED)
def test_what_was_coded_comes_out(name: str, step: int) -> None:
    coding, body = CODED[name]
    assert decoded(body, coding, step) == PLAIN


@pytest.mark.parametrize("name", CODED)
def test_a_body_that_is_cut_is_told_from_a_whole_one(name: str) -> None:
    coding, body = CODED[name]
    for end in (1, 2, len(body) // 2, len(body) - 1):
        with pytest.raises(codings.Malformed):
            decoded(body[:end], coding)


@pytest.mark.parametrize("after", [b"\0", b"{}", b"\x1f\x8b", b"x" * 100_000])
@pytest.mark.parametrize("name", CODED)
def test_nothing_may_follow(name: str, after: bytes) -> None:
    coding, body = CODED[name]
    with pytest.raises(codings.Malformed):
        decoded(body + after, coding)


@pytest.mark.parametrize("coding", codings.NAMES)
@pytest.mark.parametrize("body", [b"{}", b"\xff" * 100, PLAIN, b"\0" * 1000])
def test_what_is_not_in_the_coding_is_refused(coding: str, body: bytes) -> None:
    with pytest.raises(codings.Malformed):
        decoded(body, coding)


@pytest.mark.parametrize("coding", codings.NAMES)
def test_nothing_is_nothing(coding: str) -> None:
    assert decoded(b"", coding) == b""


def test_a_wide_window_is_refused() -> None:
    """RFC 9659: 8 MiB."""
    wide = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    with pytest.raises(codings.Malformed):
        decoded(wide.compress(b"x") + wide.flush(), "zstd")


@pytest.mark.parametrize(
    ("header", "codes"),
    [
        ("", ()),
        ("identity", ()),
        (" GZIP , ZStd", ("gzip", "zstd")),
        ("x-gzip,identity,br", ("gzip", "br")),
        ("gzip,gzip,gzip,gzip", None),
        ("compress", None),
        ("utf-8", None),
        ("gzip;q=1", None),
    ],
)
def test_what_a_header_names(header: str, codes: tuple[str, ...] | None) -> None:
    if codes is not None:
        assert codings.named(header) == codes
        return
    with pytest.raises(codings.Unknown):
        codings.named(header)
