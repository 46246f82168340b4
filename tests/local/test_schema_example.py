"""Values made up for a JSON schema, checked one by one."""

from typing import Any

import pytest

from dwctl.local.schema_example import example_of

TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
            },
            "required": ["name", "next"],
        }
    },
    "$ref": "#/$defs/Node",
}
ENDLESS = {
    "type": "object",
    "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}},
    "required": ["left", "right"],
}
PERSON = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "minimum": 18},
        "nickname": {"type": "string"},
        "mail": {"type": "string", "format": "email"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2},
        "happy": {"type": "boolean"},
    },
    "required": ["age", "mail", "tags", "happy"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        pytest.param(
            PERSON,
            {"age": 18, "mail": "demo@example.com", "tags": ["a", "a"], "happy": False},
            id="required properties only",
        ),
        pytest.param(TREE, {"name": "demo", "next": None}, id="a recursive type ends"),
        pytest.param({"type": ["string", "null"]}, "demo", id="first of several types"),
        pytest.param({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 0, id="first choice"),
        pytest.param(
            {"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, PERSON]},
            {"a": 1, "age": 18, "mail": "demo@example.com", "tags": ["a", "a"], "happy": False},
            id="all of several",
        ),
        pytest.param({"type": "string", "minLength": 6, "maxLength": 6}, "demo..", id="length"),
        pytest.param({"type": "integer", "exclusiveMinimum": 1.5}, 2, id="whole above a bound"),
        pytest.param(
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5, id="between"
        ),
        pytest.param({"type": "integer", "maximum": -3}, -3, id="negative"),
        pytest.param({"type": "integer", "minimum": 7, "multipleOf": 5}, 10, id="multiple"),
        pytest.param({"type": "array", "prefixItems": [{"const": 1}]}, [1], id="tuple"),
        pytest.param({}, None, id="anything"),
        pytest.param({"type": "integer", "minimum": "soon"}, None, id="nonsense"),
        pytest.param({"$ref": "#/nowhere"}, None, id="a reference to nothing"),
    ],
)
def test_an_example_fits_its_schema(schema: Any, expected: Any) -> None:
    assert example_of(schema) == expected


def test_a_schema_that_needs_itself_ends_all_the_same() -> None:
    assert example_of(ENDLESS)["left"]["right"] is None
