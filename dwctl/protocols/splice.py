"""Change top-level members of a JSON object's text; every other byte is passed on as it came.

Parsing and dumping again would lose what a parser cannot hold: integers beyond 64 bits, the spelling of numbers, the order
and repetition of members. It would also cost time that grows with the body.

There are two ways through. The *direct* way finds a member by searching for its quoted name, and is right whenever the name
occurs exactly once as a key in the whole text while the parsed object has it at the top (see `_with_only_key`). Otherwise the
*scanning* way walks the top-level members with the scanner of the standard library, which is written in C.
"""

from __future__ import annotations

import json.scanner
import re
from collections.abc import Mapping
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

_OPENING = re.compile(r"[ \t\n\r]*+\{[ \t\n\r]*+")
_CLOSING = re.compile(r"[ \t\n\r]*+\}[ \t\n\r]*+\Z")
_COMMA = re.compile(r"[ \t\n\r]*+,[ \t\n\r]*+")
_KEY = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"[ \t\n\r]*+:[ \t\n\r]*+')
_COMMA_BEHIND = re.compile(rb"[ \t\n\r]*+,[ \t\n\r]*+")
_SCALAR_BEHIND = re.compile(
    rb'[ \t\n\r]*+:[ \t\n\r]*+("[^"\\]*+(?:\\.[^"\\]*+)*+"|[-+.0-9A-Za-z]++)', re.DOTALL
)
_ESCAPED_NAME = re.compile(rb"\\u00[3-7]")
_BACKSLASH = 0x5C
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]', re.DOTALL)

# Numbers are not converted (`len` is merely cheap): `int` refuses more than 4,300 digits.
_scan_once = json.scanner.make_scanner(
    SimpleNamespace(  # type: ignore[arg-type]  # only these attributes are read
        strict=False,
        object_hook=None,
        object_pairs_hook=None,
        parse_float=len,
        parse_int=len,
        parse_constant=len,
        memo={},
    )
)


class _Member(NamedTuple):
    name: str
    start: int
    value_start: int
    end: int


def replace_members(
    raw: bytes,
    changes: Mapping[str, bytes | None],
    *,
    parsed: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the JSON object `raw` with some top-level members changed.

    changes: name -> JSON text of the new value, or None to remove the member. A member that is not there is appended at the
        end; one that is there more than once is changed everywhere.
    parsed: `raw` as a parser read it, where the caller has it anyway; it makes the direct way possible.
    Raises ValueError when `raw` is not the text of one JSON object in UTF-8.
    """
    if parsed is not None:
        raw, changes = _change_directly(raw, changes, parsed)
    return _change_by_scanning(raw, changes) if changes else raw


# --- the direct way


def _change_directly(
    raw: bytes, changes: Mapping[str, bytes | None], parsed: Mapping[str, Any]
) -> tuple[bytes, Mapping[str, bytes | None]]:
    """Make the changes that can be made directly; return the text so far and the changes that remain."""
    if b"\\u00" in raw and _ESCAPED_NAME.search(raw):
        return raw, changes
    remaining: dict[str, bytes | None] = {}
    appended: dict[str, bytes] = {}
    for name, value in changes.items():
        if name in parsed:
            changed = _with_only_key(raw, name, value)
            if changed is None:
                remaining[name] = value
            else:
                raw = changed
        elif value is not None:
            appended[name] = value
    if remaining:
        return raw, remaining | appended
    return (_append(raw, appended) if appended else raw), {}


def _with_only_key(raw: bytes, name: str, value: bytes | None) -> bytes | None:
    """`raw` with the scalar member `name` changed, or None where `"name"` is not the only key of that name at any depth.

    The text is known to be valid JSON. A quote after a backslash is inside a string or closes one; one after anything else that
    is followed by `name"` can only open a string, for after a closing quote no letter may come. So a quoted name without a
    backslash before it, and with a colon behind it, is a key; and a name of letters, digits and underscores can be spelled in
    another way only with an escape from `\\u0030` to `\\u007f`.
    """
    quoted = _quoted(name)
    if not name.isidentifier() or not name.isascii():
        return None
    at = raw.find(quoted)
    member = _SCALAR_BEHIND.match(raw, at + len(quoted))
    if at < 0 or not member or raw[at - 1] == _BACKSLASH or raw.find(quoted, member.end()) >= 0:
        return None
    if value is None:
        return _without(raw, at, member.end())
    return raw[: member.start(1)] + value + raw[member.end() :]


def _without(raw: bytes, start: int, end: int) -> bytes:
    """Cut a member out, with the comma before it, or behind it when it is the first."""
    before = raw[:start].rstrip(b" \t\n\r")
    if before.endswith(b","):
        return before[:-1] + raw[end:]
    comma = _COMMA_BEHIND.match(raw, end)
    return raw[:start] + raw[comma.end() if comma else end :]


def _append(raw: bytes, members: Mapping[str, bytes]) -> bytes:
    text = b",".join([b"%s:%s" % (_quoted(name), value) for name, value in members.items()])
    body = raw.rstrip(b" \t\n\r")
    inside = body[:-1].rstrip(b" \t\n\r")
    if body[-1:] != b"}" or not inside:
        raise ValueError("not a JSON object")
    comma = b"" if inside.endswith(b"{") else b","
    return inside + comma + text + body[len(inside) :] + raw[len(body) :]


@lru_cache(256)
def _quoted(name: str) -> bytes:
    return json.dumps(name).encode()


# --- the scanning way


def _change_by_scanning(raw: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    text = raw.decode()
    members = _members(text)
    pieces: list[str] = []
    at = 0  # up to here everything is in `pieces`, or left out on purpose
    kept = False
    for index, member in enumerate(members):
        if member.name not in changes:
            kept = True
            continue
        value = changes[member.name]
        if value is not None:
            pieces += text[at : member.value_start], value.decode()
            at = member.end
            kept = True
        elif kept:  # with the comma before it
            pieces.append(text[at : members[index - 1].end])
            at = member.end
        else:  # with the comma behind it, or alone
            pieces.append(text[at : member.start])
            at = members[index + 1].start if index + 1 < len(members) else member.end
    pieces.append(text[at:])
    result = "".join(pieces).encode()
    present = {member.name for member in members}
    missing = {n: v for n, v in changes.items() if v is not None and n not in present}
    return _append(result, missing) if missing else result


def _members(text: str) -> list[_Member]:
    opening = _OPENING.match(text)
    if not opening:
        raise ValueError("not a JSON object")
    at = opening.end()
    members: list[_Member] = []
    closing = _CLOSING.match(text, at)
    while not closing:
        member = _member(text, at)
        members.append(member)
        comma = _COMMA.match(text, member.end)
        closing = None if comma else _CLOSING.match(text, member.end)
        if not comma and not closing:
            raise ValueError(f"expected a comma or the end at {member.end}")
        at = comma.end() if comma else member.end
    return members


def _member(text: str, at: int) -> _Member:
    key = _KEY.match(text, at)
    if not key:
        raise ValueError(f"expected a member at {at}")
    name = key[1]
    if "\\" in name:
        name = _value(text, at)[0]
    return _Member(name, at, key.end(), _value(text, key.end())[1])


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _scan_once(text, at)
    except StopIteration:
        raise ValueError(f"expected a JSON value at {at}") from None
    except RecursionError:
        # Deeper than what is left of the interpreter's stack, though not than the parser's own limit.
        return None, _end_of_nested(text, at)


def _end_of_nested(text: str, at: int) -> int:
    depth = 0
    for token in _TOKEN.finditer(text, at):
        if token[0] in "{[":
            depth += 1
        elif token[0] in "}]":
            depth -= 1
            if not depth:
                return token.end()
    raise ValueError(f"the value at {at} has no end")
