"""Sign-in by headers that an identity-aware proxy in front sets: who that is, made on first sight, groups kept in step.

The headers count only where the socket's peer is a trusted proxy: whoever else reaches the port could name anybody.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from flask import Request
from sqlalchemy import bindparam, exists, select
from sqlalchemy.orm import Session

from dwctl.config import ProxyHeaderAuth, Settings
from dwctl.errors import Unauthenticated
from dwctl.identity import groups, names, users
from dwctl.identity.tables import User
from dwctl.web import proxies
from dwctl.web.schemas import CONTROL

LONGEST_NAME = 255
"""Characters of an id, an e-mail, a provider or a group. Groups that are no such names are left out."""

_SAME = users.people().where(User.external_user_id == bindparam("external_id"))
_SIGNING_IN = users.for_sign_in(_SAME)
"""Made once: to make it for each request costs as much as to ask it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What the proxy says. `groups` is None where it says nothing about them."""

    external_id: str
    email: str | None
    provider: str
    groups: frozenset[str] | None

    @property
    def address(self) -> str:
        """The e-mail, which is the id itself where only one header is sent."""
        return self.email or self.external_id


def claim_of(request: Request, settings: Settings) -> Claim | None:
    """The claim that a request makes; None where there is none or its peer is not trusted."""
    rule = settings.auth.proxy_header
    peer = proxies.origin_in(request.environ).peer
    if not rule.enabled or not proxies.is_trusted(peer, settings.identity_proxies):
        return None
    external_id = _header(request, rule.header_name)
    if not external_id:
        return None
    return Claim(
        external_id,
        _header(request, rule.email_header_name) or None,
        _provider(request, rule),
        _groups(request, rule),
    )


def sign_in(session: Session, claim: Claim, settings: Settings) -> User | None:
    """The person meant, made where that is allowed. None for a stranger where it is not."""
    user = _known(session, claim) or _recognised(session, claim, settings)
    if user is None:
        return None
    if claim.groups is not None:
        groups.follow_provider(session, user, claim.provider, claim.groups)
    return user


def _known(session: Session, claim: Claim) -> User | None:
    same = {"external_id": claim.external_id}
    user = session.scalars(_SIGNING_IN, same).unique().one_or_none()
    if user is None or not claim.email or user.email == claim.email:
        return user
    # Found again under a lock: an account that was deleted meanwhile gets no address any more.
    held = _SAME.with_for_update(key_share=True).execution_options(populate_existing=True)
    user = session.scalar(held, same)
    if user is not None:
        user.email = claim.email
        # Links were sent to the address that they had.
        users.end_reset_tokens(session, user.id)
    return user


def _recognised(session: Session, claim: Claim, settings: Settings) -> User | None:
    """Somebody who signs in this way for the first time: an account made for them by hand, or a new one."""
    users.lock(session, f"external id {claim.external_id}")
    # As registration does: whoever registers with this e-mail at this moment is seen, or sees us.
    users.lock(session, f"email {claim.address}")
    user = _known(session, claim) or _prepared(session, claim, settings)
    if user is None and settings.auth.proxy_header.auto_create_users:
        return _create(session, claim, settings)
    return user


def _prepared(session: Session, claim: Claim, settings: Settings) -> User | None:
    """The account with this e-mail that belongs to no external identity yet, or to the e-mail itself in another spelling of its case."""
    found = users.with_email(session, claim.address)
    user = next((each for each in found if _is_of(each, claim)), None)
    if user is not None and user.password_hash and user.auth_source == "native":
        _take_over(session, user, settings)
    if user is not None and claim.email and claim.email != claim.external_id:
        user.external_user_id = claim.external_id
    return user


def _is_of(user: User, claim: Claim) -> bool:
    is_by_email = user.external_user_id == user.email and claim.external_id == claim.address
    return user.external_user_id is None or is_by_email


def _take_over(session: Session, user: User, settings: Settings) -> None:
    """Whoever registered with this e-mail need not be its owner: nothing that lets them in may stay. Raises Unauthenticated where a setting refuses it."""
    if settings.auth.proxy_header.link_registered == "refuse":
        raise Unauthenticated(
            "Authentication required: an account with a password has this e-mail. An administrator must delete or rename it first.",
            code="account_not_linked",
        )
    # Sign-ins and keys that are on their way have locked the person too: they commit before this and end with the rest, or wait and then
    # look at their password or session again (`native`, `authentication.confirm`).
    session.refresh(user, with_for_update=True)
    user.password_hash = None
    user.auth_source = "proxy-header"
    session.flush()
    users.revoke_credentials(session, user.id)


def _create(session: Session, claim: Claim, settings: Settings) -> User:
    name = claim.external_id
    if session.scalar(select(exists().where(User.username == name))):
        name = f"{name} ({secrets.token_hex(4)})"
    user = users.create(
        session,
        username=name,
        email=claim.address,
        roles=settings.auth.default_user_roles,
        auth_source="proxy-header",
        display_name=names.random_display_name(),
        external_user_id=claim.external_id,
    )
    users.welcome(session, user, settings)
    users.arrive(session, user, settings)
    return user


def _header(request: Request, name: str) -> str:
    """A header's text. Raises Unauthenticated for one that no name is like: it would stand in indexes, log lines and terminals."""
    value = _text(request, name)
    if len(value) > LONGEST_NAME or CONTROL.search(value):
        raise Unauthenticated(
            f"Authentication required: the header {name} has control characters, or more than {LONGEST_NAME} characters",
            code="unusable_identity",
        )
    return value


def _text(request: Request, name: str) -> str:
    """WSGI hands out bytes as latin-1; names are sent as UTF-8."""
    value = request.headers.get(name, "").strip()
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _provider(request: Request, rule: ProxyHeaderAuth) -> str:
    named = _header(request, rule.provider_field_name)
    # A provider of this name would reach into the groups that were made by hand.
    return named if named and named != groups.NATIVE else "unknown"


def _groups(request: Request, rule: ProxyHeaderAuth) -> frozenset[str] | None:
    if not rule.import_idp_groups or rule.groups_field_name not in request.headers:
        return None
    named = (part.strip() for part in _text(request, rule.groups_field_name).split(","))
    fit = (part for part in named if 0 < len(part) <= LONGEST_NAME and not CONTROL.search(part))
    return frozenset(fit) - set(rule.blacklisted_sso_groups)
