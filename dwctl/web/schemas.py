"""What every marshmallow schema and every blueprint of ours has in common.

Unknown request fields are ignored and named in the header `x-ignored-fields`; a wrong content type is 415, broken JSON 400, a wrong
shape 422, a bad query string 400.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from uuid import UUID

import flask_smorest
from flask import Flask, Response, g
from marshmallow import EXCLUDE, Schema, ValidationError, fields, missing
from webargs.flaskparser import FlaskParser, abort
from werkzeug.exceptions import BadRequest, UnsupportedMediaType
from werkzeug.routing import BaseConverter

from dwctl.web.ignored import IGNORED_FIELDS_HEADER, named

V = TypeVar("V", bound=Callable[..., Any])


class ApiSchema(Schema):
    """Base of every schema that faces a client."""

    class Meta:
        unknown = EXCLUDE


class Instant(fields.DateTime):
    """RFC 3339 in UTC with `Z`. Reads what ISO 8601 allows; a time without an offset counts as UTC."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(format="iso", **kwargs)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else rfc3339(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        instant = super()._deserialize(value, attr, data, **kwargs)
        if instant.tzinfo is None:
            return instant.replace(tzinfo=UTC)
        try:
            return instant.astimezone(UTC)
        except OverflowError:
            raise ValidationError("Not a valid time.") from None


class ExactFloat(float):
    """A JSON number with a fraction or an exponent that remembers its digits: money never passes through binary."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> ExactFloat:
        made = super().__new__(cls, text)
        made.text = text
        return made


class Money(fields.Field[Decimal]):
    """Money and prices: out as plain text with their stored scale, in as text, integer or float, digit by digit."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else format(value, "f")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Decimal:
        text = value.text if isinstance(value, ExactFloat) else str(value).strip()
        plain = text.replace("-", "", 1).replace(".", "", 1).isdecimal()
        if isinstance(value, bool) or not (plain or isinstance(value, float)):
            raise ValidationError("Not a plain decimal number.")
        return Decimal(text)


class Text(fields.String):
    """A text that PostgreSQL can store: no NUL, no half of a surrogate pair (JSON can spell both)."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if "\x00" in text:
            raise ValidationError("Must not contain a NUL character.")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValidationError("Must not contain an unpaired surrogate.") from None
        return text


class TrueOrFalse(fields.Boolean):
    """`true` or `false`, nothing else."""

    truthy = {True, "true"}
    falsy = {False, "false"}


def rfc3339(value: datetime) -> str:
    """2026-01-31T10:20:30.123456Z."""
    return value.isoformat().replace("+00:00", "Z")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


class _Parser(FlaskParser):
    def load_json(self, req: Any, schema: Schema) -> Any:
        if not req.is_json:
            raise UnsupportedMediaType("Expected request with `Content-Type: application/json`")
        data = super().load_json(req, schema)
        if data is missing:
            raise BadRequest("The request has no body, JSON is expected.")
        if isinstance(data, Mapping):
            known = {item.data_key or name for name, item in schema.load_fields.items()}
            g.ignored_fields = sorted(set(map(str, data)) - known)
        return data

    def _raw_load_json(self, req: Any) -> Any:
        coding = req.headers.get("Content-Encoding", "identity")
        if coding.strip().lower() not in ("", "identity"):
            raise UnsupportedMediaType(
                "This route takes no Content-Encoding: send the body as it is."
            )
        body = req.get_data(cache=True)
        if not body:
            return missing
        try:
            return json.loads(body, parse_float=ExactFloat, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            # Besides broken JSON: numbers of thousands of digits, endless nesting, bytes that are no text.
            raise BadRequest("The request body is not valid JSON.") from None

    def handle_error(self, error: ValidationError, req: Any, schema: Schema, *, error_status_code: int | None, error_headers: Mapping[str, str] | None) -> Any:  # fmt: skip
        location = error.messages if isinstance(error.messages, dict) else {}
        status = 400 if "query" in location else 422
        abort(status, exc=error, messages=error.messages, schema=schema)


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """A flask-smorest blueprint with our way of reading arguments."""

    ARGUMENTS_PARSER = _Parser()

    if TYPE_CHECKING:
        # flask-smorest has no types. What a decorator does to the arguments of a view is beyond them anyway.
        def route(
            self, rule: str, *, methods: Sequence[str], **options: Any
        ) -> Callable[[V], V]: ...
        def arguments(
            self, schema: type[Schema] | Schema, *, location: str = "json", **options: Any
        ) -> Callable[[V], V]: ...
        def response(
            self, status_code: int, schema: type[Schema] | Schema | None = None, **options: Any
        ) -> Callable[[V], V]: ...


class IdConverter(BaseConverter):
    """A UUID in a path; anything else is 400, as a malformed id is no unknown id."""

    regex = r"[^/]+"

    def to_python(self, value: str) -> Any:
        try:
            return UUID(value)
        except ValueError:
            raise BadRequest(f"Invalid ID format: {value[:64]!r} is not a UUID") from None


class UserIdConverter(IdConverter):
    """A user's UUID, or `current`."""

    def to_python(self, value: str) -> Any:
        return value if value == "current" else super().to_python(value)


def init_app(app: Flask, api: flask_smorest.Api) -> None:
    """Path converters `id` and `user`, and the header that names ignored fields."""
    for name, converter in (("id", IdConverter), ("user", UserIdConverter)):
        app.url_map.converters[name] = converter
        api.register_converter(converter, lambda _c: {"type": "string", "format": "uuid"})

    @app.after_request
    def name_ignored_fields(response: Response) -> Response:
        if g.get("ignored_fields"):
            response.headers[IGNORED_FIELDS_HEADER] = named(g.ignored_fields)
        return response

    @app.after_request
    def empty_no_content(response: Response) -> Response:
        """A view that gives nothing out has been dumped as null by now."""
        if response.status_code == 204:
            response.data = b""
            del response.headers["Content-Type"]
        return response
