"""Checks of JSON shapes. Each raises InvalidRequest naming the field by its path, such as `messages[0].content`.

A check takes a value and its path. `null` counts as absent for members that are optional: `members` skips it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeAlias

from dwctl.protocols.errors import InvalidRequest

Check: TypeAlias = Callable[[Any, str], None]

MOST = 2**53 - 1
"""The largest integer that every reader of JSON keeps as it is."""
_QUOTED_CHARS = 80


def refuse(path: str, expected: str, value: object) -> NoReturn:
    raise InvalidRequest(
        f"Invalid type for '{path}': expected {expected}, but got {_name_of(value)} instead.",
        param=path,
        code="invalid_type",
    )


def refuse_value(path: str, value: object, supported: str) -> NoReturn:
    raise InvalidRequest(
        f"Invalid value for '{path}': '{short(value)}'. Supported: {supported}.",
        param=path,
        code="invalid_value",
    )


def missing(path: str) -> NoReturn:
    raise InvalidRequest(
        f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter"
    )


def anything(value: object, path: str) -> None:
    pass


def string(value: object, path: str) -> None:
    if not isinstance(value, str):
        refuse(path, "a string", value)


def boolean(value: object, path: str) -> None:
    if not isinstance(value, bool):
        refuse(path, "a boolean", value)


def number(value: object, path: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(path, "a number", value)


def integer(value: object, path: str) -> None:
    """Also a number such as 5.0, which some clients' languages write for 5."""
    if isinstance(value, float) and value.is_integer():
        return
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(path, "an integer", value)


def natural(value: Any, path: str) -> None:
    """An integer that is not negative, and that every reader of JSON keeps as it is."""
    integer(value, path)
    if value < 0:
        refuse(path, "an integer that is not negative", value)
    if value > MOST:
        refuse_value(path, value, f"integers up to {MOST}")


def an_object(value: object, path: str) -> None:
    if not isinstance(value, dict):
        refuse(path, "an object", value)


def array(value: object, path: str) -> None:
    if not isinstance(value, list):
        refuse(path, "an array", value)


def string_or_strings(value: object, path: str) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, list) or not set(map(type, value)) <= {str}:
        refuse(path, "a string or an array of strings", value)


def texts_or_tokens(value: object, path: str) -> None:
    """What is embedded or completed: a text, texts, one list of tokens, or lists of tokens."""
    if isinstance(value, str):
        return
    if isinstance(value, list):
        kinds = set(map(type, value))
        if kinds in (set(), {str}, {int}):
            return
        if kinds == {list} and all(set(map(type, tokens)) <= {int} for tokens in value):
            return
    refuse(path, "a string, an array of strings, or arrays of token integers", value)


def one_of(*names: str) -> Check:
    def check(value: object, path: str) -> None:
        string(value, path)
        if value not in names:
            refuse_value(path, value, ", ".join(f"'{name}'" for name in names))

    return check


def each(check: Check) -> Check:
    """An array whose elements all pass `check`."""

    def check_all(value: object, path: str) -> None:
        array(value, path)
        assert isinstance(value, list)
        for index, element in enumerate(value):
            check(element, f"{path}[{index}]")

    return check_all


def with_members(optional: Mapping[str, Check], **required: Check) -> Check:
    """An object with these members; others may be there too."""

    def check(value: object, path: str) -> None:
        an_object(value, path)
        assert isinstance(value, dict)
        members(value, optional, required, f"{path}.")

    return check


def members(
    body: Mapping[str, Any],
    optional: Mapping[str, Check],
    required: Mapping[str, Check],
    prefix: str = "",
) -> None:
    for name, check in required.items():
        if name not in body:
            missing(prefix + name)
        check(body[name], prefix + name)
    for name, value in body.items():
        optional_check = optional.get(name)
        if optional_check and value is not None:
            optional_check(value, prefix + name)


def short(value: object) -> str:
    """A value as an error or a header quotes it: not at any length, and not what it is made of."""
    text = str(value) if isinstance(value, str | int | float) or value is None else _name_of(value)
    return text if len(text) <= _QUOTED_CHARS else f"{text[:_QUOTED_CHARS]}..."


def _name_of(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value)) or f"the number {value}"
