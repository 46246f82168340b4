"""`/endpoints`: upstream servers and the models on their lists."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from dwctl import clock
from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource
from dwctl.catalog import discovery, endpoints, listing, metrics
from dwctl.catalog.discovery import DiscoveryFailed, ListedModel, Server
from dwctl.catalog.endpoint_schemas import (
    ComparedSchema,
    EndpointCreate,
    EndpointQuery,
    EndpointSchema,
    EndpointSightQuery,
    EndpointUpdate,
    EndpointValidate,
    SynchronisedSchema,
    SynchroniseFields,
    ValidationSchema,
)
from dwctl.catalog.listing import Synchronised
from dwctl.catalog.tables import TIMEOUTS, Endpoint
from dwctl.db import db
from dwctl.encryption import Undecryptable
from dwctl.errors import DwctlError
from dwctl.web import current, described, pagination
from dwctl.web.dumping import Extended
from dwctl.web.schemas import Blueprint

log = logging.getLogger(__name__)

blueprint = Blueprint("endpoints", __name__, description="Upstream inference servers.")
guard.protect(blueprint)


@blueprint.route("/endpoints", methods=["GET"])
@guard.requires(Resource.ENDPOINTS, Operation.READ)
@blueprint.arguments(EndpointQuery, location="query")
@blueprint.response(200, EndpointSchema(many=True))
@described.says(headers={"X-Total-Count": "How many there are in all."})
def list_endpoints(query: dict[str, Any]) -> tuple[Sequence[Any], int, dict[str, str]]:
    """List endpoints, newest first."""
    found = endpoints.newest_first(pagination.substring(query.pop("search")))
    include = query.pop("include")
    rows, total = pagination.page(db.session(), found, **query)
    return _shown(rows, include), 200, {"X-Total-Count": str(total)}


@blueprint.route("/endpoints", methods=["POST"])
@guard.requires(Resource.ENDPOINTS, Operation.CREATE)
@blueprint.arguments(EndpointCreate)
@blueprint.response(201, EndpointSchema)
@described.says(refusals=(502,))
def create_endpoint(new: dict[str, Any]) -> Endpoint:
    """Add an endpoint and, unless `sync` is false, the models on its list."""
    new["url"] = discovery.normalise_url(new["url"])
    sync, skip_fetch = _sync_wanted(new), new.pop("skip_fetch")
    aliases = new.pop("alias_mapping", None) or {}
    fields = {name: value for name, value in new.items() if value is not None}
    names: Sequence[str] = ()
    if sync and skip_fetch:
        names = fields.get("model_filter") or ()
    elif sync:
        names = _names(_new_server(fields))
    made = endpoints.create(
        db.session(),
        current.parts().sealer,
        fields,
        listing.choose(names, fields.get("model_filter"), aliases),
        created_by=guard.identify().user_id,
    )
    db.session.commit()
    return made


@blueprint.route("/endpoints/validate", methods=["POST"])
@guard.requires(Resource.ENDPOINTS, Operation.UPDATE)
@blueprint.arguments(EndpointValidate)
@blueprint.response(200, ValidationSchema)
def validate_endpoint(candidate: dict[str, Any]) -> dict[str, Any]:
    """Try an endpoint out: its models, or why they could not be listed."""
    try:
        server = _candidate(candidate)
    except Undecryptable as error:
        return _tried("error", error=error.message)
    began = time.monotonic()
    try:
        listed = _ask(server, current.settings().upstream.validate_timeout)
    except DiscoveryFailed as error:
        return _tried("error", error=error.message, milliseconds=_milliseconds_since(began))
    took = _milliseconds_since(began)
    if not listed:
        return _tried("error", error="The endpoint lists no models", milliseconds=took)
    return _tried("success", models={"object": "list", "data": listed}, milliseconds=took)


@blueprint.route("/endpoints/<id:id>", methods=["GET"])
@guard.requires(Resource.ENDPOINTS, Operation.READ)
@blueprint.arguments(EndpointSightQuery, location="query")
@blueprint.response(200, EndpointSchema)
def get_endpoint(query: dict[str, Any], id: UUID) -> Any:
    """Read one endpoint."""
    return _shown([endpoints.load(db.session(), id)], query["include"])[0]


@blueprint.route("/endpoints/<id:id>", methods=["PATCH"])
@guard.requires(Resource.ENDPOINTS, Operation.UPDATE)
@blueprint.arguments(EndpointUpdate)
@blueprint.response(200, EndpointSchema)
def update_endpoint(changes: dict[str, Any], id: UUID) -> Endpoint:
    """Change an endpoint. With `alias_mapping` its models follow at once, else they are synchronised with its list; time-outs alone have
    nothing to do with that.
    """
    session = db.session()
    if changes.get("url") is not None:
        changes["url"] = discovery.normalise_url(changes["url"])
    aliases = changes.pop("alias_mapping", None)
    only_timeouts = bool(changes) and changes.keys() <= set(TIMEOUTS)
    endpoint = endpoints.load(session, id, lock=True)
    endpoints.update(session, current.parts().sealer, endpoint, changes)
    if aliases is not None:
        listing.remap(session, endpoint, aliases)
    # The answer is the endpoint as it is saved; what follows cannot change it.
    session.flush()
    session.refresh(endpoint)
    session.expunge(endpoint)
    session.commit()
    if aliases is None and not only_timeouts:
        _synchronise_quietly(id)
    return endpoint


@blueprint.route("/endpoints/<id:id>", methods=["DELETE"])
@guard.requires(Resource.ENDPOINTS, Operation.DELETE)
@blueprint.response(204)
def delete_endpoint(id: UUID) -> None:
    """Delete an endpoint with its models, their grants and tariffs."""
    db.session.delete(endpoints.load(db.session(), id, lock=True))
    db.session.commit()


@blueprint.route("/endpoints/<id:id>/synchronize", methods=["POST"])
@guard.requires(Resource.ENDPOINTS, Operation.UPDATE)
@blueprint.arguments(SynchroniseFields)
@blueprint.response(200, SynchronisedSchema)
@described.says(refusals=(502,))
def synchronize_endpoint(wanted: dict[str, Any], id: UUID) -> Synchronised:
    """Bring the endpoint's models in line with its list."""
    return _synchronise(id, wanted["models"])


@blueprint.route("/endpoints/<id:id>/compare", methods=["POST"])
@guard.requires(Resource.ENDPOINTS, Operation.UPDATE)
@blueprint.response(200, ComparedSchema)
@described.says(refusals=(502,))
def compare_endpoint(id: UUID) -> dict[str, Any]:
    """Ask the server for its list, and say what a synchronisation would change. Nothing is changed."""
    server, began = _known_server(id), time.monotonic()
    names = _names(server)
    took = _milliseconds_since(began)
    compared = listing.compare(db.session(), endpoints.load(db.session(), id), names)
    return {**asdict(compared), "milliseconds": took}


def _tried(status: str, **members: Any) -> dict[str, Any]:
    return {"status": status, "models": None, "error": None, "milliseconds": None, **members}


def _sync_wanted(new: dict[str, Any]) -> bool:
    sync, other_name = new.pop("sync", None), new.pop("auto_sync_models", None)
    if sync is None:
        sync = other_name
    return sync is not False


def _candidate(candidate: dict[str, Any]) -> Server:
    if candidate["type"] == "existing":
        return _known_server(candidate["endpoint_id"])
    return _new_server({**candidate, "url": discovery.normalise_url(candidate["url"])})


def _new_server(fields: dict[str, Any]) -> Server:
    names = ("url", "api_key", "auth_header_name", "auth_header_prefix")
    given = {name: fields[name] for name in names if fields.get(name) is not None}
    return Server(**{"api_key": None, **given})


def _known_server(endpoint_id: UUID) -> Server:
    return endpoints.server_of(endpoints.load(db.session(), endpoint_id), current.parts().sealer)


def _ask(server: Server, timeout_s: float) -> list[ListedModel]:
    # The connection goes back first: somebody else's server may take its time.
    db.session.rollback()
    outbound = current.settings().outbound
    return discovery.list_models(server, timeout_s=timeout_s, outbound=outbound)


def _names(server: Server) -> list[str]:
    return [listed.id for listed in _ask(server, current.settings().upstream.models_timeout)]


def _shown(rows: Sequence[Endpoint], include: str | None) -> Sequence[Any]:
    """The endpoints as their schema takes them, with what was asked to be included."""
    if "models" not in pagination.includes(include):
        return rows
    found = metrics.of_endpoints(db.session(), [row.id for row in rows], clock.now())
    return [Extended(row, models=found[row.id]) for row in rows]


def _milliseconds_since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)


def _synchronise(endpoint_id: UUID, only: Collection[str] | None = None) -> Synchronised:
    server = _known_server(endpoint_id)
    done = endpoints.synchronise(db.session(), endpoint_id, server, _names(server), only)
    db.session.commit()
    return done


def _synchronise_quietly(endpoint_id: UUID) -> None:
    try:
        _synchronise(endpoint_id)
    except (DwctlError, SQLAlchemyError) as error:
        db.session.rollback()
        log.warning(
            "endpoint not synchronised",
            extra={"endpoint_id": str(endpoint_id), "reason": str(error)},
        )
