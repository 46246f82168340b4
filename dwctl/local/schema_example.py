"""A small value that fits a JSON schema, the same one every time."""

import math
from typing import Any

STRINGS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T12:00:00Z",
    "time": "12:00:00Z",
    "email": "demo@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
}
COMBINERS = ("$ref", "allOf", "anyOf", "oneOf")
MAX_PADDING = 10_000

Schema = dict[str, Any]
References = frozenset[
    str
]  # those being followed: one that leads back to itself has no finite value


def example_of(schema: Any) -> Any:
    """The least that fits: required properties only, lists as short as allowed, zeros.

    `pattern`, `not` and conditions are not looked at, and the schema is not checked: where it makes
    no sense, the value is null.
    """
    try:
        return _example(schema, schema, References())
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None


def _example(schema: Any, root: Any, seen: References) -> Any:
    if not isinstance(schema, dict):
        return None
    schema, seen = _flattened(schema, root, seen)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    match _kind(schema):
        case "object":
            return _object(schema, root, seen)
        case "array":
            return _array(schema, root, seen)
        case "string":
            return _string(schema)
        case "integer" | "number" as kind:
            return _number(schema, whole=kind == "integer")
        case "boolean":
            return False
    return None


def _kind(schema: Schema) -> Any:
    kind = schema.get("type")
    if kind is None and "properties" in schema:
        return "object"
    return kind[0] if isinstance(kind, list) else kind


def _flattened(schema: Schema, root: Any, seen: References) -> tuple[Schema, References]:
    """Put what `$ref`, `allOf` and the chosen one of `anyOf` or `oneOf` stand for in their place.

    Of choices, those that are no reference come first: they end the recursion of a tree.
    """
    flat = {name: value for name, value in schema.items() if name not in COMBINERS}
    parts = [*schema.get("allOf", ())]
    for choices in (schema.get("anyOf"), schema.get("oneOf")):
        parts += sorted(choices, key=lambda choice: "$ref" in choice)[:1] if choices else []
    if "$ref" in schema and schema["$ref"] not in seen:
        parts.append(_referred(schema["$ref"], root))
        seen |= {schema["$ref"]}
    for part in parts:
        other, seen = _flattened(part, root, seen)
        flat = _merged(other, flat)
    return flat, seen


def _merged(one: Schema, other: Schema) -> Schema:
    merged = {**one, **other}
    if "properties" in merged:
        merged["properties"] = {**one.get("properties", {}), **other.get("properties", {})}
        merged["required"] = [*one.get("required", ()), *other.get("required", ())]
    return merged


def _referred(reference: str, root: Any) -> Any:
    target = root
    for step in reference.removeprefix("#").split("/")[1:]:
        target = target[step.replace("~1", "/").replace("~0", "~")]
    return target


def _object(schema: Schema, root: Any, seen: References) -> Schema:
    properties, required = schema.get("properties", {}), schema.get("required", ())
    names = [name for name in properties if name in required]
    names += [name for name in required if name not in properties]
    return {name: _example(properties.get(name), root, seen) for name in names}


def _array(schema: Schema, root: Any, seen: References) -> list[Any]:
    items = [*schema.get("prefixItems", ())]
    items += [schema.get("items")] * min(schema.get("minItems", 0) - len(items), MAX_PADDING)
    return [_example(item, root, seen) for item in items]


def _string(schema: Schema) -> str:
    text = STRINGS.get(schema.get("format", ""), "demo")
    return text.ljust(min(schema.get("minLength", 0), MAX_PADDING), ".")[: schema.get("maxLength")]


def _number(schema: Schema, *, whole: bool) -> Any:
    """0 if it may be, else 1, else something at, beside or between the bounds."""
    low: Any = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high: Any = schema.get("maximum", schema.get("exclusiveMaximum", low + 2))
    step = schema.get("multipleOf", 1)
    multiple = math.ceil(low / step) * step
    tried = (0, 1, multiple, multiple + step, low, high, high - 1, (low + high) / 2)
    fitting = (each for each in tried if _fits(each, schema, whole=whole))
    return next(fitting, low)


def _fits(value: Any, schema: Schema, *, whole: bool) -> bool:
    above = value > schema.get("exclusiveMinimum", value - 1)
    below = value < schema.get("exclusiveMaximum", value + 1)
    within = schema.get("minimum", value) <= value <= schema.get("maximum", value)
    stepped = "multipleOf" not in schema or (value / schema["multipleOf"]).is_integer()
    return above and below and within and stepped and not (whole and value != int(value))
