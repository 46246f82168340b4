"""However the network cuts what a caller sends, it is the same requests: heads, lengths and chunks in pieces, by Hypothesis."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from dwctl.errors import DwctlError
from dwctl.web import head as heads
from dwctl.web.body import Body
from dwctl.web.connection import Connection
from dwctl.web.head import Head

EXAMPLES = 300

_TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABC!#$%&'*+.^`|~09-", min_size=1, max_size=12)
_VALUES = st.text("abc \t,;=\"'äÿ019", max_size=20).map(lambda text: text.strip(" \t"))
_TARGETS = st.text("abc/?&=%2f.:;@~-", max_size=20).map(lambda text: "/" + text)
_FIELDS = st.lists(st.tuples(_TOKENS.map("x-{}".format), _VALUES), max_size=4)
_PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
_EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b' ; a="b c"'])


@st.composite
def _requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """One valid request, and its body."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE"]))
    lines = [f"{method} {draw(_TARGETS)} HTTP/1.1", "Host: x"]
    lines += [f"{name}: {value}" for name, value in draw(_FIELDS)]
    pieces = draw(_PIECES)
    body = b"".join(pieces)
    if not draw(st.booleans()):
        return "\r\n".join([*lines, f"Content-Length: {len(body)}\r\n\r\n"]).encode(
            "latin-1"
        ) + body, body
    framed = b"".join(
        b"%x%b\r\n%b\r\n" % (len(piece), draw(_EXTENSIONS), piece) for piece in pieces
    )
    trailers = "".join(f"{name}: {value}\r\n" for name, value in draw(_FIELDS)).encode("latin-1")
    head = "\r\n".join([*lines, "Transfer-Encoding: chunked\r\n\r\n"]).encode("latin-1")
    return head + framed + b"0\r\n" + trailers + b"\r\n", body


@st.composite
def _cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces."""
    at = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


class Wire:
    """What a connection gives to heads and bodies: the pieces that come, one at each wait, and nothing after the last."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = list(pieces)
        self._received = b""
        self.spoiled = False

    @property
    def received(self) -> int:
        return len(self._received)

    def head(self) -> Head | None:
        """As `Connection._receive_head` reads it."""
        while True:
            self._received = heads.without_blank_lines(self._received)
            end = heads.end_of(self._received) if self._received else 0
            if end:
                found = heads.read(self._received, end)
                self._received = self._received[end:]
                return found
            if not self._pieces:
                return None
            self._received += self._pieces.pop(0)

    def receive_body(self, most: int) -> bytes:
        if not self._received and self._pieces:
            self._received = self._pieces.pop(0)
        piece, self._received = self._received[:most], self._received[most:]
        return piece

    def credit(self, size: int) -> None:
        pass

    def give_back(self, rest: bytes) -> None:
        self._received = rest + self._received

    def spoil(self) -> None:
        self.spoiled = True


def _read(pieces: list[bytes], size: int) -> list[Any]:
    """Heads and bodies, up to the end or the first refusal; `size`: how much of a body is asked for at once (0: all)."""
    wire = Wire(pieces)
    found: list[Any] = []
    try:
        while (head := wire.head()) is not None:
            body = Body(cast("Connection", wire), head.length)
            found.append(head)
            if not size:
                found.append(body.read_all())
            else:
                parts = list(iter(lambda body=body: body.read(size), b""))
                found.append(b"".join(parts))
            assert body.is_over
    except DwctlError as error:
        found.append(error.code)
    return found


_SIZES = st.sampled_from([0, 1, 7, 65536])


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(st.data(), st.lists(_requests(), min_size=1, max_size=3), _SIZES)
def test_valid_requests_are_the_same_in_any_pieces(data: st.DataObject, sent: list[tuple[bytes, bytes]], size: int) -> None:  # fmt: skip
    whole = b"".join(request for request, _ in sent)
    expected = _read([whole], 0)
    assert [body for body in expected if isinstance(body, bytes)] == [body for _, body in sent]
    assert len(expected) == 2 * len(sent)
    assert _read(data.draw(_cut(whole)), size) == expected


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(st.data(), _requests(), _SIZES)
def test_damaged_requests_are_refused_or_read_the_same_in_any_pieces(data: st.DataObject, sent: tuple[bytes, bytes], size: int) -> None:  # fmt: skip
    """A byte is another one, missing or new: how the network cuts it never makes a request of what is none."""
    request, _ = sent
    at = data.draw(st.integers(0, len(request) - 1))
    with_what = data.draw(
        st.sampled_from([b"", b"\n", b"\r", b"\r\n", b" ", b"\0", b":", b"0", b"f", b"\xff"])
    )
    damaged = request[:at] + with_what + request[at + data.draw(st.integers(0, 1)) :]
    expected = _read([damaged], 0)
    found = _read(data.draw(_cut(damaged)), size)
    # What is malformed may be found out before, or after, something else of it is.
    assert _told(found) == _told(expected)


def _told(found: list[Any]) -> list[Any]:
    return [one if not isinstance(one, str) else "refused" for one in found]
