"""Forms as a browser sends them, without one: the token is read from the page that has the form."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.cast import Cast

_TOKEN = re.compile(r'name="_token" value="([0-9a-f]+)"')


def token(html: str) -> str:
    """The token of a page's forms."""
    found = _TOKEN.search(html)
    assert found, "this page has no form"
    return found[1]


def get(client: FlaskClient, who: str, path: str, **more: Any) -> TestResponse:
    """A page, as one of the cast."""
    return client.get(path, headers=Cast.headers(who), **more)


def fields(html: str, action: str) -> dict[str, Any]:
    """What a browser would send if the form with that action were sent as it stands ("": the form that goes to its own page)."""
    reader = _Reader(action)
    reader.feed(html)
    assert reader.was_there, f"there is no form for {action!r}"
    return reader.fields


class _Reader(HTMLParser):
    """Reads one form's successful controls. Several of one name become a list."""

    def __init__(self, action: str) -> None:
        super().__init__()
        self.action = action
        self.fields: dict[str, Any] = {}
        self.was_there = False
        self._within = False
        self._select = self._textarea = ""

    def handle_starttag(self, tag: str, pairs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in pairs}
        if tag == "form":
            self._within = has.get("method") == "post" and has.get("action", "") == self.action
            self.was_there |= self._within
        if not self._within or "disabled" in has:
            return
        name = has.get("name", "")
        if tag == "input" and name and (has.get("type") not in ("checkbox", "radio") or "checked" in has):  # fmt: skip
            self._put(name, has.get("value", ""))
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and (self._select not in self.fields or "selected" in has):  # fmt: skip
            self.fields[self._select] = has.get("value", "")
        elif tag == "textarea":
            self._textarea = name
            self.fields[name] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._within = False
        elif tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._textarea = ""

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.fields[self._textarea] += data

    def _put(self, name: str, value: str) -> None:
        if name not in self.fields:
            self.fields[name] = value
        else:
            before = self.fields[name]
            self.fields[name] = [*(before if isinstance(before, list) else [before]), value]


def submit(
    client: FlaskClient, who: str, page: str, path: str, fields: dict[str, Any]
) -> TestResponse:
    """Open a page, and send a form of it."""
    sent = fields | {"_token": token(get(client, who, page).text)}
    return client.post(path, data=sent, headers=Cast.headers(who))
