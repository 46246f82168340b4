"""JSON objects that can be read *and written again*: the reader's limit is the writer's.

The JSON library here reads 1,024 levels of nesting and writes 254. What lies between would be taken in, paid for, and then could
neither be shown nor stored; so it is refused where it comes in. Some levels are left for what an object gets wrapped in.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from dwctl.protocols.splice import open_members

MAX_DEPTH = 200
_WRITABLE_DEPTH = 254
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_PASSES = 8  # most objects are flatter than this


def parse_object(raw: bytes) -> dict[str, Any] | None:
    """The JSON object that `raw` is; None for everything else, and for one that is nested deeper than MAX_DEPTH."""
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return content if isinstance(content, dict) and not is_too_deep(raw, content) else None


def open_object(raw: bytes, left_closed: str) -> dict[str, Any] | None:
    """As `parse_object`, but the member `left_closed` stays a text (`msgspec.Raw`): ten megabytes of numbers are not for us to read."""
    try:
        members = open_members(raw)
    except ValueError:
        return None
    content: dict[str, Any] = {}
    for name, member in members.items():
        if name == left_closed:
            content[name] = member
            continue
        text = bytes(member)
        try:
            content[name] = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        if is_too_deep(text, [content[name]]):
            return None
    return content


def is_list_of_objects(value: object) -> bool:
    """Whether a value is that, be it parsed or still a text."""
    if isinstance(value, msgspec.Raw):
        try:
            return all(bytes(memoryview(element)[:1]) == b"{" for element in _decode_array(value))
        except (msgspec.DecodeError, RecursionError):
            return False
    return isinstance(value, list) and all(isinstance(element, dict) for element in value)


def is_too_deep(raw: bytes, content: object) -> bool:
    """Whether `content`, which is `raw` as parsed, is nested deeper than MAX_DEPTH.

    Nearly always the number of brackets says no, or taking matching ones away in a few passes does. (Brackets inside of strings
    only make it look deeper than it is.)
    """
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return False
    brackets = raw.translate(None, _NO_BRACKETS)
    for _ in range(_PASSES):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(brackets) <= MAX_DEPTH:
            return False
    return not _is_writable(content, levels_left=_WRITABLE_DEPTH - MAX_DEPTH)


def _is_writable(content: object, levels_left: int) -> bool:
    """Whether the library writes the value with so many more levels around it."""
    for _ in range(levels_left):
        content = [content]
    try:
        orjson.dumps(content)
    except TypeError:
        return False
    return True
