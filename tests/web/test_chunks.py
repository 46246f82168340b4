"""Bodies in chunks, cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwctl.web.chunks import Chunks
from dwctl.web.refusals import Malformed

GOOD = [
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"005\r\nhello\r\n000\r\n\r\n", b"hello"),
    (b"5;a=b;c\r\nhello\r\n0;d\r\n\r\n", b"hello"),
    (b"5 ;a\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
    (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
    (b"1\r\nx\r\n0\r\na: b\r\nc: d\r\n\r\n", b"x"),
]

BAD = [
    b"zz\r\n",
    b"\r\n",
    b"-1\r\nx\r\n",
    b"+1\r\nx\r\n",
    b"0x1\r\nx\r\n",
    b" 1\r\nx\r\n",
    b"1\nx\r\n",
    b"1\r\nxy\r\n",
    b"1\r\nx\n",
    b"1\r\nx0\r\n\r\n",
    b"1;a\nb\r\nx\r\n",
    b"1;\x00\r\nx\r\n",
    b"1\x0b\r\nx\r\n",
    b"1_0\r\n",
    b"f" * 16 + b"\r\n",
    b"1" * 5000,
    b"1;" + b"a" * 5000 + b"\r\n",
    b"1;" + b"a" * 4000 + b"\r\nx\r\n" + (b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 5,
    b"0\r\na: b\n\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\n folded: b\r\n\r\n",
    b"0\r\n" + b"a: b\r\n" * 3000 + b"\r\n",
]


@pytest.mark.parametrize(("raw", "body"), GOOD)
@given(cuts=st.lists(st.integers(1, 60), max_size=20))
def test_a_body_is_the_same_however_it_is_cut(raw: bytes, body: bytes, cuts: list[int]):
    chunks, found, at = Chunks(), b"", 0
    received = raw + b"GET / HTTP/1.1"
    for size in [*cuts, len(received)]:
        if chunks.is_over:
            break
        found += chunks.feed(received[at : at + size])
        at += size
    assert found == body
    assert chunks.is_over
    assert chunks.rest + received[at:] == b"GET / HTTP/1.1"


@pytest.mark.parametrize("raw", BAD, ids=[str(n) for n in range(len(BAD))])
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_what_two_readers_could_read_in_two_ways_is_refused(raw: bytes, size: int):
    chunks = Chunks()

    def feed() -> None:
        for at in range(0, len(raw), size):
            chunks.feed(raw[at : at + size])

    with pytest.raises(Malformed):
        feed()


@pytest.mark.parametrize("raw", [raw for raw, _ in GOOD])
def test_a_body_that_is_not_there_in_full_is_not_over(raw: bytes):
    chunks = Chunks()
    chunks.feed(raw[:-1])
    assert not chunks.is_over
