"""Writing answers: what marshmallow does for each row and field, done once for each schema, and JSON by orjson.

A list of 100 models with all includes has some 15,000 fields. Of each, marshmallow looks for the attribute in four ways, asks the field for its default and
formats it; for texts, numbers, flags and ids that are there, all of that ends with the value as it is. Those go the short way here, all else goes its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import orjson
from flask.json.provider import DefaultJSONProvider
from marshmallow import Schema, fields, missing

F = TypeVar("F", bound=fields.Field[Any])

_PLAIN: dict[type[fields.Field[Any]], tuple[type, ...]] = {
    fields.String: (str, type(None)),
    fields.Boolean: (bool, type(None)),
    fields.Integer: (int, type(None)),
    fields.Float: (float, type(None)),
    # Statements give ids as texts where they are only matched and shown.
    fields.UUID: (str, type(None)),
}
"""Of which types a field's value is written as it stands. (Exactly those: a flag is no number, a member of an enumeration no text.)"""

_CONVERTED: dict[type[fields.Field[Any]], tuple[type, Callable[[Any], Any]]] = {
    fields.UUID: (UUID, str)
}
_AS_IT_IS: tuple[type | None, Callable[[Any], Any]] = (None, str)


def written_by(kind: type, convert: Callable[[Any], Any]) -> Callable[[type[F]], type[F]]:
    """Says of a class of fields how it writes values of this very type; null it writes as null."""

    def note(field: type[F]) -> type[F]:
        _CONVERTED[field] = (kind, convert)
        _PLAIN[field] = (type(None),)
        return field

    return note


class Extended:
    """An object with some more attributes, for a schema to read; they go before its own."""

    def __init__(self, base: Any, **more: Any) -> None:
        self.__dict__.update(more, _base=base)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_base"], name)


class Written(dict[str, Any]):
    """A row that its schema has written already, so that it may stand in many places of an answer and is written once."""


class WrittenRows(list[Written]):
    """Rows of which each is written already: they are not even looked at."""


def written(schema: Schema, obj: Any) -> Written:
    """The object as its schema writes it, for a nested field of that schema."""
    return Written(schema.dump(obj, many=False))


class _Field:
    """How one field of a schema is written."""

    __slots__ = ("attribute", "convert", "converts", "each", "field", "is_simple", "key", "name", "plain", "rows", "says_null")  # fmt: skip

    def __init__(self, name: str, field: fields.Field[Any], *, says_null: bool) -> None:
        self.name, self.field, self.says_null = name, field, says_null
        self.key = name if field.data_key is None else field.data_key
        self.attribute = name if field.attribute is None else field.attribute
        self.plain = frozenset(_plain(field)) - (set() if says_null else {type(None)})
        self.converts, self.convert = _CONVERTED.get(type(field), _AS_IT_IS)
        self.rows = _rows(field)
        self.each = _each(field)
        # The value is what the attribute of this very name holds, and nothing stands in its place where it is not there.
        self.is_simple = field._CHECK_ATTRIBUTE and "." not in self.attribute and field.dump_default is missing  # fmt: skip

    def by_its_field(self, value: Any, obj: Any, accessor: Callable[..., Any]) -> Any:
        """What marshmallow makes of it; `missing` where it or the schema leaves the field out."""
        if value is None and not self.says_null:
            return missing
        if not self.field._CHECK_ATTRIBUTE:
            return self.field._serialize(None, self.name, obj)
        if not self.is_simple:
            return self.field.serialize(self.name, obj, accessor=accessor)
        rows = self.rows
        if rows and type(value) is list and None not in value and not rows.schema.many:
            return rows.schema.dump(value, many=True)
        if self.each and type(value) is list:
            plain, converts, convert = self.each
            kinds = set(map(type, value))
            if kinds <= plain:
                return list(value)
            if kinds == {converts}:
                return list(map(convert, value))
        return self.field._serialize(value, self.name, obj)


def _plain(field: fields.Field[Any]) -> tuple[type, ...]:
    if isinstance(field, fields.Nested):
        return (Written,)
    if isinstance(field, fields.List):
        return (WrittenRows,) if isinstance(field.inner, fields.Nested) else ()
    if getattr(field, "as_string", False):
        return ()
    written = type(field)._serialize
    return next((types for kind, types in _PLAIN.items() if written is kind._serialize and isinstance(field, kind)), ())  # fmt: skip


def _rows(field: fields.Field[Any]) -> fields.Nested | None:
    """What a list is of, where its rows can be written together. (Only a hook that is passed collections would notice, and there is none.)"""
    inner = field.inner if type(field) is fields.List else None
    return inner if type(inner) is fields.Nested and not inner.many else None


def _each(field: fields.Field[Any]) -> tuple[frozenset[type], type | None, Callable[[Any], Any]] | None:  # fmt: skip
    """How the values of a list are written that has no rows: which stand as they are, which are converted and how."""
    if type(field) is not fields.List or isinstance(field.inner, fields.Nested):
        return None
    return frozenset(_plain(field.inner)), *_CONVERTED.get(type(field.inner), _AS_IT_IS)


class _Plan:
    """The fields of a schema in their order, and how their values are taken from an object."""

    __slots__ = ("_attributes", "_gapped", "_take", "steps")

    def __init__(self, schema: QuickSchema) -> None:
        each = [
            _Field(name, field, says_null=name not in schema.absent_where_null)
            for name, field in schema.dump_fields.items()
        ]
        self.steps = [(one.key, one.plain, one.converts, one) for one in each]
        # What is not simple is taken by its field. The two at the end make it a tuple even where there are no fields.
        self._attributes = [one.attribute if one.is_simple else "__class__" for one in each]
        self._gapped: set[type] = set()
        self._take = attrgetter(*self._attributes, "__class__", "__class__")

    def of_dict(self, obj: dict[str, Any]) -> list[Any]:
        """The values in a dict."""
        get = obj.get
        return [get(name, missing) for name in self._attributes]

    def of_extended(self, obj: Extended) -> list[Any]:
        """The values of an object and of what it was extended by."""
        more = obj.__dict__
        base = more["_base"]
        return [
            more[name] if name in more else getattr(base, name, missing)
            for name in self._attributes
        ]

    def of_object(self, obj: Any) -> Sequence[Any]:
        """The values of attributes: all at once, but for kinds of objects that were seen without one of them."""
        kind = type(obj)
        if kind not in self._gapped:
            try:
                values: Sequence[Any] = self._take(obj)
            except AttributeError:
                self._gapped.add(kind)
            else:
                return values
        return [getattr(obj, name, missing) for name in self._attributes]


_BY_NAME: set[type] = set()
"""Kinds of objects whose values are attributes, as far as seen."""


def _is_asked_by_key(kind: type) -> bool:
    """Whether values are its items. (What is asked by numbers, as rows are, is asked for attributes by name.)"""
    if hasattr(kind, "__getitem__") and not issubclass(kind, Sequence):
        return True
    _BY_NAME.add(kind)
    return False


class QuickSchema(Schema):
    """A schema that gives out exactly what marshmallow would, sooner."""

    absent_where_null: ClassVar[frozenset[str]] = frozenset()
    """Fields that are left out where they have no value. (A hook that drops them would be called for each row.)"""

    def _serialize(self, obj: Any, *, many: bool = False) -> Any:
        if many and obj is not None:
            return [self._row(one) for one in obj]
        return self._row(obj)

    def _row(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is Written:
            return obj
        plan = self._plan()
        if kind is dict:
            values: Sequence[Any] = plan.of_dict(obj)
        elif kind is Extended:
            values = plan.of_extended(obj)
        elif kind not in _BY_NAME and _is_asked_by_key(kind):
            asked: dict[str, Any] = super()._serialize(obj)
            return {k: v for k, v in asked.items() if v is not None or k not in self.absent_where_null}  # fmt: skip
        else:
            values = plan.of_object(obj)
        row = {}
        for (key, plain, converts, one), value in zip(plan.steps, values, strict=False):
            if type(value) in plain:
                row[key] = value
            elif type(value) is converts:
                row[key] = one.convert(value)
            elif value is not missing or not one.is_simple:
                found = one.by_its_field(value, obj, self.get_attribute)
                if found is not missing:
                    row[key] = found
        return row

    def _plan(self) -> _Plan:
        plan: _Plan | None = self.__dict__.get("_fields_written")
        if plan is None:
            plan = self.__dict__["_fields_written"] = _Plan(self)
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
        try:
            body = orjson.dumps(obj, self.default, orjson.OPT_APPEND_NEWLINE)
        except (TypeError, orjson.JSONEncodeError):
            body = f"{super().dumps(obj)}\n".encode()
        make: Any = self._app.response_class  # typed as what Flask shares with Quart
        return make(body, mimetype=self.mimetype)
