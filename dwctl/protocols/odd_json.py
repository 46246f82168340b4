"""JSON as some servers write it: read once more where the fast reader refuses it, and written again as JSON that everybody reads.

What is mended: a byte order mark; bytes that are not UTF-8; control characters in texts; NaN, Infinity and numbers beyond a double
(null; the logarithm of nothing is -9999.0); integers beyond 64 bits; half of a surrogate pair (U+FFFD, or joined with its other half in the next event of a stream);
whatever stands behind the object. What is cut short stays unreadable: it is not whole.
"""

from __future__ import annotations

import json
import re
from math import inf
from typing import Any

import orjson

_MOST_BYTES = 8 * 1024 * 1024
_LARGEST = 2**63
_NO_CHANCE = -9999.0
"""What OpenAI says for the logarithm of nothing."""
# An escaped half of a surrogate pair that begins, or ends, a text.
_FIRST_HALF = re.compile(rb'(?<!\\)((?:\\\\)*+)(\\u[dD][89abAB][0-9a-fA-F]{2})"')
_SECOND_HALF = re.compile(rb'"(?=\\u[dD][c-fC-F][0-9a-fA-F]{2})')
_HALF = re.compile("[\ud800-\udfff]")
_decode = json.JSONDecoder(strict=False).raw_decode


class Mender:
    """Mends the events of one stream, or one body."""

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = b""  # the first half of a character whose second half has not come yet

    def mended(self, raw: bytes) -> bytes | None:
        """The object that `raw` begins with, as everybody reads it. None where it begins with none, or with a part of one."""
        if len(raw) > _MOST_BYTES or raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
            return None
        raw = self._joined(raw)
        try:
            content, _ = _decode(raw.decode("utf-8-sig", "replace").lstrip())
            return orjson.dumps(_writable(content))
        except (ValueError, TypeError, RecursionError):
            return None

    def _joined(self, raw: bytes) -> bytes:
        if self._half:
            raw = _SECOND_HALF.sub(b'"' + self._half.replace(b"\\", b"\\\\"), raw, count=1)
            self._half = b""
        found = _FIRST_HALF.search(raw)
        if found is None:
            return raw
        self._half = found[2]
        return raw[: found.start(2)] + raw[found.end(2) :]


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_HALF.sub("\ufffd", name): _writable(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_writable(part) for part in value]
    if value == -inf:
        return _NO_CHANCE
    if type(value) is int and not -_LARGEST <= value < 2 * _LARGEST:
        return float(value) if abs(value) < 10**308 else None
    return value
