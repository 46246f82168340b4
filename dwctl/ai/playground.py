"""The playground tunnel: inference for a signed-in person, on a hidden key of their account. Errors in OpenAI's form, as under /ai."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from flask import Blueprint, Response, request

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.ai import front
from dwctl.ai.routes import forwarded, gateway, listing
from dwctl.catalog.routing import Key
from dwctl.db import db
from dwctl.identity import api_keys
from dwctl.protocols.surfaces import SURFACES

blueprint = Blueprint("playground", __name__)
guard.protect(blueprint)

_PURPOSE = "playground"


@blueprint.get("/v1/models")
def list_models() -> Response:
    """The models that the person may try."""
    return listing(guard.identify().owner_id)


@blueprint.post("/v1/<path:path>")
def infer(path: str) -> Response:
    """One call in the person's name (or their active organisation's), also on routes that are handed on (reranking)."""
    surface = SURFACES.get(path) or forwarded(path)
    caller = guard.identify()
    key = replace(
        _key_of(caller), sees_providers=may_all(caller, Resource.ENDPOINTS, Operation.READ)
    )
    answer = front.respond(gateway(), request.environ, surface, key)
    return Response(answer.body, answer.status, answer.headers)


def _key_of(caller: Caller) -> Key:
    hidden = api_keys.hidden_key(db.session(), caller.owner_id, caller.user_id, _PURPOSE)
    id: UUID = hidden.id
    # Committed at once: the connection must not wait with the call for its upstream.
    db.session.commit()
    db.session.remove()
    return Key(id, caller.owner_id, caller.user_id, _PURPOSE)
