"""Every field that a route declares, filled with what nobody should send: the answer is a refusal or a success, never a 500.

Routes and fields are those of the app, so that a new one is walked without being named here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import orjson
import pytest
from flask import Flask
from flask.testing import FlaskClient
from marshmallow import Schema, fields, validate
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from dwctl import config
from dwctl.app import create_app
from dwctl.web import json_body
from dwctl.web.schemas import ListOf, MapOf, Money, Name, Number, Text, Whole, Words
from tests.cast import Cast
from tests.fake_upstream import FakeUpstream

ADMIN = "/admin/api/v1"
NOBODY = "00000000-0000-4000-8000-00000000dead"
NO_JSON = (
    "1e999999999", "-1e999999999", "NaN", "Infinity", "-Infinity", "-NaN", r'"\ud800"', r'"\udc00x"', "9" * 5000, "01", "+1", ".5", "1.", "0x10",
    "'x'", "tru", "", "[" * 70 + "]" * 70, "[" * 5000 + "]" * 5000, '{"a":' * 70 + "1" + "}" * 70, '"' + "x\n" + '"', "[1,]", "{,}", "/**/1",
)  # fmt: skip
"""What is not JSON, or nested too deep to be taken for it."""
NO_NUMBERS = ("1e400", "-1e999999999", "NaN", "Infinity", "-Infinity")
"""Numbers that no field can have."""
ODD = (
    '""', '" "', r'"\u0000"', r'"a\u0000b"', r'"\u001b[31mred\n"', r'"\u202e\u2028"', '"' + "x" * 2000 + '"', '"' + "\u20ac" * 3000 + '"', '"' + "x" * 20_000 + '"',
    '"e\u0301\U0001f600"', "2147483648", "-2147483649", "9223372036854775808", "-9223372036854775809", "1" + "0" * 30, "1" + "0" * 300, "-1", "0", "-0", "-0.0", "0.1",
    "1e308", "-1e308", "1e-400", "5e-324", "3.5e38", "1e15", "0." + "1" * 5000, "0.1234567890123456789", "999999999999.99", '"1e999999999"', '"1e-999999999"', '"NaN"', '"Infinity"',
    '"-Infinity"', '"-0"', '"-0.000"', '"0x10"', '"1_000"', '"\u0665"', '"--1"', '"1-"', '"."', '"-"', '"99999999999999999999999999"', '"0.0000000000000000001"',
    '"10000-01-01T00:00:00Z"', '"9999-12-31T23:59:59-23:59"', '"0001-01-01T00:00:00+23:59"', '"0000-00-00"', '"-0001-01-01"', '"2024-02-30"', '"9999-12-31"',
    "true", "false", "null", "[]", "{}", "[null]", "[{}]", "[[]]", '[""]', '["a", "a"]', r'["\u0000"]', '{"": ""}', '{"a": null}', r'{"a": "\u0000"}', r'{"\u0000": 1}',
    "[" + ",".join(["1"] * 3000) + "]", "[" + ",".join(['"x"'] * 3000) + "]", "[" + ",".join(["{}"] * 3000) + "]",
    "{" + ",".join(f'"{n}": 1' for n in range(3000)) + "}", "[" * 40 + "]" * 40, '"urn:uuid:00000000-0000-4000-8000-00000000dead"', '"%"', r'"\\"', '"\' OR 1=1"',
    '"http://"', '"http://[::1"', '"http://a b/"', '"//x"', '"javascript:x"', '"http://x:99999/"', '"http://\u00e9\u0301.example/"',
)  # fmt: skip
"""What is JSON."""
SAID = (
    "", " ", "\x00", "a\x00b", "\x1b[31m", "x" * 1500, "-1", "0", "2147483648", "9223372036854775808", "-9223372036854775809", "9" * 1400, "1e5", "1e999999999",
    "NaN", "Infinity", "-0", "\u0665", "1_0", "true", "null", "10000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "0001-01-01", "9999-12-31",
    "%", "_", "\\", "'", ",", ",,,", NOBODY, NOBODY + ",x", "urn:uuid:" + NOBODY, "{" + NOBODY + "}", "[]", "{}", "\u20ac" * 100, "\U0001f600", "usage,\x00",
)  # fmt: skip
"""What a query string says."""
RAW_SAID = ("%ff", "%ed%a0%80", "%c0%80", "%", "%zz", "%u0041", "+", "a&{}=b", "%00")

HEADERS = [
    (name, value)
    for name, value in itertools.product(
        ("Authorization", "X-Organization-Id", "Cookie", "Content-Type", "Content-Length", "Host", "Origin", "X-Forwarded-For", "x-doubleword-user"),
        ("", "x", "\xff\xfe", "x" * 4000, "Bearer sk-\xff", "dwctl_session=\xff; a", "dwctl_active_organization=x", "-1", "9" * 40, NOBODY, "application/json; charset=utf-16", "a\tb"),
    )
    if (name, value) != ("Content-Length", "9" * 40)
]  # fmt: skip


def _app() -> Flask:
    return create_app(config.load({"DATABASE_URL": "postgresql://x@127.0.0.1:9/x"}))


def _declared(app: Flask, place: str) -> Iterator[tuple[Rule, str, type[Schema]]]:
    for rule in app.url_map.iter_rules():
        described = getattr(app.view_functions[rule.endpoint], "_apidoc", None) or {}
        for parameter in described.get("arguments", {}).get("parameters", ()):
            if parameter["in"] == place:
                (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
                kind = parameter["schema"]
                yield rule, method, kind if isinstance(kind, type) else type(kind)


_APP = _app()
BODIES = sorted(_declared(_APP, "json"), key=lambda found: (found[0].rule, found[1]))
# (A stream that is watched does not end; it is asked for by the fields of the list beside it.)
QUERIES = sorted(
    (found for found in _declared(_APP, "query") if not found[0].rule.endswith("/live")),
    key=lambda found: (found[0].rule, found[1]),
)


def _named(found: list[tuple[Rule, str, type[Schema]]]) -> list[str]:
    return [f"{method} {rule.rule}" for rule, method, _ in found]


def test_there_is_something_to_walk() -> None:
    assert len(BODIES) > 12
    assert len(QUERIES) > 7


# --- the kinds of fields


def _inside(schema: Schema) -> Iterator[tuple[str, fields.Field[Any]]]:
    for name, field in schema.load_fields.items():
        yield from _within(f"{type(schema).__name__}.{name}", field)


def _within(path: str, field: fields.Field[Any]) -> Iterator[tuple[str, fields.Field[Any]]]:
    yield path, field
    if isinstance(field, fields.List):
        yield from _within(f"{path}[]", field.inner)
    elif isinstance(field, fields.Nested):
        yield from _inside(field.schema)


def _is_bounded(field: fields.Field[Any]) -> bool:
    if any(isinstance(check, validate.OneOf) for check in field.validators):
        return True
    if isinstance(field, (fields.UUID, fields.Boolean, fields.DateTime, fields.Date, fields.Nested)):  # fmt: skip
        return True
    if isinstance(field, (Text, Whole, Number, Money, ListOf, MapOf)):
        return True
    if any(isinstance(check, validate.Range) and None not in (check.min, check.max) for check in field.validators):  # fmt: skip
        return True
    # Pages are moved into range.
    return isinstance(field, fields.Integer) and field.name in ("limit", "skip")


@pytest.mark.parametrize("kind", sorted({kind for *_, kind in (*BODIES, *QUERIES)}, key=str))
def test_every_field_is_of_a_bounded_kind(kind: type[Schema]) -> None:
    assert [path for path, field in _inside(kind()) if not _is_bounded(field)] == []


# --- the walk


class Walk:
    """A database with one of each, and requests by an administrator."""

    def __init__(self, client: FlaskClient, upstream: FakeUpstream, cast: Cast) -> None:
        self.client = client
        self._numbers = itertools.count()
        endpoint = {"name": "walked", "url": upstream.url, "sync": False}
        self.url = upstream.url
        self.endpoint = self.made("/endpoints", endpoint)
        model = {
            "type": "standard",
            "model_name": "ok",
            "alias": "walked",
            "hosted_on": self.endpoint,
        }
        self.model = self.made("/models", model)
        composite = {"type": "composite", "model_name": "walked too"}
        self.composite = self.made("/models", composite)
        added = self.send("POST", f"{ADMIN}/models/{self.composite}/components/{self.model}", b"{}")
        assert added.status_code == 200, added.text
        self.group = self.made("/groups", {"name": "walked"})
        self.user = str(cast["bob"])
        company = {"name": "walked.example", "email": "a@walked.example"}
        self.organization = self.made("/organizations", company)
        member = {"user_id": self.user, "role": "owner"}
        path = f"{ADMIN}/organizations/{self.organization}/members"
        assert self.send("POST", path, orjson.dumps(member)).status_code == 201

    def made(self, path: str, body: dict[str, Any]) -> str:
        answer = self.send("POST", ADMIN + path, orjson.dumps(body))
        assert answer.status_code < 300, answer.text
        found: str = answer.json["id"]
        return found

    def send(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> TestResponse:
        # Of the request log a manager is to see nothing.
        of_log = path.startswith(f"{ADMIN}/requests") or ("/users/" in path and "/requests" in path)
        who = "viewer" if method == "GET" and of_log else "admin"
        sent = Cast.headers(who) | headers
        kind = None if body is None else "application/json"
        return self.client.open(path, method=method, data=body, content_type=kind, headers=sent)

    def path(self, rule: Rule) -> str:
        of_room = self.endpoint if "/endpoints" in rule.rule else self.model
        if "/components" in rule.rule:
            of_room = self.composite
        ids = {
            "user_id": self.user,
            "group_id": self.group,
            "deployment_id": self.model,
            "model_id": self.model,
            "organization_id": self.organization,
            "id": of_room,
        }
        path = rule.rule
        for name in rule.arguments:
            for converter in ("id", "user", "path", "default"):
                path = path.replace(f"<{converter}:{name}>", ids.get(name, NOBODY))
            path = path.replace(f"<{name}>", ids.get(name, NOBODY))
        return path

    def body(self, schema: Schema) -> dict[str, Any]:
        """What the schema needs, in the right shape."""
        return {
            field.data_key or name: self._value(name, field)
            for name, field in schema.load_fields.items()
            if field.required or name in ("type", "hosted_on", "url", "sync", "alias")
        }

    def _value(self, name: str, field: fields.Field[Any]) -> Any:
        for check in field.validators:
            if isinstance(check, validate.OneOf):
                return next(iter(check.choices))
        known = {"url": self.url, "sync": False, "email": f"walked{next(self._numbers)}@x.example", "password": "long-enough",
                 "new_password": "long-enough", "hosted_on": self.endpoint, "user_id": self.user, "role": "member",
                 "completion_window": "24h", "endpoint": "/v1/chat/completions", "input_file_id": NOBODY, "bucket": "walked", "region": "eu-1"}  # fmt: skip
        if name in known:
            return known[name]
        if isinstance(field, fields.List):
            return [self._value(name, field.inner)]
        if isinstance(field, fields.Nested):
            return self.body(field.schema)
        return "1" if isinstance(field, Money) else f"walked {next(self._numbers)}"


@pytest.fixture(scope="module")
def walk(app: Flask, upstream: FakeUpstream, cast: Cast) -> Walk:
    return Walk(app.test_client(use_cookies=False), upstream, cast)


def held(answer: TestResponse, what: str) -> None:
    assert answer.status_code < 500, (what[:200], answer.text[:500])
    if answer.status_code >= 400:
        assert answer.mimetype == "application/json"
        inner = answer.json.get("error")
        said = inner if isinstance(inner, dict) else answer.json
        assert said["code"], what[:200]
        assert said["message"]
        assert len(answer.data) < 20_000, "it says everything back"


@pytest.mark.parametrize(("rule", "method", "kind"), BODIES, ids=_named(BODIES))
def test_no_field_of_a_body_breaks_anything(walk: Walk, rule: Rule, method: str, kind: type[Schema]) -> None:  # fmt: skip
    schema, path = kind(), walk.path(rule)
    plain = walk.send(method, path, orjson.dumps(walk.body(schema)))
    assert plain.status_code not in (400, 415, 422) or "authentication" in path, plain.text
    places = list(_places(schema))
    for place, text in _shared_out(places, ODD):
        held(walk.send(method, path, _with(walk.body(schema), place, text)), f"{place} {text}")
    for text in NO_JSON:
        answer = walk.send(method, path, _with(walk.body(schema), places[0], text))
        held(answer, text)
        assert answer.status_code == 400, (text[:100], answer.text)
    for place, text in zip(places[::4], itertools.cycle(NO_NUMBERS), strict=False):
        named = next(step for step in reversed(place) if isinstance(step, str))
        answer = walk.send(method, path, _with(walk.body(schema), place, text))
        said = answer.json.get("error", answer.json)
        assert f"{named}: Must be a finite number." in said["message"], (place, text)


def _shared_out(places: Sequence[Any], values: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """A third of the values in each place, the next third in the next: there are few kinds of fields, and many of each."""
    for number, place in enumerate(places):
        for value in values[number % 3 :: 3]:
            yield place, value


def _places(schema: Schema) -> Iterator[tuple[str | int, ...]]:
    """Where a value can stand: in a field, an item of a list, a member of something nested."""
    for name, field in schema.load_fields.items():
        key = field.data_key or name
        yield (key,)
        if isinstance(field, fields.List):
            yield (key, 0)
            field, key = field.inner, key
        if isinstance(field, fields.Nested):
            is_list = isinstance(schema.load_fields[name], fields.List)
            for rest in _places(field.schema):
                yield (key, 0, *rest) if is_list else (key, *rest)
        if isinstance(field, fields.Dict):
            yield (key, "x")


def _with(body: dict[str, Any], place: tuple[str | int, ...], text: str) -> bytes:
    value: Any = "@odd@"
    for step in reversed(place[1:]):
        value = [value] if isinstance(step, int) else {"mode": "per_token", step: value}
    whole = orjson.dumps(body | {str(place[0]): value})
    return whole.replace(b'"@odd@"', text.encode())


@pytest.mark.parametrize(("rule", "method", "kind"), BODIES, ids=_named(BODIES))
def test_no_body_as_a_whole_does(walk: Walk, rule: Rule, method: str, kind: type[Schema]) -> None:
    for text in (*NO_JSON, *ODD[-40:]):
        held(walk.send(method, walk.path(rule), text.encode()), text)


@pytest.mark.parametrize(("rule", "method", "kind"), QUERIES, ids=_named(QUERIES))
def test_no_field_of_a_query_breaks_anything(walk: Walk, rule: Rule, method: str, kind: type[Schema]) -> None:  # fmt: skip
    path = walk.path(rule)
    needed = {name: "8999" if isinstance(field, fields.Integer) else "walked" for name, field in kind().load_fields.items() if field.required}  # fmt: skip
    # (A model is not there any more when its endpoint's list was read.)
    assert walk.send(method, f"{path}?{urlencode(needed)}").status_code in (200, 204, 302, 404)
    for name, said in _shared_out(list(kind().load_fields), [*map(quote, SAID), *RAW_SAID]):
        others = urlencode({other: value for other, value in needed.items() if other != name})
        query = f"{name}={said.replace('{}', name)}"
        held(walk.send(method, f"{path}?{query}&{others}"), query)


RULES = sorted({(rule.rule, method) for rule in _APP.url_map.iter_rules() for method in (rule.methods or set()) - {"HEAD", "OPTIONS"} if rule.rule.startswith((ADMIN, "/authentication"))})  # fmt: skip


@pytest.mark.parametrize(("rule", "method"), RULES, ids=[f"{m} {r}" for r, m in RULES])
def test_no_path_or_header_does(walk: Walk, rule: str, method: str) -> None:
    odd = ("x", "%20", "%00", "%ff", "x" * 1500, "..", "%7B%7D", "current", "-1", "9" * 40, NOBODY, NOBODY.upper(), "urn:uuid:" + NOBODY, "%F0%9F%98%80")  # fmt: skip
    for said in odd if "<" in rule else ():
        path = "".join(said if i % 2 else part for i, part in enumerate(_split(rule)))
        answer = walk.send(method, path, b"{}" if method in ("POST", "PATCH") else None)
        assert answer.status_code < 500, (path, answer.text)
    path = "".join(NOBODY if i % 2 else part for i, part in enumerate(_split(rule)))
    # Every route reads them by the same few functions: each meets a sixth of them.
    for name, value in HEADERS[RULES.index((rule, method)) % 6 :: 6]:
        assert walk.send(method, path, **{name: value}).status_code < 500, (name, value)


def _split(rule: str) -> list[str]:
    """Literal parts at even places, parameters at odd ones."""
    return re.split(r"(<[^<>]+>)", rule)


# --- money keeps its digits, and nothing else costs what money does


def test_money_is_read_digit_by_digit_wherever_it_stands() -> None:
    class Price(Schema):
        price = Money()
        measure = fields.Float()

    class Model(Schema):
        amount = Money()
        measure = fields.Float()
        prices = fields.List(fields.Nested(Price))
        one = fields.Nested(Price)

    text = b"""{"amount": 0.1000000000000000055511151231257827, "measure": 0.30, "one": {"price": 12345678901234567890.5},
        "prices": [{"price": 1e-7, "measure": 2.50}, {"price": 3}, {}], "free": [0.10]}"""
    read = json_body.read(b"\xef\xbb\xbf" + text, Model())
    assert read["amount"].text == "0.1000000000000000055511151231257827"
    assert read["one"]["price"].text == "12345678901234567890.5"
    assert [price.get("price") for price in read["prices"]] == [1e-7, 3, None]
    assert read["prices"][0]["price"].text == "1e-7"
    assert type(read["prices"][1]["price"]) is int
    assert {type(read["measure"]), type(read["free"][0]), type(read["prices"][0]["measure"])} == {
        float
    }


@pytest.mark.parametrize(
    ("sent", "found"),
    [("1", "1"), ('"1.50"', "1.50"), ('" 2 "', "2"), ("1e2", "100"), ("2.50", "2.50"), ("-0", "0"), ("-0.0", "0"), ('"-0"', "0"), ("12345678901234567890", "12345678901234567890"),
     ('"1e999"', None), ('"1e2"', None), ('"1,5"', None), ('""', None), ('"x"', None), ("true", None), ("[]", None), ('"\u0665"', None), ('"1-1"', None), ("0." + "1" * 70, None),
     ('"' + "1" * 65 + '"', None)],
)  # fmt: skip
def test_money_is_a_plain_decimal(sent: str, found: str | None) -> None:
    class Paid(Schema):
        amount = Money()

    body = b'{"amount": %b}' % sent.encode()
    read = json_body.read(body, Paid())
    refused = Paid().validate(read)
    assert bool(refused) is (found is None)
    if found is not None:
        assert format(Paid().load(read)["amount"], "f") == found


def test_names_are_words_of_one_line() -> None:
    for bad in ("a\nb", "a\x1b[0m", "\x7f", "\x85", "a\u2028b", "x" * 256):
        with pytest.raises(Exception, match=r"control|maximum"):
            Name().deserialize(bad)
    assert (
        Name().deserialize("\u00fc\u0301 \U0001f468\u200d\U0001f469 x")
        == "\u00fc\u0301 \U0001f468\u200d\U0001f469 x"
    )
    assert Words().deserialize("a," * 900)
