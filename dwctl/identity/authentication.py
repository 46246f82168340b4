"""From a request's credential to a Caller: API key, else session cookie, else trusted headers - the first that holds.

A credential that does not hold is not the end of the search; what was wrong with the first one is said when nothing else holds (401).
A database that is away is 503, never 401.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from flask import Flask, Request
from sqlalchemy import bindparam, exists, select
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.access import guard
from dwctl.access.caller import Caller, Membership
from dwctl.config import Settings
from dwctl.db import db
from dwctl.errors import Forbidden, Invalid, Unauthenticated
from dwctl.identity import api_keys, organizations, sessions, trusted_headers, users
from dwctl.identity.tables import ApiKey, LoginSession, User
from dwctl.web import current

ORGANIZATION_HEADER = "X-Organization-Id"

NOTED_EVERY = timedelta(minutes=5)
"""How exact `users.last_login` and `api_keys.last_used` are."""

_SIGNED_IN = users.for_sign_in(
    users.people()
    .join(LoginSession, LoginSession.user_id == User.id)
    .where(LoginSession.token_hash == bindparam("token_hash"))
    .add_columns(LoginSession)
)
"""By a session's token, also of one that has run out. Made once: to make it for each request costs as much as to ask it."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class WrongPurpose(Forbidden):
    """The API key is not for this"""

    code = "wrong_key_purpose"


@dataclass(frozen=True, slots=True)
class SignIn:
    """A credential that holds."""

    user: User
    source: str
    api_key: ApiKey | None = None
    login: LoginSession | None = None
    secret_hash: bytes | None = None


_Way = Callable[[Session, Request, Settings], SignIn | None]
"""None where this kind of credential is not there; Unauthenticated where it does not hold."""


def init_app(app: Flask) -> None:
    """Make the guard ask here."""
    guard.init_app(app, resolve)


def resolve(request: Request) -> Caller | None:
    """Who calls, by any credential; None where there is none. Raises Unauthenticated with the reason where none holds.

    Notes the sign-in and ends the transaction, so that nobody holds a connection because of it.
    """
    return _first(request, (_by_api_key, _by_cookie, _by_trusted_headers))


def caller_of_session(request: Request | dict[str, Any]) -> Caller | None:
    """The same for session cookie and trusted headers alone; takes a WSGI environment, too. Needs an application context."""
    asked = Request(request) if isinstance(request, dict) else request
    return _first(asked, (_by_cookie, _by_trusted_headers))


def confirm(session: Session, caller: Caller) -> None:
    """Read the caller's credential again, for a transaction that makes another one. Raises Unauthenticated where it has been taken away.

    The person stays locked against whoever takes away their credentials: he either sees what is made here, or was here before.
    """
    person = users.people().where(User.id == caller.user_id).with_for_update(read=True)
    if session.scalar(person) is None or not _is_there(session, caller):
        raise Unauthenticated


def _is_there(session: Session, caller: Caller) -> bool:
    # A statement of its own after the lock: it sees what was committed while that was waited for.
    if caller.secret_hash is not None:
        return api_keys.with_secret(session, caller.secret_hash) is not None
    if caller.login_session_id is not None:
        same = LoginSession.id == caller.login_session_id
        return session.scalar(select(exists().where(same))) is True
    return True


def _first(request: Request, ways: Iterable[_Way]) -> Caller | None:
    session, settings = db.session(), current.settings()
    refusals: list[Unauthenticated | WrongPurpose] = []
    for way in ways:
        try:
            found = way(session, request, settings)
        except (Unauthenticated, WrongPurpose) as refusal:
            refusals.append(refusal)
            continue
        if found is not None:
            _note(found)
            caller = _caller(session, request, found)
            session.commit()
            return caller
    session.rollback()
    if refusals:
        raise refusals[0]
    return None


def _by_api_key(session: Session, request: Request, settings: Settings) -> SignIn | None:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret.startswith(api_keys.PREFIX):
        return None
    digest = api_keys.fingerprint(secret)
    found = api_keys.with_secret(session, digest)
    if found is None:
        raise Unauthenticated(code="invalid_api_key")
    user, key = found
    check_purpose(key.purpose, request.path)
    return SignIn(user, "api_key", key, secret_hash=digest)


def check_purpose(purpose: str, path: str) -> None:
    """Refuse a key that is for other paths: 401 on the admin API, 403 on the management routes under /ai, 401 on all that people open in a browser.

    Pages make keys of any purpose: one that opened them would be a key to everything.
    """
    if path.startswith("/admin/api/"):
        allowed: tuple[str, ...] = ("platform",)
    elif path.startswith("/ai/"):
        allowed = ("realtime", "batch", "playground")
    elif path.startswith("/authentication/"):
        return
    else:
        raise Unauthenticated("Authentication required: API keys open no pages, sign in", code=WrongPurpose.code)  # fmt: skip
    if purpose in allowed:
        return
    text = f"this API key has the purpose '{purpose}', here it must be '{allowed[0]}'"
    if path.startswith("/ai/"):
        raise WrongPurpose(f"Insufficient permissions: {text}")
    raise Unauthenticated(f"Authentication required: {text}", code=WrongPurpose.code)


def _by_cookie(session: Session, request: Request, settings: Settings) -> SignIn | None:
    rule = settings.auth.native.session
    token = request.cookies.get(rule.cookie_name)
    if not settings.auth.native.enabled or not token:
        return None
    of_token = {"token_hash": sessions.token_hash(token)}
    found = session.execute(_SIGNED_IN, of_token).unique().one_or_none()
    if found is None:
        raise Unauthenticated
    user, login = found
    if sessions.is_over(login, rule):
        raise Unauthenticated(code="session_expired")
    refuse_foreign_page(request, settings)
    sessions.extend(session, login, rule)
    return SignIn(user, "session", login=login)


def _by_trusted_headers(session: Session, request: Request, settings: Settings) -> SignIn | None:
    claim = trusted_headers.claim_of(request, settings)
    if claim is None:
        return None
    # The proxy's own cookie is as ambient as ours.
    refuse_foreign_page(request, settings)
    user = trusted_headers.sign_in(session, claim, settings)
    return None if user is None else SignIn(user, "proxy_header")


def refuse_foreign_page(request: Request, settings: Settings) -> None:
    """A browser adds cookies to what any page sends; changes are taken from our own pages only, where the browser says which it is."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if request.method in _SAFE_METHODS or (origin is None and site is None):
        return
    if site in ("same-origin", "none"):
        return
    if origin is None or urlsplit(origin).netloc not in _own_hosts(request, settings):
        raise Forbidden("Changes by cookie are not taken from other sites", code="foreign_origin")


def _own_hosts(request: Request, settings: Settings) -> set[str]:
    origins = (settings.dashboard_url, *settings.auth.security.cors.allowed_origins)
    return {request.host, *(urlsplit(url).netloc for url in origins)} - {""}


def _note(found: SignIn) -> None:
    now = clock.now()
    user, key = found.user, found.api_key
    if user.last_login is None or now - user.last_login > NOTED_EVERY:
        user.last_login = now
    if key is not None and (key.last_used is None or now - key.last_used > NOTED_EVERY):
        key.last_used = now


def _caller(session: Session, request: Request, found: SignIn) -> Caller:
    user = found.user
    memberships = organizations.memberships_with(session, user)
    return Caller(
        user_id=user.id,
        username=user.username,
        email=user.email,
        roles=frozenset(user.role_names),
        is_admin=user.is_admin,
        source=found.source,
        memberships=memberships,
        active_organization_id=_active_organization(request, found.api_key, memberships),
        api_key_id=found.api_key.id if found.api_key else None,
        login_session_id=found.login.id if found.login else None,
        secret_hash=found.secret_hash,
    )


def _active_organization(
    request: Request, key: ApiKey | None, memberships: tuple[Membership, ...]
) -> UUID | None:
    """The header's, which must be one's own; else the key's; else the cookie's."""
    own = {membership.organization_id for membership in memberships}
    named = request.headers.get(ORGANIZATION_HEADER, "").strip()
    if named:
        wanted = _uuid(named)
        if wanted is None:
            raise Invalid(f"{ORGANIZATION_HEADER} must be a UUID")
        if wanted not in own:
            raise Forbidden(f"Insufficient permissions to Read Organization {wanted}")
        return wanted
    wanted = key.user_id if key else _uuid(request.cookies.get(sessions.ORGANIZATION_COOKIE, ""))
    return wanted if wanted in own else None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
