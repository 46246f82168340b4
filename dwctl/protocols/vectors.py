"""Embeddings in the format that was asked for. OpenAI's libraries ask for base64 by themselves, and read nothing else then; many servers
answer with numbers whatever was asked, and some with base64 that nobody has asked for. Cases: sgl-project/sglang#28803,
BerriAI/litellm#42421, runpod-workers/worker-infinity-embedding#30.
"""

from __future__ import annotations

import binascii
import re
import struct
from base64 import b64decode, b64encode
from typing import Any

import msgspec
import orjson

_BASE64 = "base64"
_FORMATS = ("float", _BASE64)
# A value of this name has no colon behind it.
_FIRST = re.compile(rb'"embedding"\s*:\s*(["\[])')
_LOOKED_AT = 4096
"""So many bytes are enough to see how the first one begins."""
_decode_list = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_encode = msgspec.json.Encoder().encode


def as_asked(results: bytes | memoryview, format: object) -> bytes | None:
    """A list of embeddings, as text, in the format that the request names; None where it may stay as it came.

    What is no vector of numbers is left as it is. Only the first one is looked at to find out whether the rest has to be.
    """
    asked = "float" if format is None else format
    found = _FIRST.search(results, 0, _LOOKED_AT)
    if found is None or asked not in _FORMATS or (found[1] == b'"') == (asked == _BASE64):
        return None
    change = _as_base64 if asked == _BASE64 else _as_numbers
    try:
        listed = _decode_list(results)
    except (msgspec.DecodeError, RecursionError):
        return None
    for one in listed:
        if "embedding" in one and (changed := change(bytes(one["embedding"]))) is not None:
            one["embedding"] = msgspec.Raw(changed)
    return _encode(listed)


def _as_base64(vector: bytes) -> bytes | None:
    try:
        numbers = orjson.loads(vector)
        if not isinstance(numbers, list):
            return None
        return b'"%b"' % b64encode(struct.pack(f"<{len(numbers)}f", *numbers))
    except (orjson.JSONDecodeError, struct.error, OverflowError):
        return None


def _as_numbers(vector: bytes) -> bytes | None:
    try:
        text: Any = orjson.loads(vector)
        packed = b64decode(text, validate=True) if isinstance(text, str) else b""
        return orjson.dumps(struct.unpack(f"<{len(packed) // 4}f", packed)) if packed else None
    except (orjson.JSONDecodeError, struct.error, binascii.Error, ValueError):
        return None
