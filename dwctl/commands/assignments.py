"""FIELD=VALUE on a command line, for what the admin API takes in a PATCH."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from marshmallow import Schema, fields
from werkzeug.exceptions import BadRequest

from dwctl.commands.given import checked
from dwctl.errors import Invalid
from dwctl.web import json_body

F = TypeVar("F", bound=Callable[..., Any])


def argument(command: F) -> F:
    """`FIELD=VALUE...`, as `assignments`."""
    return click.argument("assignments", nargs=-1, required=True, metavar="FIELD=VALUE...")(command)


def read(schema: Schema, assignments: Sequence[str]) -> dict[str, Any]:
    """What the schema makes of them. A value is JSON, or else a text; of a list its items, with commas between.

    Raises Invalid for a field that is none, and with the reason for a value that is none.
    """
    values: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise Invalid(f"{assignment}: expected FIELD=VALUE")
        if name not in schema.load_fields:
            known = ", ".join(sorted(schema.load_fields))
            raise Invalid(f"{name} is no field that can be set; these are: {known}")
        values[name] = _as_json(schema.load_fields[name], value)
    body = ",".join(f"{json.dumps(name)}:{value}" for name, value in values.items())
    try:
        data = json_body.read(f"{{{body}}}".encode(), schema)
    except BadRequest as error:
        raise Invalid(f"These values are not valid JSON: {' '.join(assignments)[:200]}") from error
    return checked(schema, data)


def _as_json(field: fields.Field[Any], value: str) -> str:
    if value == "null":
        return value
    if isinstance(field, fields.String):
        return json.dumps(value)
    try:
        json.loads(value)
    except ValueError:
        if isinstance(field, fields.List):
            return json.dumps([item.strip() for item in value.split(",") if item.strip()])
        return json.dumps(value)
    return value
