"""API keys: `sk-` and 32 random bytes. The secret is shown once; kept are its SHA-256 and the first letters for show.

A rotation gives a key another secret; the one before opens the same for a while (`RetiredSecret`). Whatever hangs on the key (owner, limits,
what it was used for) hangs on its id, and stays.

Hidden keys have no secret: the batch and playground key of an (owner, creator) pair is a name for whose work it is.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, func, select, text, tuple_, union_all, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from dwctl import clock
from dwctl.billing import caps, money
from dwctl.billing.tables import Spend
from dwctl.errors import Conflict, Invalid, NotFound, Unauthenticated
from dwctl.identity import users
from dwctl.identity.tables import NIL, ApiKey, RetiredSecret, User
from dwctl.web import pagination
from dwctl.web.schemas import rfc3339

PREFIX = "sk-"
SHOWN_LETTERS = 10
PURPOSES = ("platform", "realtime", "batch", "playground")
RESERVED_PURPOSES = ("batch", "playground")

_HIDDEN_NAME = re.compile(r"Internal (\w+) Key( \([0-9a-f]{8}\))?( [0-9a-f]{8})?")
"""As `hidden_key` makes it."""

STATES = ("active", "expired")

DAY_S = 86_400
MOST_OVERLAP_S = 30 * DAY_S
MOST_RETIRED = 5
"""So many earlier secrets of one key are kept, and work at once at most."""

_NEVER_UNSET = ("name", "zero_data_retention")

EXPIRED = "api_key_expired"
"""The code of the refusal of a secret that was right once."""

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
    expires_at: datetime | None = None,
    spend_limit: Decimal | None = None,
    spend_limit_interval: str | None = None,
    zero_data_retention: bool = False,
    log_sample: float | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which nobody can show again. A name that the pair uses already breaks a constraint (409)."""
    check_expiry(expires_at)
    _check_cap(spend_limit, spend_limit_interval)
    secret = _new_secret()
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
        expires_at=expires_at,
        spend_limit=spend_limit,
        spend_limit_interval=spend_limit_interval,
        zero_data_retention=zero_data_retention,
        log_sample=log_sample,
    )
    session.add(key)
    session.flush()
    return key, secret


def check_expiry(at: datetime | None) -> None:
    """Raises Invalid for a time that is over."""
    if at is not None and at <= clock.now():
        raise Invalid(
            "expires_at must be in the future; delete the key to end it now", param="expires_at"
        )


def _check_cap(limit: Decimal | None, interval: str | None) -> None:
    if limit is None:
        if interval is not None:
            raise Invalid(
                "spend_limit_interval says when a spend_limit begins anew: set both",
                param="spend_limit_interval",
            )
        return
    if limit <= 0:
        raise Invalid("spend_limit must be greater than zero; null lifts it", param="spend_limit")
    if not money.fits(limit):
        raise Invalid(
            f"spend_limit must not exceed {money.LARGEST} or have more than {money.SCALE} decimals",
            param="spend_limit",
        )


def rotate(session: Session, key: ApiKey, *, overlap_s: int) -> str:
    """Give the key a new secret, which nobody can show again. All earlier ones end in `overlap_s` seconds at the latest (0: at once).

    Raises Invalid for a key that has expired, NotFound for one that was deleted meanwhile, Conflict where too many earlier secrets would work.
    """
    # Rotations of one key follow each other: each retires the secret of the one before.
    session.refresh(key, with_for_update=True)
    if key.is_deleted:
        raise NotFound(f"API key with ID {key.id} not found")
    if key.expires_at is not None and key.expires_at <= clock.now():
        raise Invalid("This API key has expired. Set another expires_at first", param="expires_at")
    _retire(session, key, overlap_s)
    secret = _new_secret()
    key.secret_hash, key.secret_prefix = fingerprint(secret), secret[:SHOWN_LETTERS]
    session.flush()
    session.expire(key, ["living_retired_secrets"])
    return secret


def _retire(session: Session, key: ApiKey, overlap_s: int) -> None:
    end = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, overlap_s)
    of_key = RetiredSecret.api_key_id == key.id
    shortened = update(RetiredSecret).where(of_key, RetiredSecret.expires_at > end)
    session.execute(shortened.values(expires_at=end))
    row = insert(RetiredSecret).values(
        secret_hash=key.secret_hash,
        secret_prefix=key.secret_prefix,
        api_key_id=key.id,
        expires_at=end,
    )
    session.execute(row)
    by_age = select(RetiredSecret.secret_hash, RetiredSecret.expires_at > func.now()).where(of_key)
    kept = session.execute(by_age.order_by(RetiredSecret.retired_at.desc())).all()
    if sum(lives for _, lives in kept) > MOST_RETIRED:
        raise Conflict(
            f"{MOST_RETIRED} earlier secrets of this API key still work. Wait until one has ended, or rotate with a shorter overlap_seconds (0 ends them now)",
            members={"resource": "api_key"},
        )
    gone = [digest for digest, _ in kept[MOST_RETIRED:]]
    if gone:
        session.execute(delete(RetiredSecret).where(RetiredSecret.secret_hash.in_(gone)))


def end_retired(session: Session, key: ApiKey) -> int:
    """End the earlier secrets of a key that still work; gives how many there were."""
    living = (RetiredSecret.api_key_id == key.id, RetiredSecret.expires_at > func.now())
    ended = session.execute(
        update(RetiredSecret)
        .where(*living)
        .values(expires_at=func.now())
        .returning(RetiredSecret.secret_hash)
    ).all()
    session.expire(key, ["living_retired_secrets"])
    return len(ended)


def _new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def with_secret(session: Session, digest: bytes) -> tuple[User, ApiKey] | None:
    """The living key with this secret, or that had it before, and its creator. None where there is none. Raises Expired."""
    owner = aliased(User)
    now_or_before = union_all(
        select(ApiKey.id).where(ApiKey.secret_hash == digest),
        select(RetiredSecret.api_key_id).where(RetiredSecret.secret_hash == digest),
    )
    ends_at = func.least(ApiKey.expires_at, RetiredSecret.expires_at)
    # Not now(): the transaction may have begun, and waited for a lock, before the secret ended.
    is_over = ends_at <= func.clock_timestamp()
    wanted = (
        users.people()
        .join(ApiKey, ApiKey.created_by == User.id)
        .join(owner, owner.id == ApiKey.user_id)
        .outerjoin(
            RetiredSecret,
            (RetiredSecret.api_key_id == ApiKey.id) & (RetiredSecret.secret_hash == digest),
        )
        .where(ApiKey.id.in_(now_or_before), ~ApiKey.is_deleted)
        .where(~owner.is_deleted)
        .add_columns(ApiKey, ends_at, is_over)
    )
    found = session.execute(users.for_sign_in(wanted)).unique().one_or_none()
    if found is None:
        return None
    user, key, end, has_ended = found
    if has_ended:
        raise Expired(expiry(end.timestamp(), replaced=key.secret_hash != digest))
    return user, key


class Expired(Unauthenticated):
    """The API key has expired"""

    code = EXPIRED


def expiry(at: float, *, replaced: bool) -> str:
    """What is said of a secret that has ended (Unix time): its key's own end, or `replaced` by a rotation."""
    when = rfc3339(datetime.fromtimestamp(int(at), tz=UTC))
    if replaced:
        return f"This secret of the API key was replaced and ended at {when}. Use the new one."
    return f"This API key expired at {when}. Use another, or have its expires_at changed."


def visible(owner_id: UUID | None, *, created_by: UUID | None) -> Select[ApiKey]:
    """The keys that can be seen of an owner (None: of everybody), newest first; `created_by` narrows them to one person's."""
    query = select(ApiKey).where(~ApiKey.hidden, ~ApiKey.is_deleted)
    if owner_id is not None:
        query = query.where(ApiKey.user_id == owner_id)
    if created_by is not None:
        query = query.where(ApiKey.created_by == created_by)
    return query.order_by(ApiKey.created_at.desc(), ApiKey.id.desc())


def matching(
    keys: Select[ApiKey],
    *,
    search: str | None,
    purpose: str | None,
    created_by: UUID | None,
    state: str | None = None,
) -> Select[ApiKey]:
    """Those of them whose name, description or prefix contains the text, and that have this purpose, creator and state (of `STATES`)."""
    if pattern := pagination.substring(search):
        columns = (ApiKey.name, ApiKey.description, ApiKey.secret_prefix)
        keys = keys.where(pagination.found_in(pattern, *columns))
    if purpose is not None:
        keys = keys.where(ApiKey.purpose == purpose)
    if created_by is not None:
        keys = keys.where(ApiKey.created_by == created_by)
    if state is not None:
        has_ended = func.coalesce(ApiKey.expires_at <= func.now(), False)
        keys = keys.where(has_ended if state == "expired" else ~has_ended)
    return keys


def change(key: ApiKey, changes: Mapping[str, Any]) -> None:
    """Set what is named: None clears what may be unset, and leaves the others. Raises Invalid for an end that is over, and for a cap that is none.

    A cap that is lifted takes its interval along, a rate its burst: alone that is a limit of its own.
    """
    check_expiry(changes.get("expires_at"))
    if "spend_limit" in changes and changes["spend_limit"] is None:
        changes = {"spend_limit_interval": None, **changes}
    if "requests_per_second" in changes and changes["requests_per_second"] is None:
        changes = {"burst_size": None, **changes}
    _check_cap(
        changes.get("spend_limit", key.spend_limit),
        changes.get("spend_limit_interval", key.spend_limit_interval),
    )
    for name, value in changes.items():
        if value is not None or name not in _NEVER_UNSET:
            setattr(key, name, value)


Spending = Mapping[UUID, tuple[Decimal, datetime | None]]
"""Of keys with a cap: what they have spent in the present window, and when that begins anew (None: never)."""


def spending(session: Session, keys: Iterable[ApiKey]) -> Spending:
    """That of those that have a cap; nothing is asked where none has."""
    now = clock.now()
    starts = {
        (key.id, caps.window_start(key.spend_limit_interval, now)): key
        for key in keys
        if key.spend_limit is not None
    }
    if not starts:
        return {}
    wanted = tuple_(Spend.api_key_id, Spend.window_start).in_(starts)
    rows = session.execute(select(Spend.api_key_id, Spend.spent).where(wanted))
    spent = {row.api_key_id: row.spent for row in rows}
    return {
        key.id: (spent.get(key.id, Decimal(0)), caps.window_end(key.spend_limit_interval, now))
        for key in starts.values()
    }


def get(session: Session, key_id: UUID, owner_id: UUID, *, created_by: UUID | None) -> ApiKey:
    """One of the keys that `visible` lists. Raises NotFound."""
    found = session.scalar(visible(owner_id, created_by=created_by).where(ApiKey.id == key_id))
    if found is None:
        raise NotFound(f"API key with ID {key_id} not found")
    return found


def revoke(session: Session, owner_id: UUID, creator_id: UUID) -> None:
    """End the keys that a person has made for an account, hidden ones too."""
    theirs = update(ApiKey).where(ApiKey.user_id == owner_id, ApiKey.created_by == creator_id)
    session.execute(theirs.where(~ApiKey.is_deleted).values(is_deleted=True))


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
        ApiKey.hidden,
        ~ApiKey.is_deleted,
    )
    found = session.scalar(same)
    # Somebody may have given this very name to a key of their own; then ours gets another one.
    for attempt in (name, f"{name} {secrets.token_hex(4)}"):
        if found is None:
            _insert_hidden(session, owner_id, creator_id, purpose, attempt)
            found = session.scalar(same)
    return found or session.scalars(same).one()


def hidden_purpose(name: str) -> str | None:
    """What the hidden key of this name is for; None where it is not such a name. (Somebody may have given one to a key of their own.)"""
    found = _HIDDEN_NAME.fullmatch(name)
    return found[1] if found and found[1] in RESERVED_PURPOSES else None


def _insert_hidden(
    session: Session, owner_id: UUID, creator_id: UUID, purpose: str, name: str
) -> None:
    row = insert(ApiKey).values(
        user_id=owner_id, created_by=creator_id, purpose=purpose, name=name, hidden=True
    )
    session.execute(row.on_conflict_do_nothing())
