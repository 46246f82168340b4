"""JSON bodies of admin and sign-in routes: read in C, bounded before anything is made of them, exact where money is.

Floats are binary but for the fields that the schema calls money (`Exact`): those keep their digits. Reading the largest body takes some
hundredths of a second, so no other caller waits for it.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

import msgspec
import orjson
from marshmallow import Schema, fields
from werkzeug.exceptions import BadRequest

MAX_DEPTH = 64
MAX_CONTAINERS = 20_000
"""Objects and arrays in one body."""

_SEARCHED_BYTES = 64 * 1024
"""A larger body that cannot be read is not looked through for the member that is to blame."""
_BOM = b"\xef\xbb\xbf"
_CONTAINERS = (dict, list)
_members_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements_of = msgspec.json.Decoder(list[msgspec.Raw]).decode
_Text = bytes | msgspec.Raw


class ExactFloat(float):
    """A JSON number that remembers its digits: money never passes through binary."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> ExactFloat:
        made = super().__new__(cls, text)
        made.text = text
        return made


class Exact:
    """Marks fields whose numbers are read as ExactFloat."""


def read(body: bytes, schema: Schema) -> Any:
    """The JSON value, with ExactFloat where the schema wants money. Raises BadRequest."""
    body = body.removeprefix(_BOM)
    containers = body.count(b"{") + body.count(b"[")
    if containers > MAX_CONTAINERS:
        raise BadRequest(f"The request has more than {MAX_CONTAINERS} objects and arrays.")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # Besides broken JSON: endless nesting, numbers beyond all bounds, bytes or escapes that are no text.
        if named := _with_no_number(body):
            raise BadRequest(f"{named}: Must be a finite number.") from None
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(f"The request body is not valid JSON ({where}).") from None
    if containers > MAX_DEPTH and _is_too_deep(content):
        raise BadRequest(f"The request is nested deeper than {MAX_DEPTH} levels.")
    return _exact_object(schema, content, body)


class _NoNumber(Exception):
    """A member's number is none that a computer can hold: `1e400`, or `NaN`, which is not JSON, but what many write."""


_BEYOND = object()


def _with_no_number(body: bytes) -> str | None:
    """The member because of which a body cannot be read, where that is a number beyond all bounds."""
    if len(body) > _SEARCHED_BYTES:
        return None
    try:
        json.loads(body, parse_float=_finite, parse_constant=lambda _: _BEYOND, object_pairs_hook=_insist_on_numbers)  # fmt: skip
    except _NoNumber as found:
        return str(found)
    except (ValueError, RecursionError):
        pass
    return None


def _finite(text: str) -> object:
    return text if isfinite(float(text)) else _BEYOND


def _insist_on_numbers(members: list[tuple[str, object]]) -> None:
    for name, value in members:
        if value is _BEYOND or (isinstance(value, list) and _BEYOND in value):
            raise _NoNumber(name)


def _is_too_deep(content: Any) -> bool:
    level = [content]
    for _ in range(MAX_DEPTH):
        inside = (outer.values() if isinstance(outer, dict) else outer for outer in level)
        level = [inner for values in inside for inner in values if type(inner) in _CONTAINERS]
        if not level:
            return False
    return True


def _exact(field: fields.Field[Any], value: Any, text: _Text) -> Any:
    """A field's value with the digits of its text."""
    if isinstance(field, Exact) and isinstance(value, float):
        return ExactFloat(bytes(text).decode())
    if isinstance(field, fields.List) and isinstance(value, list):
        pairs = zip(value, _elements_of(text), strict=True)
        return [_exact(field.inner, element, part) for element, part in pairs]
    if isinstance(field, fields.Nested):
        return _exact_object(field.schema, value, text)
    return value


def _exact_object(schema: Schema, value: Any, text: _Text) -> Any:
    if not isinstance(value, dict):
        return value
    wanted = {name: field for name, field in _with_money(schema).items() if name in value}
    if wanted:
        members = _members_of(text)
        for name, field in wanted.items():
            value[name] = _exact(field, value[name], members[name])
    return value


def _with_money(schema: Schema) -> dict[str, fields.Field[Any]]:
    """The fields of a schema that are money or have some inside, by their names in JSON."""
    named = ((field.data_key or name, field) for name, field in schema.load_fields.items())
    return {name: field for name, field in named if _has_money(field)}


def _has_money(field: fields.Field[Any]) -> bool:
    if isinstance(field, fields.List):
        return _has_money(field.inner)
    if isinstance(field, fields.Nested):
        return bool(_with_money(field.schema))
    return isinstance(field, Exact)
