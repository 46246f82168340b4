"""How providers are shown to people. A provider is what models name in their metadata, whatever its case."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.catalog.tables import DeployedModel, ProviderDisplay
from dwctl.errors import Invalid, NotFound
from dwctl.upstream.target import parse_origin

BUILT_IN_ICONS = ("anthropic", "google", "openai", "onwards", "snowflake")

_ROOT_RELATIVE = re.compile(r"/(?![/\\])[^\\\s]*")


@dataclass(frozen=True, slots=True)
class Shown:
    """A provider that is configured, used by living models, or both. The last three are None where it is not configured."""

    provider_key: str
    display_name: str
    icon: str | None
    model_count: int
    configured: bool
    created_by: UUID | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


def key_of(text: str) -> str:
    """A provider's name as a key."""
    return text.strip().lower()


def all_shown(session: Session) -> list[Shown]:
    """Every provider, by the name that is shown."""
    counts = _counts(session)
    configured = {row.provider_key: row for row in session.scalars(select(ProviderDisplay))}
    found = [_shown(key, configured.get(key), counts[key]) for key in {*configured, *counts}]
    return sorted(found, key=lambda one: (one.display_name.casefold(), one.provider_key))


def shown(session: Session, key: str) -> Shown:
    """One provider. Raises NotFound where no model names it and nobody has configured it."""
    key = key_of(key)
    config, count = session.get(ProviderDisplay, key), _counts(session)[key]
    if config is None and not count:
        raise _unknown(key)
    return _shown(key, config, count)


def create(session: Session, fields: Mapping[str, Any], *, created_by: UUID) -> str:
    """Configure a provider; the answer is its key. Raises Invalid for a key or an icon that is none; a taken key breaks the primary key."""
    key = key_of(fields["provider_key"])
    if not key:
        raise Invalid("provider_key must not be blank", param="provider_key")
    session.add(
        ProviderDisplay(
            provider_key=key,
            display_name=(fields.get("display_name") or "").strip() or key,
            icon=_icon(fields.get("icon")),
            created_by=created_by,
        )
    )
    session.flush()
    return key


def update(session: Session, key: str, changes: Mapping[str, Any]) -> None:
    """Change what is given and not null. A blank icon clears it, a blank name becomes the key. Raises NotFound and Invalid."""
    config = _locked(session, key)
    if changes.get("display_name") is not None:
        config.display_name = changes["display_name"].strip() or config.provider_key
    if changes.get("icon") is not None:
        config.icon = _icon(changes["icon"])
    config.updated_at = clock.now()
    session.flush()


def delete(session: Session, key: str) -> None:
    """Forget how a provider is shown; its models stay. Raises NotFound."""
    session.delete(_locked(session, key))
    session.flush()


def _locked(session: Session, key: str) -> ProviderDisplay:
    found = session.get(ProviderDisplay, key_of(key), with_for_update=True)
    if found is None:
        raise _unknown(key_of(key))
    return found


def _shown(key: str, config: ProviderDisplay | None, count: int) -> Shown:
    if config is None:
        return Shown(key, key, None, count, configured=False)
    return Shown(
        key,
        config.display_name,
        config.icon,
        count,
        configured=True,
        created_by=config.created_by,
        created_at=config.created_at,
        updated_at=config.updated_at,
    )


def _counts(session: Session) -> Counter[str]:
    """How many living models name each provider. Spellings are folded here: the database's idea of lower case depends on its locale."""
    name = DeployedModel.info["provider"].astext
    rows = session.execute(
        select(name, func.count()).where(~DeployedModel.deleted, name.is_not(None)).group_by(name)
    )
    counts: Counter[str] = Counter()
    for text, count in rows:
        if key := key_of(text):
            counts[key] += count
    return counts


def _icon(text: str | None) -> str | None:
    """The icon as it is kept; None for a blank one. Raises Invalid for what a page should not load."""
    icon = (text or "").strip()
    if not icon:
        return None
    if icon in BUILT_IN_ICONS or _ROOT_RELATIVE.fullmatch(icon) or _is_https(icon):
        return icon
    raise Invalid(
        f"icon must be an https URL, root-relative asset path, or built-in icon key ({', '.join(BUILT_IN_ICONS)})",
        param="icon",
    )


def _is_https(text: str) -> bool:
    try:
        parse_origin(text)
    except ValueError:
        return False
    return text.lower().startswith("https://") and not re.search(r"[\s\\\"'<>]", text)


def _unknown(key: str) -> NotFound:
    return NotFound(f"provider display config with ID {key[:255]} not found")
