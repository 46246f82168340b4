import gzip
import zlib

import pytest

from dwctl.upstream.coding import plain
from dwctl.upstream.errors import BadResponse
from dwctl.upstream.http1 import Body, ChunkedBody, LengthBody, UnboundedBody, parse_head


def head(*lines: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *lines]).encode("latin-1")


def test_a_head_is_read() -> None:
    read = parse_head(
        head("Content-Type: a/b", "X-Empty:", "x-Spaces: \t b c \t", "X: é", "Content-Length: 3")
    )
    assert read.status == 200
    assert read.persistent
    assert isinstance(read.body, LengthBody)
    assert read.headers == [
        ("content-type", "a/b"),
        ("x-empty", ""),
        ("x-spaces", "b c"),
        ("x", "é"),
        ("content-length", "3"),
    ]


@pytest.mark.parametrize(
    ("lines", "status", "method", "kind"),
    [
        (["Content-Length: 5"], 200, "POST", LengthBody),
        (["Content-Length: 5", "content-length: 5"], 200, "POST", LengthBody),
        (["Transfer-Encoding: Chunked"], 200, "POST", ChunkedBody),
        ([], 200, "POST", UnboundedBody),
        (["Content-Length: 5"], 204, "POST", Body),
        (["Content-Length: 5"], 304, "GET", Body),
        (["Content-Length: 5"], 200, "HEAD", Body),
        (["Transfer-Encoding: chunked"], 200, "HEAD", Body),
        (["Content-Length: 5"], 103, "POST", Body),
    ],
)
def test_status_method_and_headers_say_how_the_body_ends(
    lines: list[str], status: int, method: str, kind: type[Body]
) -> None:
    body = parse_head(head(*lines, status=f"HTTP/1.1 {status}"), method).body
    assert type(body) is kind
    assert body.done == (kind is Body)


@pytest.mark.parametrize(
    ("status", "lines", "persistent"),
    [
        ("HTTP/1.1 200 OK", ["Content-Length: 0"], True),
        ("HTTP/1.1 200", ["Content-Length: 0"], True),
        ("HTTP/1.1 200 OK", ["Content-Length: 0", "Connection: Close"], False),
        ("HTTP/1.1 200 OK", ["Content-Length: 0", "Connection: x", "Connection: close"], False),
        ("HTTP/1.1 200 OK", [], False),
        ("HTTP/1.0 200 OK", ["Content-Length: 0"], False),
        ("HTTP/1.0 200 OK", ["Content-Length: 0", "Connection: Keep-Alive"], True),
    ],
)
def test_a_connection_is_kept_where_both_sides_agree(
    status: str, lines: list[str], persistent: bool
) -> None:
    assert parse_head(head(*lines, status=status)).persistent is persistent


@pytest.mark.parametrize(
    "raw",
    [
        b"220 mail.example ESMTP",
        b"HTTP/2 200",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1 20",
        b"HTTP/1.1 099 Low",
        b"HTTP/1.1 200 OK\n",
        head("no colon"),
        head(": no name"),
        head("space before : x"),
        head(" continued: x"),
        head("a: b", "\tc"),
        head("bare: a\rb"),
        head("bare: a\nb: c"),
        head("nul: a\0b"),
        head("Content-Length: 5", "Content-Length: 6"),
        head("Content-Length: 5, 5"),
        head("Content-Length: +5"),
        head("Content-Length: 0x5"),
        head("Content-Length: ²"),
        head("Content-Length:"),
        head("Content-Length: 99999999999999999999"),
        head("Content-Length: 5", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: gzip"),
        head("Transfer-Encoding: gzip, chunked"),
        head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    ],
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(BadResponse):
        parse_head(raw)


CHUNKED = b"5\r\nhello\r\n1;a=b\r\n \r\nB\r\nwide world!\r\n000\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_are_put_together_wherever_they_are_cut(size: int) -> None:
    body = ChunkedBody()
    pieces = [body.feed(CHUNKED[at : at + size]) for at in range(0, len(CHUNKED), size)]
    assert b"".join(pieces) == b"hello wide world!"
    assert body.done
    assert not body.excess


def test_part_of_a_chunk_is_given_at_once() -> None:
    body = ChunkedBody()
    assert body.feed(b"5\r\nhel") == b"hel"
    assert body.feed(b"lo\r\n") == b"lo"
    assert not body.done


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n",
        b"\r\n",
        b"-5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5_0\r\nhello\r\n",
        b"5\r\nhelloworld\r\n0\r\n\r\n",
        b"5\r\nhello\rx\r\n0\r\n\r\n",
        b"5" * 5000,
        b"5;" + b"x" * 5000,
        b"0\r\n" + b"t: x\r\n" * 20000,
    ],
)
def test_chunks_without_a_clear_size_are_refused(raw: bytes) -> None:
    with pytest.raises(BadResponse):
        ChunkedBody().feed(raw)


@pytest.mark.parametrize(
    ("body", "raw"),
    [(LengthBody(2), b"abX"), (ChunkedBody(), b"1\r\na\r\n0\r\n\r\nX"), (Body(done=True), b"X")],
    ids=["length", "chunked", "none"],
)
def test_bytes_after_the_end_are_noticed(body: Body, raw: bytes) -> None:
    assert b"X" not in body.feed(raw)
    assert body.done
    assert body.excess


@pytest.mark.parametrize("body", [LengthBody(2), ChunkedBody()], ids=["length", "chunked"])
def test_a_connection_that_closes_too_early_is_an_error(body: Body) -> None:
    with pytest.raises(BadResponse):
        body.end()


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    body = UnboundedBody()
    assert body.feed(b"ab") == b"ab"
    body.end()
    assert body.done


TEXT = "Grüße, 世界 ".encode() * 50


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("X-GZip", gzip.compress(TEXT[:70], mtime=0) + gzip.compress(TEXT[70:], mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("identity", TEXT),
    ],
)
@pytest.mark.parametrize("size", [1, 10, 5000])
def test_bodies_come_out_plain(coding: str, packed: bytes, size: int) -> None:
    pieces = (packed[at : at + size] for at in range(0, len(packed), size))
    assert b"".join(plain(pieces, coding)) == TEXT


def test_a_compressed_stream_comes_out_as_it_arrives() -> None:
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    second = packer.compress(b"data: 2\n\n") + packer.flush()
    out = plain(iter([first, second]), "gzip")
    assert next(out) == b"data: 1\n\n"
    assert next(out) == b"data: 2\n\n"


def test_a_small_piece_that_unpacks_to_a_huge_one_comes_in_parts() -> None:
    packed = gzip.compress(bytes(10_000_000))
    assert max(map(len, plain(iter([packed]), "gzip"))) < 1_000_000


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)[:-9]),
        ("gzip", b"not gzip at all"),
        ("br", b"x"),
        ("gzip, gzip", b"x"),
    ],
)
def test_what_cannot_be_unpacked_is_an_error(coding: str, packed: bytes) -> None:
    with pytest.raises(BadResponse):
        list(plain(iter([packed]), coding))
