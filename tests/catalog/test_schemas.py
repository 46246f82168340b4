"""The examples that the API reference shows are what the routes take and give."""

from __future__ import annotations

import pytest

from dwctl.catalog import endpoint_schemas, provider_schemas, schemas
from dwctl.tools import schemas as tool_schemas
from dwctl.web.schemas import ApiSchema

MODULES = (endpoint_schemas, provider_schemas, schemas, tool_schemas)
SHOWN = {
    kind.__name__: kind
    for module in MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, ApiSchema) and "example" in vars(kind)
}


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_an_example_is_valid_and_names_only_fields_that_there_are(name: str) -> None:
    kind = SHOWN[name]
    assert kind.example.keys() <= kind().fields.keys()  # type: ignore[attr-defined]
    if name.endswith(("Create", "Update", "Validate", "Fields")):
        assert kind().load(kind.example)  # type: ignore[attr-defined]
    else:
        assert kind.example.keys() <= kind().dump_fields.keys()  # type: ignore[attr-defined]


def test_bodies_of_all_routes_have_examples() -> None:
    assert len(SHOWN) == 18
