"""One field of a form (multipart/form-data, RFC 7578): found, and replaced without touching a byte of the others. Pure."""

from __future__ import annotations

import re

from dwctl.protocols.errors import InvalidRequest

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\\]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'[;\s]name=(?:"([^"\\]*)"|([^\s;"]+))', re.IGNORECASE)
_FILE = re.compile(rb"[;\s]filename\*?=", re.IGNORECASE)
_MOST_HEADERS = 8192
_MOST_PARTS = 1000

Span = tuple[int, int]


def is_form(content_type: str) -> bool:
    """Whether a body of that type is a form."""
    return content_type.split(";")[0].strip().lower() == "multipart/form-data"


def find_field(body: bytes, content_type: str, name: str) -> Span | None:
    """Where the value of a field stands; None where there is none of that name. A file is none.

    Raises InvalidRequest for what is no form, and for a field that is there twice: servers differ in which of the two they read.
    """
    stated = _BOUNDARY.search(content_type)
    if stated is None:
        raise _malformed("its type names no boundary")
    mark = b"\r\n--" + (stated[1] or stated[2]).encode("latin-1")
    wanted = name.encode()
    found: Span | None = None
    # The first boundary may be the first line.
    first = 0 if body.startswith(mark[2:]) else body.find(mark)
    if first < 0:
        raise _malformed("its boundary is not in it")
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
        if _names(body[headers_at:value_at], wanted):
            if found is not None:
                raise InvalidRequest(
                    f"`{name}` is in the form twice.", param=name, code="invalid_value"
                )
            found = (min(value_at + 4, end), end)
        at = end + len(mark)
    raise _malformed(f"it has more than {_MOST_PARTS} parts")


def _names(headers: bytes, wanted: bytes) -> bool:
    for line in headers.split(b"\r\n"):
        kind, _, value = line.partition(b":")
        if kind.strip().lower() == b"content-disposition":
            name = _NAME.search(value)
            return (
                name is not None
                and (name[1] if name[1] is not None else name[2]) == wanted
                and not _FILE.search(value)
            )
    return False


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"The form cannot be read: {why}.", code="invalid_form")
