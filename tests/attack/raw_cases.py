"""The table of raw requests. One line for each thing that somebody may try; what is right is said by RFC 9110 and 9112, and by us where they leave a choice.

What is expected is written `200`, `100 200` (in that order), `400/501` (either), `200 | 400` (either way). A refusal closes the connection and says so;
after anything else the connection must still serve, unless `closes` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.attack.raw import Await, HalfClose, Pause, Step, Trickle

KEY = b"@key@"
MODEL = "echo"
JSON_BODY = b'{"model":"%s","messages":[{"role":"user","content":"Hello"}]}' % MODEL.encode()
WHO = b"@who@"
"""Five other bytes in each case: failures to sign in are counted for each account."""
LOGIN_BODY = b'{"email":"nobody-@who@@cast.example","password":"not-the-password"}'
REFUSALS = frozenset({400, 408, 413, 414, 417, 431, 501, 505})
"""What the server itself refuses with; the connection is over then."""
MAX_BODY = 1_000_000


@dataclass(frozen=True)
class Case:
    name: str
    steps: tuple[Step, ...]
    expects: str
    closes: bool | None = None
    """None: as the last status says."""
    shape: str = "either"
    """Of errors: `openai`, `admin`, or `either` where the target may not be known."""
    heads: tuple[int, ...] = ()

    @property
    def ways(self) -> list[list[frozenset[int]]]:
        return [
            [frozenset(map(int, one.split("/"))) for one in way.split()]
            for way in self.expects.split("|")
        ]


@dataclass(frozen=True)
class Door:
    """A route that takes a body: the one answered directly, and one behind Flask."""

    name: str
    line: bytes
    more: bytes
    body: bytes
    good: int
    shape: str

    def head(self, *lines: bytes, version: bytes = b"HTTP/1.1") -> bytes:
        fixed = (self.line + version, b"Host: x", b"Content-Type: application/json", self.more)
        return b"\r\n".join(line for line in (*fixed, *lines) if line) + b"\r\n\r\n"


HOT = Door("hot", b"POST /ai/v1/chat/completions ", b"Authorization: Bearer " + KEY, JSON_BODY, 200, "openai")  # fmt: skip
FLASK = Door("flask", b"POST /authentication/login ", b"", LOGIN_BODY, 401, "admin")
DOORS = (HOT, FLASK)
CHUNKED = b"Transfer-Encoding: chunked"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunked(data: bytes) -> bytes:
    return chunk(data) + b"0\r\n\r\n"


# --- Framing: RFC 9112, 6; RFC 9110, 8.6. L is the true length, G what the door says to an honest call.

FRAMINGS: list[tuple[str, bytes, str, str]] = [
    # name, lines, body (`plain`, `chunked`), what is expected
    ("length", b"Content-Length: @L@", "plain", "G"),
    ("chunked", CHUNKED, "chunked", "G"),
    ("length and chunked", b"Content-Length: @L@\r\nTransfer-Encoding: chunked", "chunked", "400"),
    ("chunked and length", b"Transfer-Encoding: chunked\r\nContent-Length: @L@", "chunked", "400"),
    ("chunked and length 0", b"Transfer-Encoding: chunked\r\nContent-Length: 0", "chunked", "400"),
    ("length and identity", b"Content-Length: @L@\r\nTransfer-Encoding: identity", "plain", "400/501"),
    ("length and unknown coding", b"Content-Length: @L@\r\nTransfer-Encoding: xchunked", "plain", "400/501"),
    ("length and empty coding", b"Content-Length: @L@\r\nTransfer-Encoding:", "plain", "400/501"),
    ("two lengths that differ", b"Content-Length: @L@\r\nContent-Length: 3", "plain", "400"),
    ("two lengths that differ, short first", b"Content-Length: 3\r\nContent-Length: @L@", "plain", "400"),
    ("two lengths, the same", b"Content-Length: @L@\r\nContent-Length: @L@", "plain", "400"),
    ("list of the same length", b"Content-Length: @L@, @L@", "plain", "400"),
    ("list of lengths that differ", b"Content-Length: @L@, 3", "plain", "400"),
    ("length with empty element", b"Content-Length: @L@,", "plain", "400"),
    ("length with plus", b"Content-Length: +@L@", "plain", "400"),
    ("length with minus", b"Content-Length: -@L@", "plain", "400"),
    ("length minus zero", b"Content-Length: -0", "plain", "400"),
    ("length with space inside", b"Content-Length: 1 @L@", "plain", "400"),
    ("length hexadecimal", b"Content-Length: 0x10", "plain", "400"),
    ("length of hex digits", b"Content-Length: 1f", "plain", "400"),
    ("length with point", b"Content-Length: @L@.0", "plain", "400"),
    ("length with exponent", b"Content-Length: 1e1", "plain", "400"),
    ("length with underscore", b"Content-Length: 1_0", "plain", "400"),
    ("length in quotes", b'Content-Length: "@L@"', "plain", "400"),
    ("length with semicolon", b"Content-Length: @L@;a=b", "plain", "400"),
    ("length empty", b"Content-Length:", "plain", "400"),
    ("length of spaces", b"Content-Length:   ", "plain", "400"),
    ("length in Arabic digits", "Content-Length: \u0661\u0660".encode(), "plain", "400"),
    ("length in superscript", b"Content-Length: 1\xb2", "plain", "400"),
    ("length with NUL", b"Content-Length: @L@\0", "plain", "400"),
    ("length after a vertical tab", b"Content-Length: \x0b@L@", "plain", "400"),
    ("length before a form feed", b"Content-Length: @L@\x0c", "plain", "400"),
    ("length after a no-break space", b"Content-Length: \xa0@L@", "plain", "400"),
    ("length beyond 63 bits", b"Content-Length: 9223372036854775808", "plain", "400/413"),
    ("length that wraps at 64 bits", b"Content-Length: 18446744073709551617", "plain", "400/413"),
    ("length of 100 digits", b"Content-Length: " + b"9" * 100, "plain", "400/413"),
    ("length of 5000 digits", b"Content-Length: " + b"9" * 5000, "plain", "400/413/431"),
    ("length with leading zeros", b"Content-Length: 000@L@", "plain", "G"),
    ("length without a space", b"Content-Length:@L@", "plain", "G"),
    ("length between tabs", b"Content-Length:\t@L@\t", "plain", "G"),
    ("length in capitals", b"CONTENT-LENGTH: @L@", "plain", "G"),
    ("length by another spelling too", b"Content-Length: @L@\r\nContent_Length: 3", "plain", "G"),
    ("length with a space before the colon", b"Content-Length : @L@", "plain", "400"),
    ("length with a tab before the colon", b"Content-Length\t: @L@", "plain", "400"),
    ("coding in capitals", b"TRANSFER-ENCODING: CHUNKED", "chunked", "G"),
    ("coding between spaces", b"Transfer-Encoding:   chunked   ", "chunked", "G"),
    ("coding between tabs", b"Transfer-Encoding:\tchunked\t", "chunked", "G"),
    ("coding without a space", b"Transfer-Encoding:chunked", "chunked", "G"),
    ("chunked twice in a list", b"Transfer-Encoding: chunked, chunked", "chunked", "400"),
    ("chunked in two lines", CHUNKED + b"\r\n" + CHUNKED, "chunked", "400"),
    ("gzip, chunked", b"Transfer-Encoding: gzip, chunked", "chunked", "501"),
    ("gzip and chunked in two lines", b"Transfer-Encoding: gzip\r\n" + CHUNKED, "chunked", "400/501"),
    ("chunked, gzip", b"Transfer-Encoding: chunked, gzip", "chunked", "400/501"),
    ("chunked and gzip in two lines", CHUNKED + b"\r\nTransfer-Encoding: gzip", "chunked", "400/501"),
    ("identity, chunked", b"Transfer-Encoding: identity, chunked", "chunked", "400/501"),
    ("chunked, identity", b"Transfer-Encoding: chunked, identity", "chunked", "400/501"),
    ("gzip alone", b"Transfer-Encoding: gzip", "chunked", "400/501"),
    ("identity alone", b"Transfer-Encoding: identity", "chunked", "400/501"),
    ("xchunked", b"Transfer-Encoding: xchunked", "chunked", "400/501"),
    ("chunkedx", b"Transfer-Encoding: chunkedx", "chunked", "400/501"),
    ("chunked in two words", b"Transfer-Encoding: chunked chunked", "chunked", "400/501"),
    ("x chunked", b"Transfer-Encoding: x chunked", "chunked", "400/501"),
    ("chunked in quotes", b'Transfer-Encoding: "chunked"', "chunked", "400/501"),
    ("chunked with a parameter", b"Transfer-Encoding: chunked;q=1", "chunked", "400/501"),
    ("chunked after an empty element", b"Transfer-Encoding: , chunked", "chunked", "G | 400/501"),
    ("chunked before an empty element", b"Transfer-Encoding: chunked,", "chunked", "G | 400/501"),
    ("coding empty", b"Transfer-Encoding:", "chunked", "400/501"),
    ("coding with vertical tab", b"Transfer-Encoding: \x0bchunked", "chunked", "400/501"),
    ("coding with form feed", b"Transfer-Encoding: chunked\x0c", "chunked", "400/501"),
    ("coding with NUL", b"Transfer-Encoding: chunked\0", "chunked", "400"),
    ("coding with a no-break space", b"Transfer-Encoding: \xa0chunked", "chunked", "400/501"),
    ("coding by a long s", "Transfer-Encoding: chun\u212aed".encode(), "chunked", "400/501"),
    ("space before the colon", b"Transfer-Encoding : chunked", "chunked", "400"),
    ("tab before the colon", b"Transfer-Encoding\t: chunked", "chunked", "400"),
    ("vertical tab before the colon", b"Transfer-Encoding\x0b: chunked", "chunked", "400"),
    ("space before the name", b"X: y\r\n Transfer-Encoding: chunked", "chunked", "400"),
    ("coding folded", b"Transfer-Encoding:\r\n chunked", "chunked", "400"),
    ("coding behind a bare LF", b"X: y\nTransfer-Encoding: chunked\r\nContent-Length: @L@", "plain", "400"),
    ("coding behind a bare CR", b"X: y\rTransfer-Encoding: chunked\r\nContent-Length: @L@", "plain", "400"),
    ("underscore for the hyphen, with a length", b"Transfer_Encoding: chunked\r\nContent-Length: @L@", "plain", "G"),
    ("bracketed name", b"Content-Length: @L@\r\n[Transfer-Encoding]: chunked", "plain", "400"),
    ("name with 8-bit end", b"Content-Length: @L@\r\nTransfer-Encoding\xff: chunked", "plain", "400"),
]  # fmt: skip


def _framings() -> list[Case]:
    found = []
    for door in DOORS:
        for name, lines, body, expects in FRAMINGS:
            sent = chunked(door.body) if body == "chunked" else door.body
            lines = lines.replace(b"@L@", str(len(door.body)).encode())
            expected = expects.replace("G", str(door.good))
            found.append(Case(f"{door.name}: {name}", (door.head(lines) + sent,), expected, shape=door.shape if expected[0] != "4" or name.startswith(("length and", "chunked and", "gzip")) else "either"))  # fmt: skip
        old = door.head(CHUNKED, version=b"HTTP/1.0") + chunked(door.body)
        found += [
            Case(f"{door.name}: chunked in HTTP/1.0", (old,), "400"),
            Case(
                f"{door.name}: neither, then a body",
                (door.head() + b"@@@ no request\r\n\r\n",),
                "400/401/422 400",
                closes=True,
            ),
            Case(
                f"{door.name}: more than the length",
                (door.head(b"Content-Length: %d" % len(door.body)) + door.body + b"@@@\r\n\r\n",),
                f"{door.good} 400",
            ),
            Case(
                f"{door.name}: less than the length",
                (door.head(b"Content-Length: 5000") + door.body, HalfClose()),
                " | 400",
                closes=True,
            ),
            Case(
                f"{door.name}: chunks without their end",
                (door.head(CHUNKED) + chunk(door.body), HalfClose()),
                " | 400",
                closes=True,
            ),
        ]
    return found


# --- Chunks: RFC 9112, 7.1. B is the body, N its size in hexadecimal.

CHUNKS: list[tuple[str, bytes, str]] = [
    ("small letters", b"@N@\r\n@B@\r\n0\r\n\r\n", "G"),
    ("leading zeros", b"000@N@\r\n@B@\r\n0\r\n\r\n", "G"),
    ("last of many zeros", b"@N@\r\n@B@\r\n0000\r\n\r\n", "G"),
    ("extension", b"@N@;a=b\r\n@B@\r\n0\r\n\r\n", "G"),
    ("extension without a value", b"@N@;a\r\n@B@\r\n0\r\n\r\n", "G"),
    ("extension in quotes", b'@N@;a="b c"\r\n@B@\r\n0\r\n\r\n', "G"),
    ("extension at the last", b"@N@\r\n@B@\r\n0;a=b\r\n\r\n", "G"),
    ("spaces around an extension", b"@N@ ; a=b\r\n@B@\r\n0\r\n\r\n", "G | 400"),
    ("extension without a name", b"@N@;\r\n@B@\r\n0\r\n\r\n", "G | 400"),
    ("trailer", b"@N@\r\n@B@\r\n0\r\nX-Sum: 1\r\n\r\n", "G"),
    ("two trailers", b"@N@\r\n@B@\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n", "G"),
    ("trailer with a length", b"@N@\r\n@B@\r\n0\r\nContent-Length: 5\r\n\r\n", "G | 400"),
    ("trailer with a coding", b"@N@\r\n@B@\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", "G | 400"),
    ("trailer with a host", b"@N@\r\n@B@\r\n0\r\nHost: evil\r\n\r\n", "G | 400"),
    ("trailer with another key", b"@N@\r\n@B@\r\n0\r\nAuthorization: Bearer x\r\n\r\n", "G | 400"),
    ("size is no number", b"g\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size ends in no digit", b"@N@z\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size empty", b"\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size empty with extension", b";a=b\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size with 0x", b"0x@N@\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size with plus", b"+@N@\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size with minus", b"-@N@\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size minus zero", b"@N@\r\n@B@\r\n-0\r\n\r\n", "400"),
    ("size with underscore", b"0_@N@\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size with point", b"@N@.0\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size with comma", b"@N@,@N@\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size in quotes", b'"@N@"\r\n@B@\r\n0\r\n\r\n', "400"),
    ("size after a space", b" @N@\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size after a tab", b"\t@N@\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size before a space", b"@N@ \r\n@B@\r\n0\r\n\r\n", "G | 400"),
    ("size before a tab", b"@N@\t\r\n@B@\r\n0\r\n\r\n", "G | 400"),
    ("size with a space inside", b"0 @N@\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size before a NUL", b"@N@\0\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size before a vertical tab", b"@N@\x0b\r\n@B@\r\n0\r\n\r\n", "400"),
    ("size in Arabic digits", "\u0661\r\n@B@\r\n0\r\n\r\n".encode(), "400"),
    ("size of all 64 bits", b"ffffffffffffffff\r\n@B@\r\n0\r\n\r\n", "400/413"),
    ("size of 63 bits", b"7fffffffffffffff\r\n@B@\r\n0\r\n\r\n", "400/413"),
    ("size that wraps at 64 bits", b"10000000000000@N@\r\n@B@\r\n0\r\n\r\n", "400/413"),
    ("size that wraps at 64 bits to its own", b"1" + b"0" * 14 + b"@N@\r\n@B@\r\n0\r\n\r\n", "400/413"),
    ("size of 1000 digits", b"f" * 1000 + b"\r\n@B@\r\n0\r\n\r\n", "400/413"),
    ("size that never ends", b"0" * 200_000, "400/413/431"),
    ("bare LF after the size", b"@N@\n@B@\r\n0\r\n\r\n", "400"),
    ("bare CR after the size", b"@N@\r@B@\r\n0\r\n\r\n", "400"),
    ("two CRs after the size", b"@N@\r\r\n@B@\r\n0\r\n\r\n", "400"),
    ("bare LF in an extension", b"@N@;a\nb\r\n@B@\r\n0\r\n\r\n", "400"),
    ("bare CR in an extension", b"@N@;a\rb\r\n@B@\r\n0\r\n\r\n", "400"),
    ("NUL in an extension", b"@N@;a\0b\r\n@B@\r\n0\r\n\r\n", "400"),
    ("bare LF in a quoted extension", b'@N@;a="\n"\r\n@B@\r\n0\r\n\r\n', "400"),
    ("extension of 200 kB", b"@N@;" + b"a" * 200_000 + b"\r\n@B@\r\n0\r\n\r\n", "400/413/431"),
    ("extension that never ends", b"@N@;" + b"a" * 1_000_000, "400/413/431"),
    ("no CRLF after the data", b"@N@\r\n@B@0\r\n\r\n", "400"),
    ("bare LF after the data", b"@N@\r\n@B@\n0\r\n\r\n", "400"),
    ("bare CR after the data", b"@N@\r\n@B@\r0\r\n\r\n", "400"),
    ("something else after the data", b"@N@\r\n@B@xx0\r\n\r\n", "400"),
    ("more data than its size", b"@N@\r\n@B@more\r\n0\r\n\r\n", "400"),
    ("less data than its size", b"f@N@\r\n@B@\r\n0\r\n\r\n" + b"x" * 5000, "400"),
    ("bare LF after the last size", b"@N@\r\n@B@\r\n0\n\r\n", "400"),
    ("bare LFs at the end", b"@N@\r\n@B@\r\n0\n\n", "400"),
    ("bare LF at the very end", b"@N@\r\n@B@\r\n0\r\n\n", "400"),
    ("something at the very end", b"@N@\r\n@B@\r\n0\r\nxx\r\n\r\n", "400"),
    ("trailer without a colon", b"@N@\r\n@B@\r\n0\r\nX-Sum\r\n\r\n", "400"),
    ("trailer with a space before the colon", b"@N@\r\n@B@\r\n0\r\nX-Sum : 1\r\n\r\n", "400"),
    ("trailer without a name", b"@N@\r\n@B@\r\n0\r\n: 1\r\n\r\n", "400"),
    ("trailer folded", b"@N@\r\n@B@\r\n0\r\nX-Sum: 1\r\n 2\r\n\r\n", "400"),
    ("trailer with bare LF", b"@N@\r\n@B@\r\n0\r\nX-Sum: 1\n\r\n", "400"),
    ("trailer with bare CR", b"@N@\r\n@B@\r\n0\r\nX-Sum: 1\r2\r\n\r\n", "400"),
    ("trailer with NUL", b"@N@\r\n@B@\r\n0\r\nX-Sum: \0\r\n\r\n", "400"),
    ("trailer of 200 kB", b"@N@\r\n@B@\r\n0\r\nX-Sum: " + b"a" * 200_000 + b"\r\n\r\n", "400/413/431"),
    ("5000 trailers", b"@N@\r\n@B@\r\n0\r\n" + b"X: y\r\n" * 5000 + b"\r\n", "400/413/431"),
    ("trailer that never ends", b"@N@\r\n@B@\r\n0\r\nX-Sum: " + b"a" * 1_000_000, "400/413/431"),
]  # fmt: skip


def _chunks() -> list[Case]:
    found = []
    for door in DOORS:
        for name, body, expects in CHUNKS:
            sent = body.replace(b"@B@", door.body).replace(b"@N@", b"%x" % len(door.body))
            found.append(Case(f"{door.name}: chunk: {name}", (door.head(CHUNKED) + sent,), expects.replace("G", str(door.good)), shape=door.shape))  # fmt: skip
        single = b"".join(chunk(door.body[i : i + 1]) for i in range(len(door.body)))
        pieces = tuple(door.body[i : i + 7] for i in range(0, len(door.body), 7))
        parted: list[Step] = [door.head(CHUNKED)]
        for piece in pieces:
            parted += [chunk(piece)[:2], chunk(piece)[2:-1], chunk(piece)[-1:]]
        found += [
            Case(f"{door.name}: chunks of one byte", (door.head(CHUNKED) + single + b"0\r\n\r\n",), str(door.good)),
            Case(f"{door.name}: chunks in pieces", (*parted, b"0\r\n", b"\r\n"), str(door.good)),
            Case(f"{door.name}: capital digits", (door.head(CHUNKED) + b"%X\r\n%s\r\n0\r\n\r\n" % (len(door.body), door.body),), str(door.good)),
        ]  # fmt: skip
    # Size is judged as it comes (a body that nobody limits would be read for ever).
    large = chunk(b" " * 65536)
    found.append(Case("hot: chunks beyond the size", (HOT.head(CHUNKED), *([large] * 40), b"0\r\n\r\n"), "413", shape="openai"))  # fmt: skip
    return found


# --- Heads: RFC 9112, 2 to 5; RFC 9110, 5 and 7.2.

HEADS: list[tuple[str, bytes, str]] = [
    # --- line ends
    ("honest", HEALTH, "200"),
    ("bare LF everywhere", b"GET /healthz HTTP/1.1\nHost: x\n\n", "400"),
    ("bare LF after the request line", b"GET /healthz HTTP/1.1\nHost: x\r\n\r\n", "400"),
    ("bare LF after a header", b"GET /healthz HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", "400"),
    ("bare LF at the end", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\n", "400"),
    ("bare LF before the end", b"GET /healthz HTTP/1.1\r\nHost: x\n\r\n", "400"),
    ("bare CR in the request line", b"GET /healthz\r HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("bare CR in a value", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", "400"),
    ("bare CR before a name", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\rA: b\r\n\r\n", "400"),
    ("two CRs at a line's end", b"GET /healthz HTTP/1.1\r\nHost: x\r\r\n\r\n", "400"),
    ("LF CR", b"GET /healthz HTTP/1.1\n\rHost: x\n\r\n\r", "400"),
    ("one CRLF before", b"\r\n" + HEALTH, "200"),
    ("two CRLFs before", b"\r\n\r\n" + HEALTH, "200 | 400"),
    ("thousands of CRLFs before", b"\r\n" * 20_000 + HEALTH, "400/414/431"),
    ("bare LF before", b"\n" + HEALTH, "200 | 400"),
    ("bare CR before", b"\r" + HEALTH, "400"),
    ("space before", b" " + HEALTH, "400"),
    ("NUL before", b"\0" + HEALTH, "400"),
    ("UTF-8 BOM before", b"\xef\xbb\xbf" + HEALTH, "400"),
    ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x11" * 60 + b"\r\n\r\n", "400"),
    ("garbage", b"@@@@\r\n\r\n", "400"),
    # --- header lines
    ("folded value", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", "400"),
    ("folded with tab", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n\tc\r\n\r\n", "400"),
    ("folded to nothing", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n \r\n\r\n", "400"),
    ("folded host", b"GET /healthz HTTP/1.1\r\nHost:\r\n x\r\n\r\n", "400"),
    ("space before the first header", b"GET /healthz HTTP/1.1\r\n Host: x\r\n\r\n", "400"),
    ("tab before the first header", b"GET /healthz HTTP/1.1\r\n\tA: b\r\nHost: x\r\n\r\n", "400"),
    ("no colon", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", "400"),
    ("space before the colon", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", "400"),
    ("space before the host's colon", b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", "400"),
    ("tab before the colon", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA\t: b\r\n\r\n", "400"),
    ("no name", b"GET /healthz HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", "400"),
    *[
        (f"name with {byte:#04x}", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA%cB: b\r\n\r\n" % byte, "400")
        for byte in b"\0\x01\x09\x0b\x0c\x1f \"(),/;<=>?@[\\]{}\x7f\x80\xff"
    ],
    *[
        (f"name with {byte:#04x}", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA%cB: b\r\n\r\n" % byte, "200")
        for byte in b"!#$%&'*+-.^_`|~9"
    ],
    ("value with NUL", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", "400"),
    *[
        # RFC 9110, 5.5: invalid, but may be kept.
        (f"value with {byte:#04x}", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b%cc\r\n\r\n" % byte, "200 | 400")
        for byte in b"\x01\x08\x0b\x0c\x1b\x7f"
    ],
    ("value with tab", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\tc\r\n\r\n", "200"),
    ("value of 8-bit bytes", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: \xe4\xff\x80\r\n\r\n", "200"),
    ("value empty", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA:\r\n\r\n", "200"),
    ("value of spaces", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA:   \t \r\n\r\n", "200"),
    ("value of colons", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA::::\r\n\r\n", "200"),
    # --- Host
    ("no host", b"GET /healthz HTTP/1.1\r\nA: b\r\n\r\n", "400"),
    ("no headers", b"GET /healthz HTTP/1.1\r\n\r\n", "400"),
    ("two hosts", b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400"),
    ("two hosts, the same", b"GET /healthz HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n", "400"),
    ("host empty", b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", "200 | 400"),
    *[
        (f"host {host!r}", b"GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n" % host, "400")
        for host in (b"a b", b"a/b", b"a@b", b"a?b", b"a#b", b"a\\b", b"a:b", b"a:1:2", b"[::1", b"[zz]", b"::1", b"a:-1", b"a<b", b'a"b', b"\xe4", b"http://x")
    ],
    *[
        (f"host {host!r}", b"GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n" % host, "200")
        for host in (b"x:80", b"x:", b"X.Example", b"127.0.0.1:3001", b"[::1]", b"[::1]:3001", b"a_b", b"a-b.c.")
    ],
    # --- versions
    ("HTTP/1.0", b"GET /healthz HTTP/1.0\r\n\r\n", "200!"),
    ("HTTP/1.0 with host", b"GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n", "200!"),
    ("HTTP/1.0 with two hosts", b"GET /healthz HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", "400"),
    ("HTTP/0.9", b"GET /healthz\r\n\r\n", "400/505"),
    ("HTTP/0.9 by name", b"GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n", "400/505"),
    ("HTTP/1.2", b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n", "200 | 505"),
    ("HTTP/2.0", b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", "505"),
    ("HTTP/3.0", b"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", "505"),
    ("HTTP/9.9", b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n", "505"),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400/505"),
    *[
        (f"version {version!r}", b"GET /healthz %s\r\nHost: x\r\n\r\n" % version, "400/505")
        for version in (b"http/1.1", b"HTTP/1", b"HTTP/1.", b"HTTP/.1", b"HTTP/11", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1.1x", b"HTTP/+1.1", b"HTTP/-1.1", b"HTTP /1.1", b"HTTP/1 .1", b"HTTX/1.1", b"ICY/1.1", b"HTTP1.1", b"HTTP/1.1 ", b"HTTP/1.1 x", b"HTTP/1.\xb9")
    ],
    # --- methods
    ("method unknown", b"FOO /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "405/501"),
    ("method unknown on the hot route", b"FOO /ai/v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n", "401/404/405/501"),
    ("method in small letters", b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "400/405/501"),
    ("method of odd token bytes", b"M-SEARCH~! /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "400/405/501"),
    ("method missing", b" /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("method of 200 kB", b"G" * 200_000 + b" /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "400/414/501"),
    *[
        (f"method with {byte:#04x}", b"GE%cT /healthz HTTP/1.1\r\nHost: x\r\n\r\n" % byte, "400/501")
        for byte in b"\0\x01()/:@[{\"\x7f\xff"
    ],
    ("CONNECT", b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", "400/404/405/501"),
    ("TRACE", b"TRACE /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "405/501"),
    ("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "200/204/400/404/405"),
    ("GET *", b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", "400/404"),
    # --- targets
    ("absolute form", b"GET http://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
    ("absolute form in capitals", b"GET HTTP://X/healthz HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
    ("absolute form with another host", b"GET http://y/healthz HTTP/1.1\r\nHost: x\r\n\r\n", "200 | 400"),
    ("absolute form without a host line", b"GET http://x/healthz HTTP/1.1\r\n\r\n", "400"),
    ("absolute form with a user", b"GET http://u:p@x/healthz HTTP/1.1\r\nHost: x\r\n\r\n", "200 | 400"),
    ("absolute form without an authority", b"GET http:///healthz HTTP/1.1\r\nHost: x\r\n\r\n", "200 | 400"),
    ("absolute form of another scheme", b"GET ftp://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n", "200/400/404"),
    ("authority form", b"GET x:80 HTTP/1.1\r\nHost: x\r\n\r\n", "400/404"),
    ("relative target", b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n", "400/404"),
    ("target empty", b"GET  HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("fragment", b"GET /healthz#x HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("fragment in the query", b"GET /healthz?a#x HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("space in the target", b"GET /healthz x HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("space in the query", b"GET /healthz?a b HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("two spaces after the method", b"GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("two spaces before the version", b"GET /healthz  HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("tabs for spaces", b"GET\t/healthz\tHTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("vertical tabs for spaces", b"GET\x0b/healthz\x0bHTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("tab in the target", b"GET /heal\tthz HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("NUL in the target", b"GET /heal\0thz HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("control byte in the target", b"GET /heal\x01thz HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("DEL in the target", b"GET /heal\x7fthz HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ("escaped NUL in the target", b"GET /heal%00thz HTTP/1.1\r\nHost: x\r\n\r\n", "400/404"),
    ("escaped CRLF in the target", b"GET /heal%0d%0aA:%20b HTTP/1.1\r\nHost: x\r\n\r\n", "400/404"),
    ("wrong escape in the target", b"GET /heal%zz HTTP/1.1\r\nHost: x\r\n\r\n", "400/404"),
    ("8-bit bytes in the target", b"GET /heal\xc3\xa4\xff HTTP/1.1\r\nHost: x\r\n\r\n", "400/404"),
    ("two slashes", b"GET //healthz HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
    ("dots", b"GET /x/../healthz HTTP/1.1\r\nHost: x\r\n\r\n", "400/404"),
    ("escaped dots", b"GET /x/%2e%2e/healthz HTTP/1.1\r\nHost: x\r\n\r\n", "400/404"),
    # --- sizes
    ("request line of 7,900 bytes", b"GET /healthz?" + b"a" * 7_880 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
    ("request line of 200 kB", b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "414"),
    ("query of 200 kB", b"GET /healthz?" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "414"),
    ("request line that never ends", b"GET /" + b"a" * 1_000_000, "414"),
    ("header of 8 kB", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 8_000 + b"\r\n\r\n", "200"),
    ("header of 200 kB", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200_000 + b"\r\n\r\n", "431"),
    ("header that never ends", b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 1_000_000, "431"),
    ("name of 200 kB", b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"a" * 200_000 + b": b\r\n\r\n", "400/431"),
    ("90 headers", b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 90 + b"\r\n", "200"),
    ("2,000 headers", b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 2_000 + b"\r\n", "431"),
    ("headers that never end", b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200_000, "431"),
    ("60 headers of 8 kB", b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + (b"A: " + b"a" * 8_000 + b"\r\n") * 60 + b"\r\n", "431"),
    # --- Expect without a body, upgrades
    ("expectation unknown", b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", "417"),
    ("expectation unknown beside 100-continue", b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: 100-continue, tea\r\n\r\n", "417"),
    ("h2c upgrade", b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", "200"),
    ("websocket upgrade", b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n", "426"),
]  # fmt: skip


def _heads() -> list[Case]:
    found = []
    for name, data, expects in HEADS:
        closes = True if expects.endswith("!") else None
        # A header that no field may name: the connection ends only with the refusal that a server makes.
        if "404" in expects or "405" in expects or "200/" in expects:
            found.append(Case(f"head: {name}", (data,), expects, closes=None))
        else:
            found.append(Case(f"head: {name}", (data,), expects.rstrip("!"), closes=closes))
    # The same for the route that is answered directly, where the target is known.
    length = b"Content-Length: %d" % len(JSON_BODY)
    for name, line in (
        ("folded", b"A: b\r\n c"), ("no colon", b"A"), ("bare LF", b"A: b\nC: d"), ("bare CR", b"A: b\rC: d"), ("NUL", b"A: \0"),
        ("no name", b": a"), ("space before the colon", b"A : b"), ("second host", b"Host: y"), ("8-bit name", b"\xe4: b"),
    ):  # fmt: skip
        found.append(Case(f"hot: head: {name}", (HOT.head(length, line) + JSON_BODY,), "400"))
    return found


# --- Connections: RFC 9112, 9; RFC 9110, 7.6.1 and 10.1.1


def _get(*lines: bytes, version: bytes = b"HTTP/1.1", method: bytes = b"GET") -> bytes:
    return b"\r\n".join((method + b" /healthz " + version, b"Host: x", *lines)) + b"\r\n\r\n"


_LENGTH = b"Content-Length: %d" % len(JSON_BODY)
_CALL = HOT.head(_LENGTH) + JSON_BODY
_STRANGER = HOT.head(_LENGTH).replace(b"Bearer " + KEY, b"Bearer nobody")
_CONTINUE = b"Expect: 100-continue"

CONNECTIONS = [
    Case("kept by default", (_get() + _get(),), "200 200"),
    Case("HTTP/1.0 closes by default", (_get(version=b"HTTP/1.0") + SMUGGLED,), "200", closes=True),
    Case("HTTP/1.0 is kept when asked for", (_get(b"Connection: keep-alive", version=b"HTTP/1.0") + _get(),), "200 200"),
    Case("HTTP/1.0 is kept when asked for in capitals", (_get(b"Connection: Keep-Alive", version=b"HTTP/1.0"),), "200"),
    Case("HTTP/1.0 with close", (_get(b"Connection: close", version=b"HTTP/1.0") + SMUGGLED,), "200", closes=True),
    *[
        Case(f"close by {line!r}", (_get(line) + SMUGGLED,), "200", closes=True)
        for line in (b"Connection: close", b"Connection: CLOSE", b"Connection:close", b"Connection: close, x", b"Connection: x, close", b"Connection: x ,\tclose ,", b"Connection: x\r\nConnection: close", b"Connection: keep-alive, close", b"connection: Close, keep-alive")
    ],
    *[
        Case(f"kept by {line!r}", (_get(line) + _get(),), "200 200")
        for line in (b"Connection: keep-alive", b"Connection: closed", b"Connection: x-close", b"Connection: x", b"Connection:", b"Connection: TE\r\nTE: trailers", b"Keep-Alive: timeout=1", b"Proxy-Connection: close")
    ],
    Case("twenty at once", (_get() * 20,), " ".join(["200"] * 20)),
    Case("a hundred at once", (_get() * 100,), " ".join(["200"] * 100)),
    Case("twenty calls at once", (_CALL * 20,), " ".join(["200"] * 20)),
    Case("calls and others by turns", ((_CALL + HEALTH + FLASK.head(b"Content-Length: %d" % len(LOGIN_BODY)) + LOGIN_BODY + HOT.head(CHUNKED) + chunked(JSON_BODY)) * 3,), " ".join(["200 200 401 200"] * 3)),
    Case("CRLF between requests", (_CALL + b"\r\n" + _get() + b"\r\n" + _get(),), "200 200 200"),
    Case("error in the middle", (_get() + b"@@@\r\n\r\n" + SMUGGLED * 3,), "200 400"),
    Case("error after a call", (_CALL + b"GET /x\r\n\r\n" + SMUGGLED,), "200 400/505"),
    Case("bad chunk in the middle", (_get() + HOT.head(CHUNKED) + b"zz\r\n" + SMUGGLED * 3,), "200 400", shape="openai"),
    Case("close in the middle", (_get() + _get(b"Connection: close") + SMUGGLED * 3,), "200 200", closes=True),
    Case("HTTP/1.0 in the middle", (_get() + _get(version=b"HTTP/1.0") + SMUGGLED * 3,), "200 200", closes=True),
    Case("HEAD has no body", (_get(method=b"HEAD") + _get(),), "200 200", heads=(0,)),
    Case("HEAD that is refused", (b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" + _get(),), "404 200", heads=(0,)),
    Case("HEAD of the hot route", (b"HEAD /ai/v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n" + _get(),), "401/404/405 200", heads=(0,)),
    Case("GET with a body", (_get(b"Content-Length: 38") + b"GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"[:38] + _get(),), "200 200"),
    Case("GET with chunks", (_get(CHUNKED) + chunked(SMUGGLED) + _get(),), "200 200 | 200"),
    Case("DELETE with a body", (b"DELETE /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,), "404/405"),
    Case("GET of the hot route with a body", (b"GET /ai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,), "401/404/405", shape="openai"),
    Case("body of a route that is not there", (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,), "404"),
    Case("stranger's body is no request", (_STRANGER.replace(_LENGTH, b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED,), "401", shape="openai"),
    Case("stranger's body comes later", (_STRANGER.replace(_LENGTH, b"Content-Length: %d" % len(SMUGGLED)), Await(), Pause(0.1), SMUGGLED), "401", shape="openai"),
    Case("stranger's chunks are no request", (_STRANGER.replace(_LENGTH, CHUNKED) + chunked(SMUGGLED),), "401", shape="openai"),
    Case("stranger's bad chunks are no request", (_STRANGER.replace(_LENGTH, CHUNKED) + b"zz\r\n" + SMUGGLED,), "401 | 400", closes=True, shape="openai"),
    Case("stranger is told before the body", (_STRANGER.replace(_LENGTH, b"Content-Length: 900000"),), "401", closes=True, shape="openai"),
    Case("stranger with too large a body", (_STRANGER.replace(_LENGTH, b"Content-Length: 900000000"),), "401/413", closes=True, shape="openai"),
    Case("too large by its length", (HOT.head(b"Content-Length: %d" % (MAX_BODY + 1)),), "413", shape="openai"),
    Case("too large by its length, behind Flask", (FLASK.head(b"Content-Length: %d" % (MAX_BODY * 200)),), "413", shape="admin"),
    Case("just small enough", (HOT.head(b"Content-Length: %d" % MAX_BODY), JSON_BODY + b" " * (MAX_BODY - len(JSON_BODY))), "200"),
    Case("continue", (HOT.head(_LENGTH, _CONTINUE), Await(), JSON_BODY), "100 200"),
    Case("continue in capitals", (HOT.head(_LENGTH, b"EXPECT: 100-Continue"), Await(), JSON_BODY), "100 200"),
    Case("continue with chunks", (HOT.head(CHUNKED, _CONTINUE), Await(), chunked(JSON_BODY)), "100 200"),
    Case("continue behind Flask", (FLASK.head(b"Content-Length: %d" % len(LOGIN_BODY), _CONTINUE), Await(), LOGIN_BODY), "100 401", shape="admin"),
    Case("continue twice on a connection", (HOT.head(_LENGTH, _CONTINUE), Await(), JSON_BODY + HOT.head(_LENGTH, _CONTINUE), Await(2), JSON_BODY), "100 200 100 200"),
    Case("continue with the body there", (HOT.head(_LENGTH, _CONTINUE) + JSON_BODY,), "200 | 100 200"),
    Case("continue without a body", (_get(_CONTINUE),), "200 | 100 200"),
    Case("continue of a stranger", (_STRANGER.replace(b"\r\n\r\n", b"\r\n" + _CONTINUE + b"\r\n\r\n"),), "401", closes=True, shape="openai"),
    Case("continue of somebody without a key", (HOT.head(_LENGTH, _CONTINUE).replace(HOT.more + b"\r\n", b""),), "401", closes=True, shape="openai"),
    Case("continue with too large a body", (HOT.head(b"Content-Length: %d" % (MAX_BODY + 1), _CONTINUE),), "413", shape="openai"),
    Case("continue in HTTP/1.0", (HOT.head(_LENGTH, _CONTINUE, version=b"HTTP/1.0") + JSON_BODY,), "200", closes=True),
    Case("another expectation on the hot route", (HOT.head(_LENGTH, b"Expect: 200-ok") + JSON_BODY,), "417", shape="openai"),
    Case("another expectation behind Flask", (FLASK.head(b"Content-Length: %d" % len(LOGIN_BODY), b"Expect: 200-ok") + LOGIN_BODY,), "417", shape="admin"),
    Case("one byte at a time", (Trickle(_CALL),), "200"),
    Case("one byte at a time, chunks", (Trickle(HOT.head(CHUNKED) + chunked(JSON_BODY)),), "200"),
    Case("head and body apart", (HOT.head(_LENGTH), Pause(0.1), JSON_BODY), "200"),
    Case("half-closed within the head", (b"GET /healthz HT", HalfClose()), " | 400", closes=True),
    Case("half-closed before anything", (HalfClose(),), "", closes=True),
    Case("half-closed after nothing but CRLF", (b"\r\n", HalfClose()), "", closes=True),
    # A half-closed connection counts as gone: an answer may come or not, but the connection ends.
    Case("half-closed after a request", (_get(), HalfClose()), "200 | ", closes=True),
    Case("half-closed after a call", (_CALL, HalfClose()), "200 | 499 | ", closes=True),
]  # fmt: skip

CASES = [*_framings(), *_chunks(), *_heads(), *CONNECTIONS]
