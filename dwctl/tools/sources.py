"""Tool sources under change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import ForUpdateArg

from dwctl import clock
from dwctl.catalog.discovery import normalise_url
from dwctl.encryption import Sealer
from dwctl.errors import Invalid, NotFound
from dwctl.tools import parameters
from dwctl.tools.tables import ToolSource
from dwctl.upstream.addresses import Policy
from dwctl.upstream.target import parse_origin

CLEARABLE = frozenset({"description", "parameters", "api_key"})
"""Fields that null clears; null leaves the others as they are."""


def load(session: Session, id: UUID, *, lock: bool | ForUpdateArg = False) -> ToolSource:
    """The tool source; locked until the end of the transaction on request (as it says, or for a change). Raises NotFound."""
    found = session.get(ToolSource, id, with_for_update=lock)
    if found is None:
        raise NotFound(f"ToolSource with ID {id} not found")
    return found


def by_name(session: Session) -> Sequence[ToolSource]:
    """All of them."""
    return session.scalars(select(ToolSource).order_by(ToolSource.name, ToolSource.id)).all()


def create(
    session: Session, fields: Mapping[str, Any], *, sealer: Sealer, policy: Policy
) -> ToolSource:
    """Add a tool source. `policy` is how far tools reach.

    Raises: Invalid for a URL, a schema or a time that cannot be used; a taken name breaks the unique constraint.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    made = ToolSource(**_columns(given, sealer, policy))
    session.add(made)
    session.flush()
    return made


def update(
    session: Session,
    source: ToolSource,
    changes: Mapping[str, Any],
    *,
    sealer: Sealer,
    policy: Policy,
) -> None:
    """Change the fields that are given; null clears those in CLEARABLE and leaves the others. Raises as `create` does.

    The credential is for one origin: a URL with another one clears it, unless a new one comes with it.
    """
    given = {k: v for k, v in changes.items() if v is not None or k in CLEARABLE}
    columns = _columns(given, sealer, policy)
    if "url" in columns and parse_origin(columns["url"]) != parse_origin(source.url):
        columns.setdefault("api_key_sealed", None)
    for column, value in columns.items():
        setattr(source, column, value)
    source.updated_at = clock.now()
    session.flush()


def _columns(given: Mapping[str, Any], sealer: Sealer, policy: Policy) -> dict[str, Any]:
    columns = dict(given)
    if "name" in columns:
        columns["name"] = columns["name"].strip()
    if "url" in columns:
        columns["url"] = _judged(columns["url"].strip(), policy)
    if columns.get("timeout_secs", 1) < 1:
        raise Invalid("timeout_secs must be positive", param="timeout_secs")
    if columns.get("parameters") is not None:
        parameters.check(columns["parameters"])
    if "api_key" in columns:
        api_key = columns.pop("api_key")
        columns["api_key_sealed"] = sealer.seal(api_key) if api_key else None
    return columns


def _judged(url: str, policy: Policy) -> str:
    """The URL as it came. A name is judged by what it resolves to when it is called, an address at once."""
    normalise_url(url)
    host = urlsplit(url).hostname or ""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return url
    if not policy.allows(host):
        raise Invalid(
            f"{host} is an address that may not be called: outbound.{policy.purpose} is '{policy.reach}'",
            param="url",
            code="address_not_allowed",
        )
    return url
