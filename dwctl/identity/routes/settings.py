"""What the dashboard needs to know and to choose: public settings, the organisation in whose name one acts."""

from __future__ import annotations

from typing import Any

from flask import Response, after_this_request

from dwctl.access import guard
from dwctl.config import Batches
from dwctl.errors import Forbidden
from dwctl.identity import sessions
from dwctl.identity.schemas import ActiveOrganization, ConfigSchema
from dwctl.web import current
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("session", __name__, description="Settings, and the active organisation")
guard.protect(blueprint)

OUR_DOCS = "/ai/docs"


@blueprint.route("/config", methods=["GET"])
@blueprint.response(200, ConfigSchema)
def get_config() -> dict[str, Any]:
    """Show the settings that a dashboard needs"""
    settings = current.settings()
    metadata = settings.metadata
    docs_url = metadata.docs_url or OUR_DOCS
    shown: dict[str, Any] = {
        "region": metadata.region,
        "organization": metadata.organization,
        "payment_enabled": False,
        "docs_url": docs_url,
        "docs_jsonl_url": metadata.docs_jsonl_url or docs_url,
        "onwards": settings.onwards,
    }
    if metadata.ai_api_base_url:
        shown["ai_api_base_url"] = metadata.ai_api_base_url
    return shown | _batches(settings.batches)


@blueprint.route("/session/organization", methods=["POST"])
@blueprint.arguments(ActiveOrganization)
@blueprint.response(200, ActiveOrganization)
def choose_organization(wanted: dict[str, Any]) -> dict[str, Any]:
    """Act in the name of an organisation, or of oneself again"""
    chosen = wanted["organization_id"]
    if chosen is not None and guard.identify().role_in(chosen) is None:
        raise Forbidden(f"Insufficient permissions to Read Organization {chosen}")

    @after_this_request
    def remember(response: Response) -> Response:
        rule = current.settings().auth.native.session
        sessions.set_organization_cookie(response, chosen, rule)
        return response

    return {"active_organization_id": chosen}


def _batches(batches: Batches) -> dict[str, Any]:
    return {"batches": batches} if batches.enabled else {}
