"""What is written the short way is what marshmallow writes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import pytest
from flask import Flask
from marshmallow import Schema, fields, post_dump

from dwctl.web.dumping import Extended, Written, written
from dwctl.web.schemas import ApiSchema, Instant, Money, Name, Number, Text, TrueOrFalse, Whole
from tests.identity.doors import NOBODY


class Word(StrEnum):
    A = "a"


class Digit(IntEnum):
    ONE = 1


class Pair(NamedTuple):
    text: str
    number: int


def members() -> dict[str, fields.Field[Any]]:
    return {
        "text": fields.String(),
        "name": Name(),
        "long": Text(),
        "flag": fields.Boolean(),
        "switch": TrueOrFalse(),
        "number": fields.Integer(),
        "spelt": fields.Integer(as_string=True),
        "whole": Whole(),
        "measure": fields.Float(),
        "amount": Number(),
        "price": Money(),
        "at": Instant(),
        "id": fields.UUID(),
        "ids": fields.List(fields.UUID()),
        "free": fields.Dict(),
        "renamed": fields.String(attribute="text", data_key="Other-Name"),
        "deep": fields.String(attribute="inner.text"),
        "always": fields.String(dump_default="there"),
        "made": fields.Function(lambda obj: "made"),
        "fixed": fields.Constant("fixed"),
        "only_in": fields.String(load_only=True),
    }


VALUES: tuple[Any, ...] = (
    None, "", "x", "\u00e9\U0001f600", b"bytes", Word.A, True, False, 0, 1, -1, 2**80, Digit.ONE, 1.0, 0.1, float("inf"), Decimal("1.50"), Decimal(3),
    UUID(NOBODY), datetime(2026, 1, 2, 3, 4, 5, 6, UTC), [], ["x"], [UUID(NOBODY)], {}, {"a": [1]}, "7",
)  # fmt: skip


def outcome(kind: type[Schema], obj: Any) -> Any:
    try:
        return repr(kind().dump(obj))
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_each_value_in_each_field(value: Any) -> None:
    for name, field in members().items():
        plain = Schema.from_dict({name: field})
        quick = type("Quick", (ApiSchema,), {name: members()[name]})
        for obj in ({name: value}, SimpleNamespace(**{name: value}), {"text": value, "inner": {"text": value}}, {}):  # fmt: skip
            assert outcome(quick, obj) == outcome(plain, obj), (name, obj)


def test_rows_that_are_neither_dicts_nor_plain_objects() -> None:
    kind = ApiSchema.from_dict({"text": fields.String(), "number": fields.Integer()})
    assert kind().dump(Pair("a", 1)) == {"text": "a", "number": 1}
    assert kind(many=True).dump([Pair("a", 1), {"text": "b"}]) == [
        {"text": "a", "number": 1},
        {"text": "b"},
    ]
    assert kind(only=("text",)).dump(Pair("a", 1)) == {"text": "a"}


class Inner(ApiSchema):
    text = fields.String()

    @post_dump
    def mark(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        return {key: value for key, value in data.items() if value is not None}


class Outer(ApiSchema):
    one = fields.Nested(Inner)
    many = fields.List(fields.Nested(Inner))


def test_a_row_that_was_written_already_stands_as_it_is() -> None:
    inner = written(Inner(), {"text": "x", "gone": 1})
    assert type(inner) is Written
    shown = Outer().dump({"one": inner, "many": [inner, {"text": None}, inner]})
    assert shown == {"one": {"text": "x"}, "many": [{"text": "x"}, {}, {"text": "x"}]}
    assert orjson.dumps(shown) == b'{"one":{"text":"x"},"many":[{"text":"x"},{},{"text":"x"}]}'


def test_what_extends_an_object_goes_before_its_own() -> None:
    def unasked(_self: Any) -> str:
        raise AssertionError("asked for what stands before it")

    base = type("Base", (), {"text": property(unasked), "number": 1})()
    kind = ApiSchema.from_dict({name: fields.Raw() for name in ("text", "number", "none")})
    assert kind().dump(Extended(base, text="x")) == {"text": "x", "number": 1}
    assert kind().dump(Extended(Extended(base, text="x"), number=2)) == {"text": "x", "number": 2}


class Sparse(ApiSchema):
    absent_where_null = frozenset({"at", "price"})

    text = fields.String()
    at = Instant()
    price = Money()


@pytest.mark.parametrize("kind", [dict, lambda row: SimpleNamespace(**row), MappingProxyType], ids=["dict", "object", "mapping"])  # fmt: skip
def test_what_is_absent_where_it_is_null(kind: Any) -> None:
    nothing: dict[str, Any] = {"text": None, "at": None, "price": None}
    assert Sparse().dump(kind(nothing)) == {"text": None}
    assert Sparse(many=True).dump([kind({"price": Decimal("1.50")})]) == [{"price": "1.50"}]


def test_rows_of_a_list_are_written_together_as_they_are_alone() -> None:
    class Plain(Schema):
        many = fields.List(fields.Nested(Schema.from_dict({"text": fields.String()})))

    for rows in ([], [{"text": "a"}, {}], [{"text": "a"}, None], None, ({"text": "a"},)):
        obj = {"many": rows}
        expected = outcome(Plain, obj)
        assert outcome(type("Quick", (ApiSchema,), {"many": fields.List(fields.Nested(ApiSchema.from_dict({"text": fields.String()})))}), obj) == expected  # fmt: skip


@pytest.mark.parametrize("value", [{"a": 2**70}, {"a": Decimal("1.5")}, {"\u00e9": UUID(NOBODY)}, [1.5, None, True], {1: "x"}, "\ud800"], ids=repr)  # fmt: skip
def test_json_says_what_it_said(app: Flask, value: Any) -> None:
    with app.app_context():
        assert app.json.loads(app.json.dumps(value)) == app.json.loads(
            super(type(app.json), app.json).dumps(value)  # type: ignore[misc]
        )
