"""Writing answers: what marshmallow does for each row and field, done once for each schema, and JSON by orjson.

A list of 100 models with all includes has some 15,000 fields. Of each, marshmallow looks for the attribute in four ways, asks the field for its default and
formats it; for texts, numbers, flags and ids that are there, all of that ends with the value as it is. Those go the short way here, all else goes its own.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
from flask.json.provider import DefaultJSONProvider
from marshmallow import Schema, fields, missing

_PLAIN: dict[type[fields.Field[Any]], tuple[type, ...]] = {
    fields.String: (str, type(None)),
    fields.Boolean: (bool, type(None)),
    fields.Integer: (int, type(None)),
    fields.Float: (float, type(None)),
}
"""Of which types a field's value is written as it stands. (Exactly those: a flag is no number, a member of an enumeration no text.)"""


class Written(dict[str, Any]):
    """A row that its schema has written already, so that it may stand in many places of an answer and is written once."""


def written(schema: Schema, obj: Any) -> Written:
    """The object as its schema writes it, for a nested field of that schema."""
    return Written(schema.dump(obj, many=False))


class _Field:
    """How one field of a schema is written."""

    __slots__ = ("attribute", "field", "is_id", "is_simple", "key", "name", "plain")

    def __init__(self, name: str, field: fields.Field[Any]) -> None:
        self.name, self.field = name, field
        self.key = name if field.data_key is None else field.data_key
        self.attribute = name if field.attribute is None else field.attribute
        self.is_id = type(field) is fields.UUID
        self.plain = frozenset(_plain(field))
        # The value is what the attribute of this very name holds, and nothing stands in its place where it is not there.
        self.is_simple = field._CHECK_ATTRIBUTE and "." not in self.attribute and field.dump_default is missing  # fmt: skip


def _plain(field: fields.Field[Any]) -> tuple[type, ...]:
    if getattr(field, "as_string", False):
        return ()
    written = type(field)._serialize
    return next((types for kind, types in _PLAIN.items() if written is kind._serialize and isinstance(field, kind)), ())  # fmt: skip


class QuickSchema(Schema):
    """A schema that gives out exactly what marshmallow would, sooner."""

    def _serialize(self, obj: Any, *, many: bool = False) -> Any:
        if many and obj is not None:
            return [self._row(one) for one in obj]
        return self._row(obj)

    def _row(self, obj: Any) -> Any:
        if type(obj) is Written:
            return obj
        is_dict = type(obj) is dict
        if not is_dict and hasattr(type(obj), "__getitem__"):
            return super()._serialize(obj)
        row = {}
        for one in self._plan():
            if not one.is_simple:
                value = one.field.serialize(one.name, obj, accessor=self.get_attribute)
                if value is not missing:
                    row[one.key] = value
                continue
            value = (
                obj.get(one.attribute, missing) if is_dict else getattr(obj, one.attribute, missing)
            )
            if type(value) in one.plain:
                row[one.key] = value
            elif one.is_id and type(value) is UUID:
                row[one.key] = str(value)
            elif value is not missing:
                row[one.key] = one.field._serialize(value, one.name, obj)
        return row

    def _plan(self) -> list[_Field]:
        plan: list[_Field] | None = self.__dict__.get("_fields_written")
        if plan is None:
            plan = [_Field(*item) for item in self.dump_fields.items()]
            self.__dict__["_fields_written"] = plan
        return plan


class OrjsonProvider(DefaultJSONProvider):
    """Flask's JSON, written by orjson where it can: UTF-8, and numbers beyond 64 bits as ever."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """The text of a value."""
        if not kwargs:
            try:
                return orjson.dumps(obj, default=self.default).decode()
            except (TypeError, orjson.JSONEncodeError):
                pass
        return super().dumps(obj, **kwargs)

    def response(self, *args: Any, **kwargs: Any) -> Any:
        """A response with that text."""
        obj = self._prepare_response_obj(args, kwargs)
        return self._app.response_class(self.dumps(obj) + "\n", mimetype=self.mimetype)
