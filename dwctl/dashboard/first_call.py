"""A call of a new key that works as it is printed: this deployment's address, a model that the key may call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import request

from dwctl.catalog.routes.usable import list_usable_models
from dwctl.dashboard import operations, snippets
from dwctl.dashboard.operations import Snippet
from dwctl.identity.routes import users
from dwctl.web import current

_MOST_LOOKED_AT = "100"
_CHAT = (("CHAT", None), "chat/completions", {"messages": [{"role": "user", "content": "Hello"}]})
_EMBEDDINGS = (("EMBEDDINGS",), "embeddings", {"input": "Hello"})
"""The types of models, the path, and what is asked of them beside the model."""


def of(key: Mapping[str, Any]) -> Snippet:
    """The call to try a key with. Without a model that it may call, the list of models, which is empty then."""
    if key["purpose"] == "platform":
        path = operations.of(users.get_user).path(user_id="current")
        return _written("GET", f"{request.url_root.rstrip('/')}{path}", None)
    return _to_a_model(key["user_id"]) or _written("GET", f"{base()}/models", None)


def of_account(owner_id: UUID) -> Snippet:
    """The first call of an account. Where it may call no model yet, one is named `MODEL`."""
    return _to_a_model(owner_id) or _written("POST", f"{base()}/{_CHAT[1]}", {"model": "MODEL", **_CHAT[2]})  # fmt: skip


def _to_a_model(owner_id: UUID | str) -> Snippet | None:
    query = {"limit": _MOST_LOOKED_AT}
    models = operations.run(list_usable_models, query=query, user_id=owner_id)["data"]
    for kinds, path, said in (_CHAT, _EMBEDDINGS):
        for model in models:
            if model["model_type"] in kinds:
                return _written("POST", f"{base()}/{path}", {"model": model["alias"], **said})
    return None


def base() -> str:
    """Where programs call models."""
    told = current.settings().metadata.ai_api_base_url
    return told.rstrip("/") if told else f"{request.url_root.rstrip('/')}/ai/v1"


def _written(method: str, url: str, body: Mapping[str, Any] | None) -> Snippet:
    return operations.written_out(method, url, body, key=snippets.API_KEY)
