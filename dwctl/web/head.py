"""A request's head, judged: from the bytes before the empty line to a value that nobody has to doubt. Pure.

The C parser of gunicorn reads; what it takes and RFC 9112 does not (bare LF, folded lines, two hosts, lengths beside codings) is refused
here, because whoever stands in front of us may read such a request differently: what is one request for us must be one for everybody.
"""

from __future__ import annotations

import re
from functools import lru_cache

import gunicorn_h1c as h1c
import msgspec

from dwctl.errors import DwctlError
from dwctl.web.refusals import Malformed

END = b"\r\n\r\n"
MAX_BYTES = 64 * 1024
"""Of a whole head; lines and fields have limits of their own."""
MAX_LINE = 8190
MAX_FIELDS = 100
_BLANK_LINES = 4
_TOO_MANY_FIELDS = (
    f"The request has more than {MAX_FIELDS} header fields, or one of more than {MAX_LINE} bytes."
)

_SINGLE = frozenset({"host", "content-type", "content-length", "authorization", "expect"})  # fmt: skip
_AUTHORITY = re.compile(
    r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~%!$&'()*+,;=-]{0,255})(?::[0-9]{0,5})?"
)
_ABSOLUTE = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]+)(.*)", re.DOTALL)
_TARGET = re.compile(rb"[\x21\x22\x24-\x7e\x80-\xff]+")
_LENGTH = re.compile(r"[0-9]{1,18}")


class NotSupported(DwctlError):
    """This server speaks HTTP/1.1 and HTTP/1.0."""

    code = "http_version_not_supported"
    status = 505


class UnknownCoding(DwctlError):
    """The only transfer coding that is taken is `chunked`."""

    code = "unsupported_transfer_coding"
    status = 501


class LineTooLong(DwctlError):
    """The request line is too long."""

    code = "uri_too_long"
    status = 414


class FieldsTooLarge(DwctlError):
    """The request has too many header fields, or one that is too long."""

    code = "header_fields_too_large"
    status = 431


class UnknownExpectation(DwctlError):
    """The only expectation that is understood is `100-continue`."""

    code = "expectation_failed"
    status = 417


class Head(msgspec.Struct, frozen=True):
    """A request as it was announced.

    `target` as it was sent; `path` and `query` of it, still percent-encoded. `headers`: names in lower case, values latin-1, in order; `first`:
    the first value of each. `length` of the body; None where it comes in chunks.
    """

    method: str
    target: str
    path: str
    query: str
    is_1_1: bool
    headers: list[tuple[str, str]]
    first: dict[str, str]
    length: int | None
    keeps_alive: bool
    expects_continue: bool


def end_of(received: bytes, searched: int = 0) -> int:
    """Where the head ends, behind its empty line; 0 while it has not come in full. Raises DwctlError where it never can.

    `searched`: so many bytes were there before and did not end it. A head that comes byte by byte is not searched anew for each.
    """
    end = received.find(END, max(0, searched - 3)) + len(END)
    if end >= len(END):
        if end > MAX_BYTES:
            raise FieldsTooLarge()
        return end
    start = searched - received.endswith(b"\r", 0, searched)
    if received.count(b"\n", start) != received.count(b"\r\n", start):
        raise Malformed("A line of the request's head ends without a carriage return.")
    if len(received) > MAX_LINE + 2 and received.find(b"\r\n", 0, MAX_LINE + 2) < 0:
        raise LineTooLong(f"The request line has more than {MAX_LINE} bytes.")
    if len(received) > MAX_BYTES:
        raise FieldsTooLarge()
    return 0


def without_blank_lines(received: bytes) -> bytes:
    """Without the few empty lines that clients send behind a body that should not have had them (RFC 9112, 2.2)."""
    for _ in range(_BLANK_LINES):
        if not received.startswith(b"\r\n"):
            break
        received = received[2:]
    return received


def read(received: bytes, end: int) -> Head:
    """The head that ends at `end`. Raises DwctlError for one that two readers could read in two ways."""
    try:
        found = h1c.parse_request(
            received[:end],
            limit_request_line=MAX_LINE,
            limit_request_fields=MAX_FIELDS,
            limit_request_field_size=MAX_LINE,
        )
    except Exception as error:
        if received.count(b"\n", 0, end) > MAX_FIELDS + 2:
            # Beyond 256 fields the parser calls it no HTTP.
            raise FieldsTooLarge(_TOO_MANY_FIELDS) from None
        raise _refusal(error) from None
    target = found["path"]
    if (
        found["consumed"] != end
        or received.count(b"\n", 0, end) != received.count(b"\r\n", 0, end)
        or not received.startswith(b"%b %b HTTP/1." % (found["method"], target))
    ):
        raise Malformed(
            "The request's head has a line that is none: each ends with CR LF, and holds one blank between its parts."
        )
    headers, first = _fields(found["headers"])
    is_1_1 = found["minor_version"] == 1
    method = found["method"].decode()
    target, path, query = _target(method, target, headers, first, is_1_1=is_1_1)
    connection = first.get("connection")
    return Head(
        method,
        target,
        path,
        query,
        is_1_1,
        headers,
        first,
        _length(first, is_1_1=is_1_1),
        is_1_1 if connection is None else _keeps_alive(connection, is_1_1=is_1_1),
        "expect" in first and _expects(first["expect"], is_1_1=is_1_1),
    )


def path_of(received: bytes) -> str:
    """The path of a request that could not be read, as far as one can tell: it decides the form of the refusal."""
    parts = received[:MAX_LINE].split(b" ", 2)
    return parts[1].decode("latin-1") if len(parts) > 1 else ""


def _fields(found: list[tuple[bytes, bytes]]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The fields, and the first value of each name; all of them, where they decide about the message. Names with an underscore are left out:
    they become the same name as those with a hyphen wherever a header is turned into a variable.
    """
    headers: list[tuple[str, str]] = []
    first: dict[str, str] = {}
    for raw, value in found:
        name = _NAMES.get(raw)
        if name is None:
            name = _name(raw)
        if name == "":
            if not raw:
                raise Malformed("A header line begins with a blank: folded lines are not taken.")
            continue
        text = value.decode("latin-1")
        headers.append((name, text))
        if name not in first:
            first[name] = text
        elif name in _SINGLE:
            raise Malformed(f"The header `{name}` stands there twice.")
        elif name in _LISTS:
            first[name] += f",{text}"
    return headers, first


_LISTS = frozenset({"connection", "transfer-encoding"})
_NAMES: dict[bytes, str] = {}
_NAMES_KEPT = 2048


def _name(raw: bytes) -> str:
    """In lower case; nothing where it is left out. Kept, as the same few come again and again."""
    name = "" if b"_" in raw else raw.decode("latin-1").lower()
    if len(_NAMES) < _NAMES_KEPT and len(raw) <= 64:
        _NAMES[raw] = name
    return name


def _target(
    method: str,
    target: bytes,
    headers: list[tuple[str, str]],
    first: dict[str, str],
    *,
    is_1_1: bool,
) -> tuple[str, str, str]:
    """Target, path and query. The authority of an absolute target replaces the Host (RFC 9112, 3.2.2)."""
    if not _TARGET.fullmatch(target):
        raise Malformed("The request's target has characters that no target can have.")
    text = target.decode("latin-1")
    host = first.get("host")
    if host is None:
        if is_1_1:
            raise Malformed("The header `host` is missing.")
    elif not _is_authority(host):
        raise Malformed("The header `host` is not a host.")
    origin = text
    if text[0] != "/":
        absolute = _ABSOLUTE.fullmatch(text)
        if absolute is not None and method != "CONNECT":
            authority, origin = absolute.groups()
            if not _is_authority(authority):
                raise Malformed("The request's target names no host.")
            headers[:] = [field for field in headers if field[0] != "host"]
            headers.insert(0, ("host", authority))
            first["host"] = authority
            if not origin.startswith("/"):
                origin = "/" + origin
        elif text != "*" or method != "OPTIONS":
            raise Malformed("The request's target is neither a path nor an address.")
    path, _, query = origin.partition("?")
    return text, path, query


@lru_cache(256)
def _is_authority(host: str) -> bool:
    return _AUTHORITY.fullmatch(host) is not None


def _length(first: dict[str, str], *, is_1_1: bool) -> int | None:
    """RFC 9112, 6.3: what decides where the body ends. Both at once, or a coding that a 1.0 reader cannot know, is how requests are smuggled."""
    coding = first.get("transfer-encoding")
    stated = first.get("content-length")
    if coding is not None:
        if stated is not None:
            raise Malformed("A body has a length or comes in chunks, not both.")
        if not is_1_1:
            raise Malformed("HTTP/1.0 has no transfer codings.")
        if coding.lower() == "chunked":
            return None
        names = [name.strip().lower() for name in coding.split(",")]
        if "chunked" in names[:-1] or not all(names):
            raise Malformed("`chunked` stands last in `transfer-encoding`, once.")
        raise UnknownCoding()
    if stated is None:
        return 0
    if not _LENGTH.fullmatch(stated):
        raise Malformed("The header `content-length` is not a length.")
    return int(stated)


def _keeps_alive(connection: str, *, is_1_1: bool) -> bool:
    options = {option.strip().lower() for option in connection.split(",")}
    return "close" not in options and (is_1_1 or "keep-alive" in options)


def _expects(expectation: str, *, is_1_1: bool) -> bool:
    if not is_1_1:
        return False
    if expectation.lower() != "100-continue":
        raise UnknownExpectation()
    return True


def _refusal(error: Exception) -> DwctlError:
    if isinstance(error, h1c.LimitRequestLine):
        return LineTooLong(f"The request line has more than {MAX_LINE} bytes.")
    if isinstance(error, h1c.LimitRequestHeaders):
        return FieldsTooLarge(_TOO_MANY_FIELDS)
    if isinstance(error, h1c.InvalidHTTPVersion):
        return NotSupported()
    # The parser's own words hold bytes of the request.
    return Malformed(_WORDS.get(type(error), "The request's first lines are not HTTP."))


_WORDS = {
    h1c.InvalidRequestMethod: "The request's method has characters that no method can have.",
    h1c.InvalidHeaderName: "The name of a header has characters that no name can have.",
    h1c.InvalidHeader: "A header has a value that it cannot have, stands there twice, or does not go with another one.",
}
