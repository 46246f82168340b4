"""Endpoints under change.

What a server lists is asked for by the caller (`discovery`), before any transaction: nothing here waits for somebody else's server.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, String, cast, or_, select
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.catalog import listing
from dwctl.catalog.discovery import Server
from dwctl.catalog.listing import AliasConflict, Choice, Synchronised
from dwctl.catalog.tables import TIMEOUTS, Endpoint
from dwctl.encryption import Sealer
from dwctl.errors import Conflict, NotFound
from dwctl.upstream.target import parse_origin
from dwctl.web import pagination

CLEARABLE = frozenset({"description", "api_key", "model_filter", *TIMEOUTS})
"""Fields that null clears; null leaves the others as they are."""


class EndpointMoved(Conflict):
    """The endpoint was changed while its list was read, so the list may be another server's. Nothing was changed: synchronise again."""

    code = "endpoint_changed"


def load(session: Session, endpoint_id: UUID, *, lock: bool = False) -> Endpoint:
    """The endpoint; locked until the end of the transaction on request. Raises NotFound."""
    found = session.get(Endpoint, endpoint_id, with_for_update=lock or None)
    if found is None:
        raise NotFound(f"Endpoint with ID {endpoint_id} not found")
    return found


def named(session: Session, name: str, *, lock: bool = False) -> Endpoint:
    """The endpoint of that name or id; locked until the end of the transaction on request. Raises NotFound."""
    # A name may look like the id of another one: the name wins.
    same = or_(Endpoint.name == name, cast(Endpoint.id, String) == name.lower())
    query = select(Endpoint).where(same).order_by((Endpoint.name == name).desc())
    found = session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise NotFound(f"There is no endpoint with the name {name}")
    return found


def newest_first(pattern: str | None) -> Select[Endpoint]:
    """Endpoints whose name, URL or description is like the pattern; all of them without one."""
    query = select(Endpoint).order_by(Endpoint.created_at.desc(), Endpoint.id.desc())
    if pattern is None:
        return query
    texts = (Endpoint.name, Endpoint.url, Endpoint.description)
    return query.where(pagination.found_in(pattern, *texts))


def server_of(endpoint: Endpoint, sealer: Sealer) -> Server:
    """Whom to ask for its models. Raises Undecryptable when its credential cannot be read."""
    sealed = endpoint.api_key_sealed
    return Server(
        url=endpoint.url,
        api_key=sealer.open(sealed) if sealed else None,
        auth_header_name=endpoint.auth_header_name,
        auth_header_prefix=endpoint.auth_header_prefix,
    )


def create(
    session: Session,
    sealer: Sealer,
    fields: Mapping[str, Any],
    choices: Sequence[Choice],
    *,
    created_by: UUID,
) -> Endpoint:
    """Add an endpoint together with models of its list, which belong to the system.

    Raises: AliasConflict when one of their aliases is taken or wanted twice (nothing may be committed then).
    """
    endpoint = Endpoint(created_by=created_by, **_columns(fields, sealer))
    session.add(endpoint)
    session.flush()
    conflicts = listing.add(session, endpoint.id, choices)
    if conflicts:
        raise AliasConflict("Alias conflicts detected during endpoint creation", conflicts)
    return endpoint


def update(
    session: Session, sealer: Sealer, endpoint: Endpoint, changes: Mapping[str, Any]
) -> None:
    """Change the fields that are given; null clears those in CLEARABLE and leaves the others.

    The credential is for one origin: a URL with another one clears it, unless a new one comes with it.
    """
    given = {k: v for k, v in changes.items() if v is not None or k in CLEARABLE}
    if "url" in given and not _same_origin(endpoint.url, given["url"]):
        given.setdefault("api_key", None)
    for column, value in _columns(given, sealer).items():
        setattr(endpoint, column, value)
    endpoint.updated_at = clock.now()
    session.flush()


def synchronise(
    session: Session,
    endpoint_id: UUID,
    asked: Server,
    listed: Sequence[str],
    only: Collection[str] | None = None,
) -> Synchronised:
    """Bring the endpoint's models in line with the names that its server, which was asked before, lists (`listing.follow`).

    Raises: NotFound when the endpoint is gone, EndpointMoved when it leads to another server by now.
    """
    endpoint = load(session, endpoint_id, lock=True)
    if endpoint.url != asked.url:
        raise EndpointMoved
    return listing.follow(session, endpoint, listed, only)


def _same_origin(one: str, other: str) -> bool:
    try:
        return parse_origin(one) == parse_origin(other)
    except ValueError:
        return False


def _columns(fields: Mapping[str, Any], sealer: Sealer) -> dict[str, Any]:
    columns = dict(fields)
    if "api_key" in columns:
        api_key = columns.pop("api_key")
        columns["api_key_sealed"] = sealer.seal(api_key) if api_key else None
    return columns
