"""`/provider-display-configs`: how providers are shown."""

from __future__ import annotations

from typing import Any

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource
from dwctl.catalog import providers
from dwctl.catalog.provider_schemas import ProviderCreate, ProviderSchema, ProviderUpdate
from dwctl.catalog.providers import Shown
from dwctl.db import db
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("providers", __name__, description="How providers are shown to people.")
guard.protect(blueprint)

_ALL = "/provider-display-configs"
_ONE = f"{_ALL}/<path:key>"
"""A provider may be called `acme/labs`."""


@blueprint.route(_ALL, methods=["GET"])
@guard.requires_own(Resource.MODELS, Operation.READ)
@blueprint.response(200, ProviderSchema(many=True))
def list_providers() -> list[Shown]:
    """List providers by the name that is shown.

    Those that are configured, and those that a model names in its metadata.
    """
    return providers.all_shown(db.session())


@blueprint.route(_ALL, methods=["POST"])
@guard.requires(Resource.MODELS, Operation.UPDATE)
@blueprint.arguments(ProviderCreate)
@blueprint.response(201, ProviderSchema)
def create_provider(new: dict[str, Any]) -> Shown:
    """Give a provider a name and an icon."""
    session = db.session()
    key = providers.create(session, new, created_by=guard.identify().user_id)
    session.commit()
    return providers.shown(session, key)


@blueprint.route(_ONE, methods=["GET"])
@guard.requires_own(Resource.MODELS, Operation.READ)
@blueprint.response(200, ProviderSchema)
def get_provider(key: str) -> Shown:
    """Read how one provider is shown."""
    return providers.shown(db.session(), key)


@blueprint.route(_ONE, methods=["PATCH"])
@guard.requires(Resource.MODELS, Operation.UPDATE)
@blueprint.arguments(ProviderUpdate)
@blueprint.response(200, ProviderSchema)
def update_provider(changes: dict[str, Any], key: str) -> Shown:
    """Change how a provider is shown."""
    session = db.session()
    providers.update(session, key, changes)
    session.commit()
    return providers.shown(session, key)


@blueprint.route(_ONE, methods=["DELETE"])
@guard.requires(Resource.MODELS, Operation.UPDATE)
@blueprint.response(204)
def delete_provider(key: str) -> None:
    """Forget how a provider is shown; models that name it stay."""
    providers.delete(db.session(), key)
    db.session.commit()
