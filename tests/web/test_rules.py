"""Addresses of routes: as werkzeug writes them, by functions that are made when they are first wanted."""

from __future__ import annotations

from unittest.mock import patch
from uuid import UUID

import pytest
from flask import Flask
from werkzeug.routing import AnyConverter, BuildError, IntegerConverter, Map, Rule, UUIDConverter

from dwctl.web.rules import LateRule

VALUES: dict[type, object] = {
    AnyConverter: "newer",
    IntegerConverter: 7,
    UUIDConverter: UUID(int=1),
}


def test_an_application_has_made_none_of_them(app: Flask) -> None:
    with patch.object(Rule, "_compile_builder", autospec=True, side_effect=Rule._compile_builder) as made:  # fmt: skip
        map = Map([LateRule("/models/<id>", endpoint="model")])
        map.update()
        assert not made.called
        addresses = map.bind("here")
        assert [addresses.build("model", {"id": "a b"}) for _ in range(3)] == ["/models/a%20b"] * 3
    assert made.call_count == 1
    assert {type(rule) for rule in app.url_map.iter_rules()} == {LateRule}


@pytest.mark.parametrize("more", [{}, {"page": "2", "q": "a&b ü"}])
def test_all_addresses_are_those_of_werkzeug(app: Flask, more: dict[str, str]) -> None:
    ours = app.url_map.bind("here")
    rules = list(app.url_map.iter_rules())
    plain = Map(
        [Rule(rule.rule, endpoint=rule.endpoint, methods=rule.methods) for rule in rules],
        strict_slashes=False,
        merge_slashes=False,
        converters=app.url_map.converters,
    )
    theirs = plain.bind("here")
    for rule in rules:
        # Any text will do, but where a number, an id or one of a few words is wanted.
        values = {name: VALUES.get(type(rule._converters[name]), "a b") for name in rule.arguments}
        expected = theirs.build(rule.endpoint, values | more)
        assert ours.build(rule.endpoint, values | more) == expected
    with pytest.raises(BuildError):
        ours.build("nothing")
