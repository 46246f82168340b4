"""What is given on a command line: numbers that can be cleared, and the same checks as in the admin API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import click
from marshmallow import Schema, ValidationError

from dwctl.errors import Invalid

N = TypeVar("N", int, float)

CLEAR = "none"


class OrNone(click.ParamType[Any]):
    """A number, or the word that clears a setting. An option that is not given is absent (`changes`)."""

    def __init__(self, number: type[int] | type[float]) -> None:
        self._number = number
        self.name = "integer|none" if number is int else "number|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; CLEAR as it is."""
        if value == CLEAR:
            return CLEAR
        try:
            return self._number(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {CLEAR}", param, ctx)


zero_retention = click.option(
    "--zero-data-retention", type=bool, help="Keep nothing of what calls say beyond their run."
)
log_sample = click.option(
    "--log-sample", type=OrNone(float), help="Share of calls whose bodies the log shows, 0 to 1."
)


def changes(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that are given; null for those that clear."""
    return {k: None if v == CLEAR else v for k, v in options.items() if v is not None}


def checked(schema: Schema, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the admin API would take, read as it reads it. Invalid with the path of each fault."""
    try:
        read: dict[str, Any] = schema.load(fields)
    except ValidationError as error:
        raise Invalid("; ".join(_faults(error.messages))) from error
    return read


def _faults(messages: Any, path: str = "") -> Iterator[str]:
    if isinstance(messages, Mapping):
        for name, inner in messages.items():
            yield from _faults(inner, f"{path}.{name}" if path else str(name))
    elif messages and isinstance(messages[0], Mapping):
        yield from _faults(messages[0], path)
    else:
        yield f"{path}: {' '.join(map(str, messages))}"
