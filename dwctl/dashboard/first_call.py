"""A call of a new key that works as it is printed: this deployment's address, a model that the key may call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from flask import request

from dwctl.catalog.routes.usable import list_usable_models
from dwctl.dashboard import operations, snippets
from dwctl.dashboard.operations import Snippet
from dwctl.identity.routes import users
from dwctl.web import current

_MOST_LOOKED_AT = "100"
_CHAT, _EMBEDDINGS = "chat/completions", "embeddings"
_ASKED: Mapping[str, Mapping[str, Any]] = {
    _CHAT: {"messages": [{"role": "user", "content": "Hello"}]},
    _EMBEDDINGS: {"input": "Hello"},
}
"""What is asked of a model beside its alias, by path."""
_TYPES: Mapping[str, tuple[str | None, ...]] = {_CHAT: ("CHAT", None), _EMBEDDINGS: ("EMBEDDINGS",)}
"""Which models take calls of a path."""


class Target(NamedTuple):
    """A model to call first, and the path of calls that it takes."""

    model: str
    path: str


def of(key: Mapping[str, Any]) -> Snippet:
    """The call to try a key with. Without a model that it may call, the list of models, which is empty then."""
    if key["purpose"] == "platform":
        path = operations.of(users.get_user).path(user_id="current")
        return _written("GET", f"{request.url_root.rstrip('/')}{path}", None)
    found = target_of(key["user_id"])
    return to(found) if found else _written("GET", f"{base()}/models", None)


def to(target: Target | None) -> Snippet:
    """The first call. Where there is no model to be called yet, one is named `MODEL`."""
    model, path = target or Target("MODEL", _CHAT)
    return _written("POST", f"{base()}/{path}", {"model": model, **_ASKED[path]})


def target_named(model: str | None, path: str | None) -> Target | None:
    """The target that an address names; None where it names none."""
    return Target(model, path) if model and path and path in _ASKED else None


def target_of(owner_id: UUID | str) -> Target | None:
    """A model that the account may call; None where there is none yet."""
    query = {"limit": _MOST_LOOKED_AT}
    models = operations.run(list_usable_models, query=query, user_id=owner_id)["data"]
    for path, types in _TYPES.items():
        for model in models:
            if model["model_type"] in types:
                return Target(model["alias"], path)
    return None


def base() -> str:
    """Where programs call models."""
    told = current.settings().metadata.ai_api_base_url
    return told.rstrip("/") if told else f"{request.url_root.rstrip('/')}/ai/v1"


def _written(method: str, url: str, body: Mapping[str, Any] | None) -> Snippet:
    return operations.written_out(method, url, body, key=snippets.API_KEY)
