"""What every marshmallow schema and every blueprint of ours has in common.

Unknown request fields, of bodies and query strings, are ignored and named in the header `x-ignored-fields`; a wrong content type is 415, broken JSON 400, a wrong
shape 422, a bad query string 400.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from uuid import UUID

import flask_smorest
import orjson
from flask import Flask, Response, g
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate
from webargs.flaskparser import FlaskParser, abort
from werkzeug.exceptions import BadRequest, UnsupportedMediaType
from werkzeug.routing import BaseConverter

from dwctl.web import body_limits, json_body
from dwctl.web.dumping import QuickSchema, written_by
from dwctl.web.ignored import IGNORED_FIELDS_HEADER, named
from dwctl.web.json_body import Exact, ExactFloat

V = TypeVar("V", bound=Callable[..., Any])

_MOST_NAMED = 100
_LONGEST_NUMBER = 64
_PLAIN = re.compile(r"-?(?=\.?[0-9])[0-9]*\.?[0-9]*")
_DIGITS = re.compile(r"-?[0-9]{1,20}")
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What is on no line."""
_OFFSET = re.compile(r"([T ][0-9]{2}:[0-9][0-9:.]*) ([0-9]{2}:?[0-9]{2})$")
_SPELT_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_CHARSETS = ("utf-8", "utf8", "us-ascii")


def rfc3339(value: datetime) -> str:
    """2026-01-31T10:20:30.123456Z."""
    return value.isoformat().replace("+00:00", "Z")


class ApiSchema(QuickSchema):
    """Base of every schema that faces a client."""

    class Meta:
        unknown = EXCLUDE

    may_be_absent: ClassVar[bool] = False
    """Whether a request may come without a body, which then means an empty object."""


class Clamped(fields.Integer):
    """A whole number that is moved into its range, never refused for lying outside."""

    def __init__(self, least: int, most: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.least, self.most = least, most

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        number = super()._deserialize(value, attr, data, **kwargs)
        return min(max(number, self.least), self.most)


@written_by(datetime, rfc3339)
class Instant(fields.DateTime):
    """RFC 3339 in UTC with `Z`. Reads what ISO 8601 allows; a time without an offset counts as UTC. (A plus that a query did not encode has become a space.)"""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(format="iso", **kwargs)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else rfc3339(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        if isinstance(value, str):
            value = _OFFSET.sub(r"\1+\2", value)
        instant = super()._deserialize(value, attr, data, **kwargs)
        if instant.tzinfo is None:
            return instant.replace(tzinfo=UTC)
        try:
            return instant.astimezone(UTC)
        except OverflowError:
            raise ValidationError("Not a valid time.") from None


def digits_of(amount: Decimal) -> str:
    """Plain text with all its digits."""
    return format(amount, "f")


@written_by(Decimal, digits_of)
class Money(Exact, fields.Field[Decimal]):
    """Money and prices: out as plain text with their stored scale, in as text, integer or float, digit by digit. Whether a column holds it, `billing.money` says."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else format(value, "f")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Decimal:
        text = value.text if isinstance(value, ExactFloat) else str(value).strip()
        number = _FLOAT if isinstance(value, float) else _PLAIN
        if isinstance(value, bool) or len(text) > _LONGEST_NUMBER or not number.fullmatch(text):
            raise ValidationError("Not a plain decimal number.")
        amount = Decimal(text)
        # Zero has no sign. (An exponent of nine digits would be as many digits when it is shown.)
        return amount if amount else Decimal(0)


class Text(fields.String):
    """A text that PostgreSQL can store: no NUL (JSON can spell it; half of a surrogate pair is no JSON here), and bounded (`longest`, characters)."""

    longest = 65_536

    def __init__(self, *, longest: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.longest = longest or self.longest

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if len(text) > self.longest:
            raise ValidationError(f"Longer than maximum length {self.longest}.")
        if "\x00" in text:
            raise ValidationError("Must not contain a NUL character.")
        return text


class Name(Text):
    """A text of one line that fits into an index, a log line and a terminal."""

    longest = 255

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if CONTROL.search(text):
            raise ValidationError("Must not contain control characters.")
        return text


class Whole(fields.Integer):
    """A whole number that a column holds."""

    def __init__(self, *, least: int = -(2**31), most: int = 2**31 - 1, **kwargs: Any) -> None:
        checks = kwargs.pop("validate", [])
        checks = [*checks] if isinstance(checks, (list, tuple)) else [checks]
        super().__init__(strict=True, validate=[*checks, validate.Range(least, most)], **kwargs)


class Digits(Whole):
    """The same in a query string, where everything is text: decimal digits, with a sign."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        number = int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value
        return super()._deserialize(number, attr, data, **kwargs)


class Number(fields.Float):
    """A measure: finite, of a size that means something, and without a negative zero."""

    largest = 1e15

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        # Python also reads underscores, and the digits of every script.
        if isinstance(value, str) and not (_PLAIN.fullmatch(value.strip()) or _FLOAT.fullmatch(value.strip())):  # fmt: skip
            raise self.make_error("invalid")
        number = super()._deserialize(value, attr, data, **kwargs)
        if abs(number) > self.largest:
            raise ValidationError("Number too large.")
        return number + 0.0


class ListOf(fields.List[Any]):
    """A list that is refused when it is too long, before anything is made of its items; of wrong items the first are named."""

    named = 20

    def __init__(self, inner: Any, *, most: int = 1000, **kwargs: Any) -> None:
        super().__init__(inner, **kwargs)
        self.most = most

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list) and len(value) > self.most:
            raise ValidationError(f"More than {self.most} items.")
        try:
            return super()._deserialize(value, attr, data, **kwargs)
        except ValidationError as error:
            if isinstance(error.messages, dict):
                error.messages = dict(islice(error.messages.items(), self.named))
            raise


class MapOf(fields.Dict):
    """An object whose members' names are free: not too many, and nothing in it that PostgreSQL cannot store as JSON."""

    most = 1000

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, dict) and len(value) > self.most:
            raise ValidationError(f"More than {self.most} members.")
        if isinstance(value, dict) and _SPELT_NUL.search(orjson.dumps(value)):
            raise ValidationError("Must not contain a NUL character.")
        return super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]


class TrueOrFalse(fields.Boolean):
    """`true` or `false`, nothing else."""

    truthy = {True, "true"}
    falsy = {False, "false"}


class _Parser(FlaskParser):
    def load_json(self, req: Any, schema: Schema) -> Any:
        body = body_limits.body_of(req)
        if not body and isinstance(schema, ApiSchema) and schema.may_be_absent:
            return {}
        _insist_on_json(req)
        if not body:
            raise BadRequest("The request has no body, JSON is expected.")
        data = json_body.read(body, schema)
        if isinstance(data, Mapping):
            _note_ignored(data.keys(), schema)
        return data

    def load_querystring(self, req: Any, schema: Schema) -> Any:
        _note_ignored(req.args.keys(), schema)
        return super().load_querystring(req, schema)

    def handle_error(self, error: ValidationError, req: Any, schema: Schema, *, error_status_code: int | None, error_headers: Mapping[str, str] | None) -> Any:  # fmt: skip
        location = error.messages if isinstance(error.messages, dict) else {}
        status = 400 if "query" in location else 422
        abort(status, exc=error, messages=error.messages, schema=schema)


def _note_ignored(given: Iterable[str], schema: Schema) -> None:
    """Remember what the schema has no field for, to be named in the answer."""
    known = {item.data_key or name for name, item in schema.load_fields.items()}
    ignored = {*g.get("ignored_fields", ()), *(set(given) - known)}
    g.ignored_fields = sorted(ignored)[:_MOST_NAMED]


def _insist_on_json(req: Any) -> None:
    charset = req.mimetype_params.get("charset", "utf-8").lower()
    if not req.is_json or charset not in _CHARSETS:
        raise UnsupportedMediaType(
            "Expected request with `Content-Type: application/json`, in UTF-8"
            if req.is_json
            else "Expected request with `Content-Type: application/json`"
        )
    if req.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Expected request without `Content-Encoding`")


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """A flask-smorest blueprint with our way of reading arguments."""

    ARGUMENTS_PARSER = _Parser()

    def register_views_in_doc(self, *_args: Any, **_named: Any) -> None:
        """Nothing: `operations.openapi` makes the documents of the same decorators when somebody asks."""

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
        def alt_response(self, status_code: int, **options: Any) -> Callable[[V], V]: ...


class Words(Name):
    """Some of a few known words, comma-separated. What is unknown is for the route to ignore or refuse."""

    longest = 2000


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
