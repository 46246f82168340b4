"""Fields as JSON Schema: every kind of ours with its bounds, what is read and what is shown."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from marshmallow import fields, validate

from dwctl.operations.openapi.kinds import Components, Direction
from dwctl.sources.schemas import Timestamp
from dwctl.web.schemas import (
    ApiSchema,
    Clamped,
    Instant,
    ListOf,
    MapOf,
    Money,
    Name,
    Number,
    Text,
    TrueOrFalse,
    Whole,
    Words,
)


class Inner(ApiSchema):
    """One within."""

    name = Name(required=True)


READ: list[tuple[fields.Field[Any], dict[str, Any]]] = [
    (Text(), {"type": "string", "maxLength": 65536}),
    (Text(longest=10), {"type": "string", "maxLength": 10}),
    (Name(), {"type": "string", "maxLength": 255}),
    (Name(validate=validate.Length(1, 5)), {"type": "string", "minLength": 1, "maxLength": 5}),
    (Name(allow_none=True, load_default=None), {"type": ["string", "null"], "maxLength": 255}),
    (Name(load_default="desc"), {"type": "string", "maxLength": 255, "default": "desc"}),
    (Words(), {"type": "string", "maxLength": 2000}),
    (Whole(), {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}),
    (Whole(least=1, most=9), {"type": "integer", "minimum": 1, "maximum": 9}),
    (Clamped(1, 101, load_default=10), {"type": "integer", "minimum": 1, "maximum": 101, "default": 10}),
    (Clamped(0, 2**62), {"type": "integer", "minimum": 0}),
    (Number(), {"type": "number", "minimum": -1e15, "maximum": 1e15}),
    (Number(validate=validate.Range(0, 5, min_inclusive=False)), {"type": "number", "exclusiveMinimum": 0, "maximum": 5}),
    (Number(validate=validate.Range(min=0, min_inclusive=False)), {"type": "number", "exclusiveMinimum": 0, "maximum": 1e15}),
    (Money(), {"type": ["string", "number"], "maxLength": 64}),
    (Money(allow_none=True), {"type": ["string", "number", "null"], "maxLength": 64}),
    (Instant(), {"type": "string", "format": "date-time"}),
    (TrueOrFalse(load_default=False), {"type": "boolean", "default": False}),
    (fields.UUID(), {"type": "string", "format": "uuid"}),
    (fields.String(validate=validate.OneOf(("a", "b"))), {"type": "string", "enum": ["a", "b"]}),
    (fields.String(validate=validate.OneOf(("a", "b")), allow_none=True), {"type": ["string", "null"], "enum": ["a", "b", None]}),
    (Name(validate=validate.Regexp(r"[a-z]+\Z")), {"type": "string", "maxLength": 255, "pattern": "^[a-z]+$"}),
    (ListOf(Name(longest=3), most=7), {"type": "array", "maxItems": 7, "items": {"type": "string", "maxLength": 3}}),
    (MapOf(keys=Name(), values=Name(longest=3)), {"type": "object", "maxProperties": 1000, "additionalProperties": {"type": "string", "maxLength": 3}}),
    (fields.Nested(Inner), {"$ref": "#/components/schemas/Inner"}),
    (fields.Nested(Inner, allow_none=True), {"anyOf": [{"$ref": "#/components/schemas/Inner"}, {"type": "null"}]}),
    (Name(metadata={"description": "What it is."}), {"type": "string", "maxLength": 255, "description": "What it is."}),
]  # fmt: skip

SHOWN: list[tuple[fields.Field[Any], dict[str, Any]]] = [
    (Name(), {"type": "string"}),
    (Money(), {"type": "string"}),
    (Money(allow_none=True), {"type": ["string", "null"]}),
    (Timestamp(allow_none=True), {"type": ["integer", "null"]}),
    (fields.Constant("list"), {"const": "list"}),
    (fields.Constant(True), {"type": "boolean"}),
    (fields.Function(lambda _: True, metadata={"type": "boolean"}), {"type": "boolean"}),
    (fields.Integer(load_default=3), {"type": "integer"}),
]


def _written(field: fields.Field[Any], direction: Direction) -> dict[str, Any]:
    kind = type("Kind", (ApiSchema,), {"field": field})
    components = Components()
    components.reference(kind, direction)
    found: dict[str, Any] = components.schemas["Kind"]["properties"]["field"]
    return found


@pytest.mark.parametrize(("field", "shape"), READ, ids=[str(n) for n in range(len(READ))])
def test_a_field_that_is_read(field: fields.Field[Any], shape: dict[str, Any]) -> None:
    assert _written(field, Direction.READ) == shape


@pytest.mark.parametrize(("field", "shape"), SHOWN, ids=[str(n) for n in range(len(SHOWN))])
def test_a_field_that_is_shown(field: fields.Field[Any], shape: dict[str, Any]) -> None:
    assert _written(field, Direction.SHOWN) == shape


def test_one_class_for_both_ways_is_two_schemas() -> None:
    class Both(ApiSchema):
        """Sent and shown."""

        example: ClassVar[dict[str, Any]] = {"wanted": "x"}
        id = fields.UUID(dump_only=True)
        wanted = Name(required=True, load_only=True)
        name = Name()

    components = Components()
    assert components.reference(Both, Direction.READ) == {"$ref": "#/components/schemas/BothInput"}
    assert components.reference(Both(many=True), Direction.SHOWN) == {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Both"},
    }
    read, shown = components.schemas["BothInput"], components.schemas["Both"]
    assert (read["properties"].keys(), read["required"]) == ({"wanted", "name"}, ["wanted"])
    assert (shown["properties"].keys(), shown["required"]) == ({"id", "name"}, ["id"])
    assert read["examples"] == [{"wanted": "x"}]
    assert "examples" not in shown


def test_a_query_string_never_says_null() -> None:
    choice = fields.String(load_default=None, allow_none=True, validate=validate.OneOf(("a", "b")))
    one, other = (
        Components().parameters(type("Query", (ApiSchema,), {"sort": field}))
        for field in (choice, fields.String(load_default=None, validate=validate.OneOf(("a", "b"))))
    )
    assert [*one] == [*other] == [("sort", False, {"type": "string", "enum": ["a", "b"]})]


def test_namesakes_of_two_rooms_are_told_apart() -> None:
    kinds = [type("Same", (ApiSchema,), {"a": Name(), "__module__": f"dwctl.{room}.schemas"}) for room in ("files", "sources")]  # fmt: skip
    components = Components()
    for kind in kinds:
        components.reference(kind, Direction.SHOWN)
    assert components.schemas.keys() == {"Same", "SourcesSame"}


def test_a_schema_may_contain_itself() -> None:
    class Tree(ApiSchema):
        """With branches."""

        branches = fields.List(fields.Nested(lambda: Tree()))

    components = Components()
    components.reference(Tree, Direction.SHOWN)
    items = components.schemas["Tree"]["properties"]["branches"]["items"]
    assert items == {"$ref": "#/components/schemas/Tree"}


def test_conditions_are_those_of_the_class() -> None:
    class Either(ApiSchema):
        """One or the other."""

        conditions: ClassVar[dict[str, Any]] = {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
        a = Name()
        b = Name()

    components = Components()
    components.reference(Either, Direction.READ)
    assert components.schemas["Either"]["anyOf"] == [{"required": ["a"]}, {"required": ["b"]}]
