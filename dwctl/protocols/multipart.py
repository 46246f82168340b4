"""One field of a form (multipart/form-data, RFC 7578): found, and replaced without touching a byte of the others. Pure.

Servers read forms in many ways: names in words of RFC 2231, folded lines, escapes, a preamble, bare line feeds. What two of them could read
in two ways is refused here: a field that only the server sees would name another model than the one that was judged.
"""

from __future__ import annotations

import re

from dwctl.protocols.errors import InvalidRequest

_QUOTED = r'"(?:[^"\\\r\n]*+"|(?:[^";\\\r\n]++|\\[^;\r\n])*+")'
# A `;` behind a backslash is within the value for some, and begins a parameter for others.
_PARAMETER = rf"[ \t]*+;[ \t]*+([A-Za-z0-9_-]++\*?)=({_QUOTED}|[^\s\x00-\x1f\";,\\]++)"
_PARAMETERS = re.compile(_PARAMETER, re.ASCII)
# Possessive throughout: eight kilobytes of blanks are read once.
_VALUE = re.compile(
    rf"[ \t]*+[A-Za-z-]++(?:/[A-Za-z-]++)?+((?:{_PARAMETER})*+)[ \t]*+;?[ \t]*+", re.ASCII
)
_IN_PARTS = frozenset({"name", "filename", "filename*"})
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)|\r\n[ \t]|\x00")
_LONGEST_BOUNDARY = 70
_MOST_HEADERS = 8192
_MOST_PARTS = 1000

Span = tuple[int, int]


def is_form(content_type: str) -> bool:
    """Whether a body of that type is a form."""
    return content_type.split(";")[0].strip().lower() == "multipart/form-data"


def find_field(body: bytes, content_type: str, name: str) -> Span | None:
    """Where the value of a field stands; None where there is none of that name.

    Raises InvalidRequest for what is no form, or one that can be read in two ways, and for a field that is there twice or is a file.
    """
    boundary = (_parameters(content_type) or {}).get("boundary", "")
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise _malformed("its type names no boundary, or not only that")
    mark = b"\r\n--" + boundary.encode("latin-1")
    found: Span | None = None
    # The first boundary may be the first line. One that only some would take for it must not be before.
    first = 0 if body.startswith(mark[2:]) else body.find(mark)
    if first < 0 or body.find(mark[2:]) not in (first, first + 2):
        raise _malformed("its boundary is not in it, or in its preamble")
    at = body.find(mark[2:], first) + len(mark) - 2
    for _ in range(_MOST_PARTS):
        if body.startswith(b"--", at):
            return found
        headers_at = body.find(b"\r\n", at, at + 256)
        end = body.find(mark, at)
        if headers_at < 0 or end < 0 or body[at:headers_at].strip(b" \t"):
            raise _malformed("it ends before its last boundary does")
        value_at = body.find(b"\r\n\r\n", headers_at, min(end + 4, headers_at + _MOST_HEADERS))
        if value_at < 0:
            raise _malformed("a part of it has no headers, or no end of them")
        if _is(body[headers_at + 2 : value_at], name):
            if found is not None:
                raise InvalidRequest(
                    f"`{name}` is in the form twice.", param=name, code="invalid_value"
                )
            found = (min(value_at + 4, end), end)
        at = end + len(mark)
    raise _malformed(f"it has more than {_MOST_PARTS} parts")


def _is(headers: bytes, wanted: str) -> bool:
    """Whether these are the headers of that field."""
    if _BARE.search(headers):
        raise _malformed("a part of it has a header line that is none")
    stated = [
        value
        for kind, _, value in (line.partition(b":") for line in headers.split(b"\r\n"))
        if kind.strip().lower() == b"content-disposition"
    ]
    if not stated:
        return False
    of_part = _parameters(stated[0].decode("latin-1")) if len(stated) == 1 else None
    if of_part is None or not of_part.keys() <= _IN_PARTS or "\\" in of_part.get("name", ""):
        raise _malformed("a part of it has a content-disposition that can be read in several ways")
    name = of_part.get("name", "")
    if name.strip(" '<>").removesuffix("[]").lower() != wanted:
        return False
    if name != wanted or len(of_part) > 1:
        raise InvalidRequest(
            f"`{wanted}` must be a plain field of the form, under that name.",
            param=wanted,
            code="invalid_value",
        )
    return True


def _parameters(header: str) -> dict[str, str] | None:
    """The parameters of a header's value, names in lower case; None where two readers could find two values."""
    whole = _VALUE.fullmatch(header)
    if whole is None:
        return None
    found: dict[str, str] = {}
    for name, value in _PARAMETERS.findall(whole[1]):
        if name.lower() in found:
            return None
        found[name.lower()] = value[1:-1] if value.startswith('"') else value
    return found


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"The form cannot be read: {why}.", code="invalid_form")
