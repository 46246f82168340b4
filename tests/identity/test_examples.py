"""The examples that the API's description shows are what the routes take and give."""

from __future__ import annotations

from typing import Any

import pytest

from dwctl.identity import schemas
from dwctl.web.schemas import ApiSchema

KINDS = [
    kind
    for kind in vars(schemas).values()
    if isinstance(kind, type) and issubclass(kind, ApiSchema) and hasattr(kind, "example")
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_example_holds(kind: Any) -> None:
    schema = kind()
    shown = {field.data_key or name for name, field in schema.dump_fields.items()}
    is_request = any(field.required for field in schema.load_fields.values())
    if kind.example.keys() <= schema.load_fields.keys() and (
        is_request or not kind.example.keys() <= shown
    ):
        schema.load(kind.example)
    else:
        assert kind.example.keys() <= shown
