"""`/users/{id}/models`: which models an account may call, and by which of its groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.catalog import access, search
from dwctl.catalog.schemas import UsableModelPage, UsableQuery
from dwctl.catalog.tables import DeployedModel
from dwctl.db import db
from dwctl.identity import users
from dwctl.identity.routes.users import may_read_account, target_of
from dwctl.web.pagination import envelope, substring
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("usable models", __name__, description="Which models an account may call.")
guard.protect(blueprint)

_LIMITS = ("requests_per_second", "burst_size", "tokens_per_minute", "capacity")


@blueprint.route("/users/<user:user_id>/models", methods=["GET"])
@guard.checks(may_read_account)
@blueprint.arguments(UsableQuery, location="query")
@blueprint.response(200, UsableModelPage)
def list_usable_models(query: dict[str, Any], user_id: UUID | str) -> dict[str, Any]:
    """List the models that a user or an organization may call, by alias, with the groups that open them

    Inactive models are left out: nobody may call them.
    """
    session, caller = db.session(), guard.identify()
    account = users.shown(session, target_of(caller, user_id))
    paging = {name: query[name] for name in ("skip", "limit")}
    shows_all = query["all"] and may_all(caller, Resource.MODELS, Operation.READ)
    criteria = search.Criteria(
        usable_by=None if shows_all else account.id, search=substring(query["search"])
    )
    rows, total = search.page(session, criteria, sort="alias", direction=None, **paging)
    sees_limits = may_all(caller, Resource.MODEL_RATE_LIMITS, Operation.READ)
    return envelope(_explained(rows, account.id, sees_limits), total, **paging)


def _explained(
    models: Sequence[DeployedModel], account_id: UUID, sees_limits: bool
) -> list[dict[str, Any]]:
    opened_by = access.why(db.session(), account_id, [model.id for model in models])
    return [
        {
            "id": model.id,
            "alias": model.alias,
            "display_name": model.display_name,
            "model_type": model.type,
            "opened_by": [{"id": id, "name": name} for id, name in opened_by.get(model.id, ())],
            **(_limits_of(model) if sees_limits else {}),
        }
        for model in models
    ]


def _limits_of(model: DeployedModel) -> dict[str, Any]:
    limits = {name: getattr(model, name) for name in _LIMITS}
    return {name: value for name, value in limits.items() if value is not None}
