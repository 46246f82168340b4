"""Forgotten passwords: ask for a link by mail, choose a new password. (The page that the link leads to is the dashboard's.)"""

from __future__ import annotations

from uuid import UUID

from flask import request

from dwctl.access import guard
from dwctl.db import db
from dwctl.errors import Invalid
from dwctl.identity import native, resets, throttle, users
from dwctl.identity.schemas import Message
from dwctl.identity.sign_in_schemas import ResetConfirmation, ResetRequest
from dwctl.web import current, described
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("password_resets", __name__, description="Forgotten passwords")
guard.open_to_all(blueprint, reason="whoever has forgotten a password cannot sign in")


@blueprint.route("/password-resets", methods=["POST"])
@blueprint.arguments(ResetRequest)
@blueprint.response(200, Message)
@described.says(refusals=(403, 429))
def request_reset(given: dict[str, str]) -> dict[str, str]:
    """Ask for a link by which a forgotten password can be replaced

    The answer is the same whether or not there is such an account. The link comes by mail, to accounts that have a password, works once, and
    for half an hour (`auth.native.password_reset_token_duration`).
    """
    settings, session = current.settings(), db.session()
    native.insist_on_enabled(settings)
    rule = settings.auth.native
    limits = rule.throttle
    address, email = throttle.address_of(request), given["email"]
    throttle.admit(session, "ask for a reset", address, limits.resets_per_minute)
    # As long as the first of them is valid: whoever's account is meant can always use one, or ask again.
    throttle.admit_account(
        session,
        "ask for a reset",
        users.folded(session, email),
        limits.resets_per_account,
        rule.password_reset_token_duration,
    )
    resets.ask(session, email, settings)
    session.commit()
    return {"message": "If an account with that email exists, a password reset link has been sent."}


@blueprint.route("/password-resets/<id:token_id>/confirm", methods=["POST"])
@blueprint.arguments(ResetConfirmation)
@blueprint.response(200, Message)
@described.says(refusals=(403, 429))
def confirm_reset(given: dict[str, str], token_id: UUID) -> dict[str, str]:
    """Choose a new password with the token of the mail

    Ends every login session of the account and every other link; its API keys stay.
    """
    _confirm(token_id, given["token"], given["new_password"])
    return {"message": "Password has been reset successfully"}


def confirm_with(id: str, token: str, new_password: str) -> None:
    """The same for a page's form, where the id is any text. Raises Invalid."""
    try:
        token_id = UUID(id)
    except ValueError:
        raise Invalid(resets.REFUSAL) from None
    _confirm(token_id, token, new_password)


def _confirm(token_id: UUID, token: str, new_password: str) -> None:
    settings, session = current.settings(), db.session()
    native.insist_on_enabled(settings)
    limit = settings.auth.native.throttle.sign_ins_per_minute
    throttle.admit(session, "confirm a reset", throttle.address_of(request), limit)
    resets.confirm(session, token_id, token, new_password, settings)
    session.commit()
