"""API keys: `sk-` and 32 random bytes. The secret is shown once; kept are its SHA-256 and the first letters for show.

Hidden keys have no secret: the batch and playground key of an (owner, creator) pair is a name for whose work it is.
"""

from __future__ import annotations

import hashlib
import secrets
from uuid import UUID

from sqlalchemy import Select, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from dwctl.errors import NotFound
from dwctl.identity.tables import NIL, ApiKey

PREFIX = "sk-"
SHOWN_LETTERS = 10
PURPOSES = ("platform", "realtime", "batch", "playground")
RESERVED_PURPOSES = ("batch", "playground")

_MODELS = text(
    """
    SELECT m.id
      FROM deployment_groups g
      JOIN deployed_models m ON m.id = g.deployment_id
     WHERE NOT m.deleted
       AND (g.group_id = :everyone OR g.group_id IN (SELECT group_id FROM user_groups WHERE user_id = :owner))
     GROUP BY m.id
     ORDER BY min(g.granted_at), m.id
    """
)


def fingerprint(secret: str) -> bytes:
    """What is stored of a secret and looked up by."""
    return hashlib.sha256(secret.encode()).digest()


def create(
    session: Session,
    *,
    owner_id: UUID,
    creator_id: UUID,
    name: str,
    description: str | None = None,
    purpose: str = "realtime",
    requests_per_second: float | None = None,
    burst_size: int | None = None,
    capacity: int | None = None,
    tokens_per_minute: int | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which nobody can show again. A name that the pair uses already breaks a constraint (409)."""
    secret = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        name=name,
        description=description,
        secret_hash=fingerprint(secret),
        secret_prefix=secret[:SHOWN_LETTERS],
        user_id=owner_id,
        created_by=creator_id,
        purpose=purpose,
        requests_per_second=requests_per_second,
        burst_size=burst_size,
        capacity=capacity,
        tokens_per_minute=tokens_per_minute,
    )
    session.add(key)
    session.flush()
    return key, secret


def visible(owner_id: UUID, *, created_by: UUID | None) -> Select[ApiKey]:
    """The owner's keys that can be seen, newest first; `created_by` narrows them to one person's."""
    query = select(ApiKey).where(
        ApiKey.user_id == owner_id, ApiKey.hidden.is_(False), ApiKey.is_deleted.is_(False)
    )
    if created_by is not None:
        query = query.where(ApiKey.created_by == created_by)
    return query.order_by(ApiKey.created_at.desc(), ApiKey.id.desc())


def get(session: Session, key_id: UUID, owner_id: UUID, *, created_by: UUID | None) -> ApiKey:
    """One of the keys that `visible` lists. Raises NotFound."""
    found = session.scalar(visible(owner_id, created_by=created_by).where(ApiKey.id == key_id))
    if found is None:
        raise NotFound(f"API key with ID {key_id} not found")
    return found


def revoke(session: Session, owner_id: UUID, creator_id: UUID) -> None:
    """End the keys that a person has made for an account, hidden ones too."""
    theirs = update(ApiKey).where(ApiKey.user_id == owner_id, ApiKey.created_by == creator_id)
    session.execute(theirs.where(ApiKey.is_deleted.is_(False)).values(is_deleted=True))


def models_of(session: Session, owner_id: UUID) -> list[UUID]:
    """Ids of the models that the owner's groups and Everyone are granted, in grant order."""
    return list(session.scalars(_MODELS, {"owner": owner_id, "everyone": NIL}))


def hidden_key(session: Session, owner_id: UUID, creator_id: UUID, purpose: str) -> ApiKey:
    """The pair's hidden key for batch or playground, made when it is first wanted."""
    name = f"Internal {purpose} Key"
    if owner_id != creator_id:
        name += f" ({str(creator_id)[:8]})"
    same = select(ApiKey).where(
        ApiKey.user_id == owner_id,
        ApiKey.created_by == creator_id,
        ApiKey.purpose == purpose,
        ApiKey.hidden.is_(True),
        ApiKey.is_deleted.is_(False),
    )
    found = session.scalar(same)
    # Somebody may have given this very name to a key of their own; then ours gets another one.
    for attempt in (name, f"{name} {secrets.token_hex(4)}"):
        if found is None:
            _insert_hidden(session, owner_id, creator_id, purpose, attempt)
            found = session.scalar(same)
    return found or session.scalars(same).one()


def _insert_hidden(
    session: Session, owner_id: UUID, creator_id: UUID, purpose: str, name: str
) -> None:
    row = insert(ApiKey).values(
        user_id=owner_id, created_by=creator_id, purpose=purpose, name=name, hidden=True
    )
    session.execute(row.on_conflict_do_nothing())
