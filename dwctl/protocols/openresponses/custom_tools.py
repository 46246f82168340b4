"""Custom tools, which take free text, as functions with one text argument: what servers that speak chat completions know.

The text is the string in `{"input": "..."}`. A model that does not keep to that is taken at its word: another single string counts
as the text, and so does what is no JSON at all. Whatever the pieces in which arguments come, they make the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

_PARAMETERS = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "The whole input, as it is."}},
    "required": ["input"],
    "additionalProperties": False,
}
_GRAMMARS = {"lark": "Lark grammar", "regex": "regular expression"}

_OPENING = re.compile(r'\s{0,16}\{\s{0,16}"input"\s{0,16}:\s{0,16}"')
_LONGEST_OPENING = 80
_PLAIN = re.compile(r'(?:[^"\\]++|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))++')
_UNICODE = re.compile(r"\\u([0-9a-fA-F]{4})")
_NO_CHARACTER = "\ufffd"


def as_function(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A custom tool as the function that stands for it. What its input must look like is said in the description."""
    format = tool.get("format") or {}
    described = [tool.get("description")]
    if format.get("type") == "grammar":
        kind = _GRAMMARS.get(format["syntax"], f"grammar ({format['syntax']})")
        described.append(f"The input must match this {kind}:\n{format['definition']}")
    said = "\n\n".join(text for text in described if text)
    description = {"description": said} if said else {}
    return {"name": tool["name"], **description, "parameters": _PARAMETERS}


def arguments_of(input: str) -> str:
    """The arguments of a call with that input."""
    return orjson.dumps({"input": input}).decode()


def input_of(arguments: str, *, plain: bool = False) -> str:
    """The input in a call's arguments; `plain` where they are the input itself."""
    text = InputText(plain=plain)
    return text.add(arguments) + text.end()


class InputText:
    """The input of one call, read from arguments while they are being written."""

    def __init__(self, *, plain: bool = False) -> None:
        self._plain = plain
        self._head: list[str] | None = []  # all arguments, until the text has begun
        self._head_chars = 0
        self._rest = ""  # within the text: what cannot be read yet
        self._over = False

    def add(self, fragment: str) -> str:
        """What becomes known of the text."""
        if self._plain:
            return fragment
        if self._over:
            return ""
        if self._head is None:
            return self._read(self._rest + fragment)
        known = self._head_chars
        self._head.append(fragment)
        self._head_chars += len(fragment)
        if known > _LONGEST_OPENING:
            return ""
        given = "".join(self._head)
        opening = _OPENING.match(given)
        if opening is None:
            return ""
        self._head = None
        return self._read(given[opening.end() :])

    def end(self) -> str:
        """The rest of the text, now that nothing more comes."""
        if self._plain or self._over:
            return ""
        self._over = True
        if self._head is None:
            return self._read(self._rest, is_last=True)
        return _meant("".join(self._head))

    def _read(self, given: str, *, is_last: bool = False) -> str:
        found: list[str] = []
        at = 0
        while at < len(given):
            if given[at] == '"':
                self._over = True
                return "".join(found)
            plain = _PLAIN.match(given, at)
            if plain:
                said, end = json.loads(f'"{plain[0]}"', strict=False), plain.end()
            else:
                said, end = _escape(given, at, is_last)
            if end == at:
                break
            found.append(said)
            at = end
        self._rest = given[at:]
        return "".join(found)


def _escape(given: str, at: int, is_last: bool) -> tuple[str, int]:
    """What an escape that is not plain says, and where it ends; at its beginning where more must come first.

    A model's own escapes are not always those of JSON: what is none is text. A half of a pair that has no other says nothing.
    """
    kind = given[at + 1 : at + 2]
    if kind and kind != "u":
        return "\\" + kind, at + 2
    unit = _UNICODE.match(given, at)
    if unit is None:
        is_cut = len(given) < at + 6
        return ("", at if not is_last else len(given)) if is_cut else ("\\u", at + 2)
    code = int(unit[1], 16)  # of a half: whatever else is whole is plain
    other = _UNICODE.match(given, at + 6)
    if code < 0xDC00 and other and 0xDC00 <= int(other[1], 16) < 0xE000:
        pair = 0x10000 + ((code - 0xD800) << 10) + (int(other[1], 16) - 0xDC00)
        return chr(pair), at + 12
    follows = given[at + 6 : at + 12]
    waits = code < 0xDC00 and not is_last and len(follows) < 6 and '"' not in follows
    return ("", at) if waits else (_NO_CHARACTER, at + 6)


def _meant(arguments: str) -> str:
    """The text of arguments that do not begin as they should."""
    try:
        given = orjson.loads(arguments)
    except ValueError:
        return arguments
    if isinstance(given, dict):
        single = next(iter(given.values())) if len(given) == 1 else None
        given = given.get("input", single)
    return given if isinstance(given, str) else arguments
