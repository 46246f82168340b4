"""Change top-level members of a JSON object's text; the values of all others are passed on as they came.

Parsing and dumping again would lose what a parser cannot hold: integers beyond 64 bits, the spelling of numbers, the order of
members. Here only the outermost level is opened; what is inside of a member is never looked at, so a body of 10 MB costs what it
takes to find the commas. Blanks around top-level members are not kept; of a member that is there twice the last one counts, as it
does for the parser.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def open_members(raw: bytes) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, each still as text (`bytes(member)`).

    Raises ValueError when `raw` is not the text of one JSON object in UTF-8, or is nested too deep to be walked through.
    """
    try:
        return _decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"not a JSON object: {error}") from None


def replace_members(raw: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """Return the JSON object `raw` with some top-level members changed.

    changes: name -> JSON text of the new value, or None to remove the member. One that is not there is appended at the end.
    Raises ValueError as `open_members` does.
    """
    return write_members(open_members(raw), changes)


def write_members(members: dict[str, msgspec.Raw], changes: Mapping[str, bytes | None]) -> bytes:
    """The JSON object of opened members, changed as `replace_members` says."""
    for name, value in changes.items():
        if value is None:
            members.pop(name, None)
        else:
            members[name] = msgspec.Raw(value)
    return _encode(members)
