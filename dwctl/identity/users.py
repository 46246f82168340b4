"""People: find, create, give roles, delete. The system user is never among them; organisations are where it says "accounts"."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import TypeVarTuple
from uuid import UUID

from sqlalchemy import Select, delete, exists, func, or_, select, text, update
from sqlalchemy.orm import Session, joinedload, lazyload

from dwctl import clock
from dwctl.billing import ledger
from dwctl.config import Settings
from dwctl.db import among
from dwctl.errors import Conflict, Invalid, NotFound
from dwctl.identity import organizations as organizations_of
from dwctl.identity import sessions
from dwctl.identity.tables import (
    NIL,
    ApiKey,
    GroupMembership,
    OrganizationMembership,
    PasswordResetToken,
    RoleName,
    User,
    UserRole,
)
from dwctl.web import pagination

BASE_ROLE = "StandardUser"
MANAGER = "PlatformManager"
_MANAGERS = "platform managers"

_ROLES = joinedload(User.roles)
Rows = TypeVarTuple("Rows")

DeletionHook = Callable[[Session, UUID], None]
WelcomeHook = Callable[[Session, User, Settings], None]

_DELETION_HOOKS: list[DeletionHook] = []
_WELCOME_HOOKS: list[WelcomeHook] = []
_ARRIVAL_HOOKS: list[WelcomeHook] = []


def before_deletion(hook: DeletionHook) -> DeletionHook:
    """Have `hook(session, account_id)` run in the transaction that deletes an account: how higher rooms put away what is theirs."""
    _DELETION_HOOKS.append(hook)
    return hook


def on_welcome(hook: WelcomeHook) -> WelcomeHook:
    """Have `hook(session, user, settings)` run in the transaction in which somebody registers or first comes by trusted header. It must not fail."""
    _WELCOME_HOOKS.append(hook)
    return hook


def on_arrival(hook: WelcomeHook) -> WelcomeHook:
    """Have `hook(session, user, settings)` run where somebody comes by trusted header for the first time. It must not fail."""
    _ARRIVAL_HOOKS.append(hook)
    return hook


def accounts() -> Select[User]:
    """People and organisations that exist."""
    return select(User).where(~User.is_deleted, User.id != NIL)


def people() -> Select[User]:
    """Individuals that exist."""
    return accounts().where(User.user_type == "individual")


def organizations() -> Select[User]:
    """Organisations that exist."""
    return accounts().where(User.user_type == "organization")


def newest_first(query: Select[User], search: str | None) -> Select[User]:
    """The order of lists, narrowed to names and e-mails that contain the text."""
    pattern = pagination.substring(search)
    if pattern:
        columns = (User.display_name, User.username, User.email)
        query = query.where(pagination.found_in(pattern, *columns))
    return query.order_by(User.created_at.desc(), User.id.desc())


def get(session: Session, account_id: UUID, *, stays: bool = False) -> User:
    """The account. Raises NotFound, also for the system user and for deleted ones. With `stays` nobody deletes it within this transaction."""
    wanted = accounts().where(User.id == account_id)
    # KEY SHARE, as a row has that refers to it: changes of an organisation's members do not wait for it.
    held = wanted.with_for_update(read=True, key_share=True)
    found = session.scalar(held if stays else wanted)
    if found is None:
        raise NotFound(f"User with ID {account_id} not found")
    return found


def shown(session: Session, account_id: UUID) -> User:
    """The same to be shown, never changed: as this transaction has read it already, if it has. Raises NotFound."""
    found = session.get(User, account_id, options=[_ROLES, organizations_of.BROUGHT])
    if found is None or found.is_deleted or found.id == NIL:
        raise NotFound(f"User with ID {account_id} not found")
    return found


def for_sign_in(query: Select[*Rows]) -> Select[*Rows]:
    """A query for one person, which brings all that a caller is made of by the same statement."""
    return query.options(_ROLES, organizations_of.BROUGHT)


def named(session: Session, ids: Iterable[UUID]) -> dict[UUID, User]:
    """The accounts with these ids, for their names; not for their roles."""
    wanted = list(ids)
    nameable = accounts().options(lazyload(User.roles))
    found = session.scalars(nameable.where(among(User.id, wanted))) if wanted else ()
    return {account.id: account for account in found}


def hold(session: Session, *ids: UUID) -> None:
    """Lock these people against whoever makes or takes away what is theirs."""
    rows = select(User.id).where(User.id.in_(ids)).order_by(User.id)
    session.execute(rows.with_for_update(key_share=True))


def with_email(session: Session, email: str) -> list[User]:
    """Individuals with this e-mail in any spelling of its case: the exact one first, then the oldest."""
    same = people().where(func.lower(User.email) == func.lower(email))
    return list(session.scalars(same.order_by(User.email != email, User.created_at, User.id)))


def folded(session: Session, name: str) -> str:
    """A name or an e-mail in the one spelling by which it is compared.

    What lower case is, the database says: Python and its locale do not agree on every letter (`İ`), and whoever counts or locks by another
    spelling than the one that finds the account does so once for each.
    """
    found: str = session.scalars(select(func.lower(name))).one()
    return found


def insist_on_free(session: Session, *, username: str, email: str) -> None:
    """Conflict where somebody has this name or e-mail, in any spelling of its case. Nobody else takes either within this transaction.

    Trusted headers do not ask here: ids that are no e-mails may differ by case alone, and two of them may have one e-mail.
    """
    lock(session, f"email {email}")
    lock(session, f"username {username}")
    taken = select(exists().where(func.lower(User.username) == func.lower(username)))
    if session.scalar(taken):
        raise Conflict("This username is already taken", members={"resource": "user"})
    if with_email(session, email):
        raise Conflict(
            "An account with this email address already exists", members={"resource": "user"}
        )


def lock(session: Session, what: str) -> None:
    """Let one transaction at a time do this, in whatever spelling of its case (see `folded`)."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(lower(:what), 0))"), {"what": what})  # fmt: skip


def create(
    session: Session,
    *,
    username: str,
    email: str,
    roles: Iterable[str],
    auth_source: str,
    display_name: str | None = None,
    avatar_url: str | None = None,
    external_user_id: str | None = None,
    password_hash: str | None = None,
    user_type: str = "individual",
) -> User:
    """A new account with its roles. A name or e-mail that is taken breaks a constraint, which the edge turns into a 409."""
    user = User(
        username=username,
        email=email,
        auth_source=auth_source,
        display_name=display_name,
        avatar_url=avatar_url,
        external_user_id=external_user_id,
        password_hash=password_hash,
        user_type=user_type,
    )
    set_roles(user, roles)
    session.add(user)
    session.flush()
    return user


def welcome(session: Session, user: User, settings: Settings) -> None:
    """What a person who comes by registration or by trusted header starts with."""
    grant_initial_credits(session, user, settings)
    for hook in _WELCOME_HOOKS:
        hook(session, user, settings)


def arrive(session: Session, user: User, settings: Settings) -> None:
    """What a person is made by the identity provider's word for their address."""
    for hook in _ARRIVAL_HOOKS:
        hook(session, user, settings)


def grant_initial_credits(session: Session, user: User, settings: Settings) -> None:
    """Credit that nobody has paid for, by a setting."""
    amount = settings.credits.initial_credits_for_standard_users
    if amount > 0:
        ledger.grant(
            session,
            user_id=user.id,
            amount=amount,
            source_id=ledger.internal_source(NIL),
            description="Initial credits",
            granted_by=NIL,
        )


def set_roles(user: User, names: Iterable[str]) -> None:
    """Replace the roles. Their order is kept; StandardUser is always among them, last where it was not named."""
    wanted = list(dict.fromkeys([*names, BASE_ROLE]))
    present = {row.role: row for row in user.roles}
    rows = [present.get(role) or UserRole(role=role) for role in map(_stored, wanted)]
    for position, row in enumerate(rows):
        row.position = position
    user.roles = rows


def change_roles(session: Session, user: User, names: Iterable[str]) -> None:
    """The same of a user who exists. Raises Invalid where nobody would be left who manages the platform."""
    wanted = list(names)
    _lock_managers_before(session, user)
    lock_account(session, user)
    if _manages(user) and not user.is_admin and MANAGER not in wanted:
        _insist_on_another_manager(session, user)
    set_roles(user, wanted)
    user.updated_at = clock.now()


def _manages(user: User) -> bool:
    return user.is_admin or MANAGER in user.role_names


def _lock_managers_before(session: Session, user: User) -> None:
    # Two who remove each other at once would each hold one account, and come to want the other's.
    if _manages(user):
        lock(session, _MANAGERS)


def _insist_on_another_manager(session: Session, user: User) -> None:
    # Two managers who are leaving at once must not each rely on the other.
    lock(session, _MANAGERS)
    manages = exists().where(UserRole.user_id == User.id, UserRole.role == RoleName.PLATFORMMANAGER)
    others = people().where(User.id != user.id, or_(User.is_admin, manages))
    if not session.scalar(select(others.exists())):
        raise Invalid(
            f"{user.email} is the last account that may manage the platform. Make somebody else a {MANAGER} first"
        )


def lock_account(session: Session, user: User) -> None:
    """Read the account again, locked. Raises NotFound where it was deleted meanwhile."""
    session.refresh(user, with_for_update={"key_share": True})
    if user.is_deleted:
        raise NotFound(f"User with ID {user.id} not found")


def delete_account(session: Session, user: User) -> None:
    """Scrub a person or an organisation and take away every way in; the row stays, for what it is mentioned in.

    Raises NotFound where it is deleted already, Invalid where nobody would be left who manages the platform.
    """
    _lock_managers_before(session, user)
    lock_account(session, user)
    if _manages(user):
        _insist_on_another_manager(session, user)
    for hook in _DELETION_HOOKS:
        hook(session, user.id)
    # Asked before anything is changed: the change is one statement, and one entry of the audit log.
    name = _name_of_the_deleted(session, user.id)
    user.email, user.username = f"deleted-{user.id}@deleted.local", name
    user.display_name = user.avatar_url = None
    user.is_deleted = True
    user.updated_at = clock.now()
    if user.user_type == "individual":
        user.password_hash = user.external_user_id = user.payment_provider_id = None
    _revoke_everything(session, user.id)


def _name_of_the_deleted(session: Session, account_id: UUID) -> str:
    name = f"deleted-{account_id}"
    # An organisation's name is free, and a trusted header says what it likes: neither shall keep an account from being deleted.
    taken = exists().where(User.username == name, User.id != account_id)
    return f"{name}-{secrets.token_hex(8)}" if session.scalar(select(taken)) else name


def revoke_credentials(session: Session, account_id: UUID) -> None:
    """End every session and key of an account, and the keys that it has made for others."""
    keys = or_(ApiKey.user_id == account_id, ApiKey.created_by == account_id)
    session.execute(update(ApiKey).where(keys, ~ApiKey.is_deleted).values(is_deleted=True))
    sessions.end_all(session, account_id)
    end_reset_tokens(session, account_id)


def end_reset_tokens(session: Session, user_id: UUID) -> None:
    """Make every link of a person by which a password can be replaced a used one."""
    unused = (PasswordResetToken.user_id == user_id, PasswordResetToken.used_at.is_(None))
    session.execute(update(PasswordResetToken).where(*unused).values(used_at=func.now()))


def _revoke_everything(session: Session, account_id: UUID) -> None:
    revoke_credentials(session, account_id)
    session.execute(delete(GroupMembership).where(GroupMembership.user_id == account_id))
    memberships = or_(
        OrganizationMembership.user_id == account_id,
        OrganizationMembership.organization_id == account_id,
    )
    session.execute(delete(OrganizationMembership).where(memberships))


def _stored(name: str) -> RoleName:
    return RoleName(name.upper())
