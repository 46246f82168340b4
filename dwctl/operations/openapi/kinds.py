"""Marshmallow schemas as JSON Schema: what is read and what is shown, apart; our kinds of fields with their bounds.

marshmallow describes both directions in one class, and a client is told one of them: a body to send has the fields that are loaded and says
which are required, an answer has those that are dumped.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from apispec.ext.marshmallow.field_converter import (
    DEFAULT_FIELD_MAPPING,
    FieldConverterMixin,
)
from marshmallow import Schema, fields, validate
from packaging.version import Version

from dwctl.sources.schemas import Timestamp
from dwctl.web.schemas import Clamped, ListOf, MapOf, Money, Number, Text

Json = dict[str, Any]


class Direction(StrEnum):
    """Which way a body goes."""

    READ = "Input"
    SHOWN = ""


ALWAYS = frozenset({"id", "object", "data", "total_count", "skip", "limit", "has_more"})
"""Members that every answer has whose schema knows them. Others may be left out: masked, not asked for, or without a value."""

_LARGEST_SHOWN = 2**53


class Components:
    """The schemas of one document by name; a class is written once for each direction in which it is used."""

    def __init__(self) -> None:
        self.schemas: dict[str, Json] = {}
        self._names: dict[tuple[type[Schema], Direction], str] = {}
        self._writers = {direction: _Writer(self, direction) for direction in Direction}

    def reference(self, schema: Schema | type[Schema], direction: Direction) -> Json:
        """A reference to the schema, or to an array of it."""
        kind = schema if isinstance(schema, type) else type(schema)
        found = {"$ref": f"#/components/schemas/{self._name(kind, direction)}"}
        is_list = isinstance(schema, Schema) and schema.many
        return {"type": "array", "items": found} if is_list else found

    def parameters(self, kind: type[Schema]) -> Iterator[tuple[str, bool, Json]]:
        """Name, whether it is required, and schema of each parameter of a query string."""
        for name, field in kind().load_fields.items():
            shape = self._writers[Direction.READ].field2property(field)
            # A query string says nothing or something, never null.
            if isinstance(shape.get("type"), list):
                shape["type"] = next(each for each in shape["type"] if each != "null")
            if "enum" in shape:
                shape["enum"] = [each for each in shape["enum"] if each is not None]
            yield field.data_key or name, field.required, shape

    def _name(self, kind: type[Schema], direction: Direction) -> str:
        key = (kind, direction)
        if key not in self._names:
            name = self._free_name(kind, direction)
            self._names[key] = name
            self.schemas[name] = {}  # a schema may contain itself
            self.schemas[name] = self._writers[direction].write(kind)
        return self._names[key]

    def _free_name(self, kind: type[Schema], direction: Direction) -> str:
        """The class's name without `Schema`; what is read of one that is shown too ends in `Input`, and a namesake starts with its room."""
        name = kind.__name__.removesuffix("Schema")
        if name != kind.__name__ or _differs(kind):
            name += direction.value
        if name in self.schemas:
            name = kind.__module__.split(".")[1].capitalize() + name
        return name


def _differs(kind: type[Schema]) -> bool:
    schema = kind()
    return schema.load_fields.keys() != schema.dump_fields.keys()


class _Writer(FieldConverterMixin):
    """Writes the schemas of one direction."""

    def __init__(self, components: Components, direction: Direction) -> None:
        self.openapi_version = Version("3.1.0")
        self.field_mapping = {**DEFAULT_FIELD_MAPPING, Timestamp: ("integer", None)}
        self._components, self._direction = components, direction
        self.init_attribute_functions()  # type: ignore[no-untyped-call]
        # (A null is allowed by the last of them, whatever the kind has made of the type.)
        self.attribute_functions.insert(-1, self._kind)
        self.attribute_functions.append(self._null_among_choices)

    def resolve_nested_schema(self, schema: Any) -> Json:
        """Called by the base for nested fields."""
        return self._components.reference(schema, self._direction)

    def write(self, kind: type[Schema]) -> Json:
        """The object that a schema describes."""
        schema = kind()
        is_read = self._direction is Direction.READ
        shown = schema.load_fields if is_read else schema.dump_fields
        properties, required = {}, []
        for name, field in shown.items():
            known = field.data_key or name
            properties[known] = self.field2property(field)
            if field.required if is_read else known in ALWAYS:
                required.append(known)
        written: Json = {"type": "object", "properties": properties}
        if required:
            written["required"] = required
        if text := inspect.cleandoc(kind.__doc__ or ""):
            written["description"] = text
        if is_read:
            written |= getattr(kind, "conditions", {})
        if (example := getattr(kind, "example", None)) is not None and _suits(example, shown):
            written["examples"] = [example]
        return written

    def field2default(self, field: fields.Field[Any], **_kwargs: Any) -> Json:
        """None means that there is no default."""
        found: Json = super().field2default(field)
        is_none = found.get("default", ...) is None
        return {} if is_none or self._direction is Direction.SHOWN else found

    def field2read_only(self, field: fields.Field[Any], **_kwargs: Any) -> Json:
        """The directions are apart."""
        return {}

    field2write_only = field2read_only

    def field2range(self, field: fields.Field[Any], ret: Json) -> Json:
        """Bounds, each with what it says of itself."""
        found: Json = {}
        for check in field.validators:
            if isinstance(check, validate.Range) and _is_number(ret):
                if check.min is not None:
                    name = "minimum" if check.min_inclusive else "exclusiveMinimum"
                    found[name] = max(check.min, found.get(name, check.min))
                if check.max is not None:
                    name = "maximum" if check.max_inclusive else "exclusiveMaximum"
                    found[name] = min(check.max, found.get(name, check.max))
        return found

    def field2pattern(self, field: fields.Field[Any], **_kwargs: Any) -> Json:
        """marshmallow looks at the beginning of a text, JSON Schema everywhere in it."""
        found: Json = super().field2pattern(field)
        if "pattern" in found:
            plain = found["pattern"].replace(r"\Z", "$")
            found["pattern"] = plain if plain.startswith("^") else f"^{plain}"
        return found

    def _kind(self, field: fields.Field[Any], ret: Json) -> Json:
        """The bounds of our own kinds (`web/schemas.py`)."""
        if isinstance(field, fields.Constant):
            # (Generators of clients stumble over a constant truth.)
            is_flag = isinstance(field.constant, bool)
            return {"type": "boolean"} if is_flag else {"const": field.constant}
        if self._direction is Direction.SHOWN:
            return {"type": "string"} if isinstance(field, Money) else {}
        if isinstance(field, Clamped):
            # Not refused outside of it, but moved into it: what it means to say is what lies inside.
            most = {"maximum": field.most} if field.most < _LARGEST_SHOWN else {}
            return {"minimum": field.least, **most}
        if isinstance(field, Money):
            return {"type": ["string", "number"], "maxLength": 64}
        if isinstance(field, Text):
            return {"maxLength": min(ret.get("maxLength", field.longest), field.longest)}
        if isinstance(field, Number):
            has_least = "minimum" in ret or "exclusiveMinimum" in ret
            has_most = "maximum" in ret or "exclusiveMaximum" in ret
            least = {} if has_least else {"minimum": -field.largest}
            return least | ({} if has_most else {"maximum": field.largest})
        if isinstance(field, ListOf):
            return {"maxItems": field.most}
        if isinstance(field, MapOf):
            return {"maxProperties": field.most}
        return {}

    def _null_among_choices(self, field: fields.Field[Any], ret: Json) -> Json:
        """A bare choice of values has null among them where that is allowed."""
        return {"enum": [*dict.fromkeys(ret["enum"])]} if "enum" in ret else {}


def _suits(example: Json, shown: dict[str, Any]) -> bool:
    """Whether an example is of this direction: of a class with both, it is of the one that knows all its members."""
    return example.keys() <= {field.data_key or name for name, field in shown.items()}


def _is_number(shape: Json) -> bool:
    kind = shape.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    return bool({"number", "integer"} & {*kinds})
