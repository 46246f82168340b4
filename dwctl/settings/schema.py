"""Settings declared as frozen dataclasses, made into marshmallow schemas that load and check them."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, cast

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from dwctl.settings.kinds import (
    IntListField,
    ListField,
    NetworkListField,
    Networks,
    listed,
)

Checks = Mapping[str, validate.Validator]
"""What values must be, by the dotted names of their settings."""

_FIELDS: dict[Any, type[fields.Field[Any]]] = {
    str: fields.String,
    int: fields.Integer,
    float: fields.Float,
    bool: fields.Boolean,
    Decimal: fields.Decimal,
    tuple[str, ...]: ListField,
    tuple[int, ...]: IntListField,
    Networks: NetworkListField,
}
"""Of kinds that are Python's own. An annotated one names its field itself."""


@cache
def hints(cls: type) -> dict[str, Any]:
    """The members of a section with their kinds."""
    return typing.get_type_hints(cls, include_extras=True)


def plain(kind: Any) -> tuple[Any, bool]:
    """A kind without `| None`, and whether it had that."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        members = typing.get_args(kind)
        return next(part for part in members if part is not type(None)), type(None) in members
    return kind, False


def walk(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting's dotted name with its kind."""
    for name, kind in hints(cls).items():
        if dataclasses.is_dataclass(kind):
            yield from walk(cast(type, kind), f"{prefix}{name}.")
        else:
            yield prefix + name, kind


def build(cls: type, checks: Checks, prefix: str = "") -> Schema:
    """The schema whose `load` gives an instance. Unknown members are errors."""
    members: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        member = _field(hints(cls)[item.name], f"{prefix}{item.name}", checks)
        member.required = item.default is MISSING and item.default_factory is MISSING
        members[item.name] = member
    base = Schema.from_dict(members, name=cls.__name__)

    class Built(base):  # type: ignore[valid-type,misc]
        class Meta:
            unknown = RAISE
            register = False

        def load(self, data: Any, **kwargs: Any) -> Any:
            return cls(**super().load(data, **kwargs))

    return Built()


def explain(
    messages: Mapping[str, Any], cls: type | None, prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """The dotted name of each bad setting, and what is wrong with it."""
    for name, problem in messages.items():
        kind = hints(cls).get(name) if cls else None
        if isinstance(problem, dict):
            inner = cast(type, kind) if dataclasses.is_dataclass(kind) else None
            yield from explain(problem, inner, f"{prefix}{name}.")
        else:
            text = ", ".join(map(str, problem)) if isinstance(problem, list) else str(problem)
            unknown = text == "Unknown field."
            yield prefix + name, _unknown(name, cls) if unknown else text.rstrip(".")


def _unknown(name: str, cls: type | None) -> str:
    near = get_close_matches(name, hints(cls) if cls else (), n=1)
    return f"unknown setting (is {near[0]} meant?)" if near else "unknown setting"


def _field(kind: Any, path: str, checks: Checks) -> fields.Field[Any]:
    kind, optional = plain(kind)
    if dataclasses.is_dataclass(kind):
        return _Nested(build(cast(type, kind), checks, f"{path}."))
    if kind is str and optional:
        return _OptionalText(allow_none=True, validate=checks.get(path))
    made = kind.__metadata__[0] if typing.get_origin(kind) is Annotated else _FIELDS[kind]
    return cast("fields.Field[Any]", made(allow_none=optional, validate=checks.get(path)))


class _Nested(fields.Field[Any]):
    """A section. One with nothing in it (`auth:`) sets nothing."""

    def __init__(self, schema: Schema) -> None:
        super().__init__(allow_none=True)
        self._schema = schema

    def deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return super().deserialize({} if value is None else value, *args, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError("a mapping of settings is wanted")
        return self._schema.load(value)


class _OptionalText(fields.String):
    """Blank means that it is not set: `DWCTL_ADMIN_PASSWORD=` in an environment made from a form or a template."""

    def deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        blank = isinstance(value, str) and not value.strip()
        return super().deserialize(None if blank else value, *args, **kwargs)


class ObjectsField(fields.Field[tuple[Any, ...]]):
    """A YAML list of mappings, or in the environment a JSON array of objects; each becomes an `of`."""

    of: type

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str):
            value = listed(value) if value.strip() else []
        if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
            raise ValidationError("must be a list of mappings")
        return tuple(build(self.of, {}).load(part) for part in value)
