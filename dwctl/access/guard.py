"""The rule on every route: who calls, and whether they may.

A blueprint is `protect`ed (a Caller is needed; `g.caller` holds it) or `open_to_all` with a reason; the architecture test refuses any other.
Routes name their permission with `@requires` or `@requires_own`; other rules by owner stand in a function that `@checks` names, or call `insist`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from flask import Blueprint, Flask, current_app, g, request

from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource, may_all, may_own
from dwctl.errors import Forbidden, Unauthenticated

P = ParamSpec("P")
R = TypeVar("R")

Resolver = Callable[[Any], Caller | None]
"""Flask's request to a Caller; None when no credential holds."""

_RULE = "_rule"

_RULES: dict[str, str] = {}


def init_app(app: Flask, resolver: Resolver) -> None:
    """Say who turns a request's credential into a Caller."""
    app.extensions["dwctl.resolver"] = resolver


def protect(blueprint: Blueprint) -> None:
    """Every route of the blueprint needs a Caller."""
    _RULES[blueprint.name] = "a caller"
    blueprint.before_request(_identify)


def open_to_all(blueprint: Blueprint, *, reason: str) -> None:
    """The blueprint's routes need no Caller, or look at the credential themselves."""
    _RULES[blueprint.name] = reason


def rule_of(blueprint_name: str) -> str | None:
    """The blueprint's authentication rule in words; None when it has none."""
    return _RULES.get(blueprint_name)


def identify() -> Caller:
    """The Caller of the request at hand. Raises Unauthenticated."""
    if "caller" not in g:
        found = current_app.extensions["dwctl.resolver"](request)
        if found is None:
            raise Unauthenticated
        g.caller = found
    caller: Caller = g.caller
    return caller


def requires(
    resource: Resource, operation: Operation
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The route needs this permission on every row of the resource (403 otherwise)."""

    def rule(caller: Caller, **_path: Any) -> None:
        insist(may_all(caller, resource, operation), resource, operation)

    return checks(rule)


def requires_own(
    resource: Resource, operation: Operation
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The route needs this permission on rows of the caller's own at least (403 otherwise). Whose a row is, it asks itself."""

    def rule(caller: Caller, **_path: Any) -> None:
        insist(may_own(caller, resource, operation), resource, operation)

    return checks(rule)


def checks(rule: Callable[..., None]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The route runs `rule(caller, **path arguments)` before query and body are read; the rule raises what it refuses."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            rule(identify(), **kwargs)
            return view(*args, **kwargs)

        setattr(guarded, _RULE, rule)
        return guarded

    return decorate


def rules_on(view: Callable[..., Any]) -> Iterator[Callable[..., None]]:
    """The rules that stand on a view, for whoever runs what it wraps; the outermost first."""
    at: Any = view
    while at is not None:
        # `wraps` copies what stands on the wrapped function: a rule belongs to the one that brought it.
        rule = at.__dict__.get(_RULE)
        inner = getattr(at, "__wrapped__", None)
        if rule is not None and (inner is None or inner.__dict__.get(_RULE) is not rule):
            yield rule
        at = inner


def insist(allowed: bool, resource: Resource, operation: Operation, of: UUID | None = None) -> None:
    """403 unless allowed; `of` names the user whose rows they are."""
    if not allowed:
        whose = f" for user {of}" if of else ""
        raise Forbidden(f"Insufficient permissions to {operation} {resource}{whose}")


def may_for(caller: Caller, resource: Resource, operation: Operation, user_id: UUID) -> bool:
    """Whether the caller may do this to the rows of one user: their own, or anybody's with All."""
    own = user_id == caller.user_id and may_own(caller, resource, operation)
    return own or may_all(caller, resource, operation)


def _identify() -> None:
    identify()
