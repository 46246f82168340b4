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
    load_only = schema.load_fields.keys() - schema.dump_fields.keys()
    is_read = kind.example.keys() & load_only or any(
        f.required for f in schema.load_fields.values()
    )
    if kind.example.keys() <= schema.load_fields.keys() and is_read:
        schema.load(kind.example)
    else:
        assert kind.example.keys() <= {field.data_key or name for name, field in schema.dump_fields.items()}  # fmt: skip
