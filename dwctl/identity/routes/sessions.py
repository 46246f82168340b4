"""Sign-in by password: register, log in, log out, change the password."""

from __future__ import annotations

from typing import Any

from flask import Response, after_this_request, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from dwctl.access import guard
from dwctl.db import db
from dwctl.identity import authentication, native, sessions, throttle
from dwctl.identity.schemas import (
    Availability,
    Credentials,
    Message,
    PasswordChange,
    Registration,
    SignedIn,
)
from dwctl.identity.tables import User
from dwctl.web import current, described, html
from dwctl.web.navigation import is_own_navigation
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("authentication", __name__, description="Sign-in by password")
guard.open_to_all(blueprint, reason="the way in, and out")

_ASK = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Sign out</title>
<form method="post" action=""><button>Sign out</button></form></html>
"""


def _refuse_foreign_pages() -> None:
    """They could sign a visitor out, or in as somebody else: a browser takes cookies from whatever it has navigated to."""
    authentication.refuse_foreign_page(request, current.settings())


blueprint.before_request(_refuse_foreign_pages)

account = Blueprint("account", __name__, description="One's own account")
guard.protect(account)


@blueprint.route("/register", methods=["GET"])
@blueprint.response(200, Availability)
def registration_status() -> dict[str, Any]:
    """Say whether people may register"""
    rule = current.settings().auth.native
    return _availability("Registration", rule.enabled and rule.allow_registration)


@blueprint.route("/register", methods=["POST"])
@blueprint.arguments(Registration)
@blueprint.response(201, SignedIn)
@described.says(refusals=(403, 429))
def register(wanted: dict[str, Any]) -> dict[str, Any]:
    """Register and sign in"""
    settings, session = current.settings(), db.session()
    native.insist_on_registration(settings)
    limit = settings.auth.native.throttle.registrations_per_minute
    throttle.admit(session, "register", throttle.address_of(request), limit)
    user = native.register(session, settings=settings, **wanted)
    return _sign_in(user, "Registration successful")


@blueprint.route("/login", methods=["GET"])
@blueprint.response(200, Availability)
def login_status() -> dict[str, Any]:
    """Say whether people may sign in by password"""
    return _availability("Native login", current.settings().auth.native.enabled)


@blueprint.route("/login", methods=["POST"])
@blueprint.arguments(Credentials)
@blueprint.response(200, SignedIn)
@described.says(refusals=(401, 403, 429))
def login(given: dict[str, str]) -> dict[str, Any]:
    """Sign in"""
    settings, session = current.settings(), db.session()
    native.insist_on_enabled(settings)
    limit = settings.auth.native.throttle.sign_ins_per_minute
    throttle.admit(session, "sign in", throttle.address_of(request), limit)
    user = native.log_in(
        session, given["email"], given["password"], settings, address=throttle.address_of(request)
    )
    return _sign_in(user, "Login successful")


@blueprint.route("/logout", methods=["POST"])
@blueprint.response(200, Message)
@described.says(refusals=(403,))
def logout() -> dict[str, str]:
    """Sign out here"""
    _end_session()
    after_this_request(_forget)
    return {"message": "Logout successful"}


@blueprint.route("/logout", methods=["GET"])
@blueprint.response(302, description="To the dashboard.")
@blueprint.alt_response(200, description="A page that asks first.", content_type="text/html")
@described.says(headers={"Location": "Where to go on."})
def leave() -> AnyResponse:
    """Sign out here, as a link does it. Where no page of ours is known to have the link, a page asks first"""
    if not is_own_navigation(request, same_site=True):
        return html.page(_ASK)
    _end_session()
    response = redirect("/")
    _forget(response)  # type: ignore[arg-type]
    return response


@account.route("/password-change", methods=["POST"])
@account.arguments(PasswordChange)
@account.response(200, Message)
@described.says(refusals=(429,))
def change_password(given: dict[str, str]) -> dict[str, str]:
    """Change one's password; other sessions end"""
    settings, session = current.settings(), db.session()
    native.insist_on_enabled(settings)
    native.change_password(
        session,
        guard.identify().user_id,
        given["current_password"],
        given["new_password"],
        settings,
        keep=_token(),
        address=throttle.address_of(request),
    )
    session.commit()
    return {"message": "Password changed successfully"}


def _availability(what: str, enabled: bool) -> dict[str, Any]:
    return {"enabled": enabled, "message": f"{what} is {'enabled' if enabled else 'disabled'}"}


def _sign_in(user: User, message: str) -> dict[str, Any]:
    rule = current.settings().auth.native.session
    token = sessions.start(
        db.session(),
        user.id,
        rule,
        address=throttle.address_of(request),
        user_agent=request.headers.get("User-Agent"),
    )
    db.session.commit()

    @after_this_request
    def hand_out(response: Response) -> Response:
        sessions.set_cookie(response, token, rule)
        return response

    return {"user": user, "message": message}


def _token() -> str | None:
    return request.cookies.get(current.settings().auth.native.session.cookie_name)


def _end_session() -> None:
    token = _token()
    if token:
        sessions.end(db.session(), token)
        db.session.commit()


def _forget(response: Response) -> Response:
    sessions.clear_cookies(response, current.settings().auth.native.session)
    return response
