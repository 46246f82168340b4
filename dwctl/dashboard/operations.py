"""The admin API's operations, run within a page's own request: the permission, schemas and function of the route, without HTTP."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from flask import Response, current_app, request
from marshmallow import Schema, ValidationError
from sqlalchemy import event
from sqlalchemy.orm import Session
from werkzeug.routing import Rule

from dwctl.access import guard
from dwctl.dashboard import forms, snippets
from dwctl.db import db
from dwctl.errors import Forbidden, Invalid
from dwctl.web import cursors

View = Callable[..., Any]

_INDEX = "dwctl.dashboard.operations"
_READ = "dwctl_read"


@dataclass(frozen=True)
class Operation:
    """A route of the API, taken apart.

    view: what it runs in the end. rules: who may, checked before anything is read. schemas: of what the view is given, by location (`query`, `json`), in
    the order of its arguments. answer: what writes a success, None where the view does it itself.
    """

    route: Rule
    method: str
    view: View
    rules: tuple[Callable[..., None], ...]
    schemas: tuple[tuple[str, Schema], ...]
    answer: Schema | None

    @cached_property
    def body(self) -> Schema | None:
        """The schema of its body."""
        return next((schema for place, schema in self.schemas if place == "json"), None)

    def path(self, **values: Any) -> str:
        """Its address below this deployment's root, with the path's values in their places."""
        built = self.route.build({name: str(value) for name, value in values.items()})
        assert built is not None, f"{self.route.rule} is not made of {sorted(values)}"
        return built[1]


def of(view: View) -> Operation:
    """The operation whose route a view function is, as its module names it."""
    index: dict[View, Operation] | None = current_app.extensions.get(_INDEX)
    if index is None:
        index = current_app.extensions[_INDEX] = dict(_taken_apart())
    return index[inspect.unwrap(view)]


def may(view: View, **path: Any) -> bool:
    """Whether the caller may run the operation on what the path names, as far as that does not depend on rows."""
    try:
        _insist(of(view), path)
    except Forbidden:
        return False
    return True


def insist(view: View, **path: Any) -> None:
    """Refuse whoever may not run the operation, before a page asks them for what it takes. Raises Forbidden, or what else the route's rule refuses."""
    _insist(of(view), path)


def run(
    view: View,
    *,
    query: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **path: Any,
) -> Any:
    """What the operation answers, as the API's JSON would have it (times are texts, money is text, ids are texts).

    `query`, `body` and `headers` are as a client would send them; None in `query` counts as not there. Raises what the route refuses: Forbidden before
    anything is read, Invalid for a query, ValidationError (marshmallow's, by field) for a body, any DwctlError of the function itself. A view that
    answers by itself (a download, a stream) gives its Response. The answer's status and headers are the page's own.
    """
    result = values(view, query=query, body=body, headers=headers, **path)
    answer = of(view).answer
    if isinstance(result, Response):
        # Some views write their JSON themselves.
        return result.get_json() if result.is_json else result
    return result if answer is None else answer.dump(result)


def values(
    view: View,
    *,
    query: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **path: Any,
) -> Any:
    """The same as the function has it, before it is written as JSON: times are datetimes, money is Decimal, and what is not known may be there as None.

    For pages of which writing it, and reading it again, would be a large part. What a schema leaves out of an answer is for the page to leave out.
    """
    operation = of(view)
    _insist(operation, path)
    _keep_what_is_read()
    given = {"query": _present(query or {}), "json": dict(body or {})}
    loaded = [_load(schema, place, given[place]) for place, schema in operation.schemas]
    with _sent(headers or {}):
        result = operation.view(*loaded, **path)
    return result[0] if isinstance(result, tuple) else result


def beside(view: View, *, query: Mapping[str, Any] | None = None, **path: Any) -> Any:
    """The same for a list that is not the page's own, such as the choices of a filter: the page's cursor is none of it."""
    with cursors.aside():
        return run(view, query=query, **path)


@dataclass(frozen=True, slots=True)
class Snippet:
    """One call of the API as people write it."""

    method: str
    url: str
    curl: str
    python: str
    purpose: str
    """Of the key that it takes."""


def snippet(
    view: View,
    *,
    query: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    **path: Any,
) -> Snippet:
    """The call that `run` with the same arguments stands for, to be copied: curl and Python, with the key that its surface takes from the environment."""
    operation = of(view)
    asked = urlencode(_present(query or {}), doseq=True)
    place = operation.path(**path)
    url = f"{request.url_root.rstrip('/')}{place}{'?' if asked else ''}{asked}"
    key = snippets.API_KEY if place.startswith("/ai/") else snippets.PLATFORM_KEY
    return written_out(operation.method, url, body, key=key)


def written_out(method: str, url: str, body: Mapping[str, Any] | None, *, key: str) -> Snippet:
    """Any JSON call, written out; `key` is the variable that holds the API key."""
    return Snippet(
        method,
        url,
        snippets.curl(method, url, body, key=key),
        snippets.python(method, url, body, key=key),
        "realtime" if key == snippets.API_KEY else "platform",
    )


def _insist(operation: Operation, path: Mapping[str, Any]) -> None:
    for rule in operation.rules:
        rule(guard.identify(), **path)


def _keep_what_is_read() -> None:
    """Have rows that one operation of a page has read found in the session by the next. Where something is changed, each reads what it changes."""
    session = db.session()
    if request.method in ("GET", "HEAD") and _READ not in session.info:
        session.info[_READ] = set()
        event.listen(session, "loaded_as_persistent", _keep)


def _keep(session: Session, row: object) -> None:
    session.info[_READ].add(row)


@contextmanager
def _sent(headers: Mapping[str, str]) -> Iterator[None]:
    """As if the request at hand had come with these."""
    names = {name: f"HTTP_{name.upper().replace('-', '_')}" for name in headers}
    before = {key: request.environ.get(key) for key in names.values()}
    request.environ.update({names[name]: value for name, value in headers.items()})
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del request.environ[key]
            else:
                request.environ[key] = value


def _present(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _load(schema: Schema, place: str, given: dict[str, Any]) -> Any:
    if place != "query":
        return schema.load(given)
    try:
        return schema.load(given)
    except ValidationError as error:
        name, problem = next(iter(forms.messages_of(error).items()))
        said = problem[0] if isinstance(problem, list) else problem
        raise Invalid(f"{name}: {said}", param=str(name)) from None


def _taken_apart() -> Iterator[tuple[View, Operation]]:
    for route in current_app.url_map.iter_rules():
        registered = current_app.view_functions[route.endpoint]
        apidoc = getattr(registered, "_apidoc", None)
        if apidoc is None:
            continue
        view = inspect.unwrap(registered)
        method = next(iter((route.methods or set()) - {"HEAD", "OPTIONS"}))
        yield (
            view,
            Operation(
                route,
                method,
                view,
                tuple(guard.rules_on(registered)),
                tuple(_schemas(apidoc)),
                _answer(apidoc),
            ),
        )


def _schemas(apidoc: Mapping[str, Any]) -> Iterator[tuple[str, Schema]]:
    # Decorators are noted from the view outwards; the outermost one's argument comes first.
    for parameter in reversed(apidoc.get("arguments", {}).get("parameters", [])):
        schema = parameter["schema"]
        yield parameter["in"], schema() if isinstance(schema, type) else schema


def _answer(apidoc: Mapping[str, Any]) -> Schema | None:
    responses = apidoc.get("response", {}).get("responses", {})
    for status in apidoc.get("success_status_codes", []):
        for documented in responses.get(status, []):
            if isinstance(documented.get("schema"), Schema):
                found: Schema = documented["schema"]
                return found
    return None
