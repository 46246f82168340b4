"""Requests for help, mailed to whoever runs the deployment; so many an hour that nobody can flood them."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.access.caller import Caller
from dwctl.config import Settings
from dwctl.errors import Invalid
from dwctl.identity import throttle
from dwctl.mail import outbox
from dwctl.settings.mail_addresses import is_address

KEPT_FOR = timedelta(days=3)
"""For how long a mail server may be away before a request is given up."""


def ask(session: Session, caller: Caller, subject: str, message: str, settings: Settings) -> None:
    """Have the request mailed once the transaction is committed. Raises Invalid for a blank one, TooManyAttempts (429)."""
    wanted = {"subject": subject.strip(), "message": message.strip()}
    for name, text in wanted.items():
        if not text:
            raise Invalid(f"The {name} of a support request cannot be empty", param=name)
    rule = settings.support
    for whose, most in (
        (str(caller.user_id), rule.requests_per_account_per_hour),
        ("everybody", rule.requests_per_hour),
    ):
        throttle.admit_account(session, "support request", whose, most, throttle.HOUR_S)
    organization = next(
        (m.name for m in caller.memberships if m.organization_id == caller.active_organization_id),
        "",
    )
    values = {
        **wanted,
        "username": caller.username,
        "email": caller.email,
        "user_id": str(caller.user_id),
        "organization": organization,
    }
    # Whoever signs in by a trusted header may have an id in place of an address.
    reply_to = caller.email if is_address(caller.email) else None
    to = settings.support_email or settings.admin_email
    expires_at = clock.now() + KEPT_FOR
    outbox.put(session, outbox.Mail("support_request", to, values, expires_at, reply_to=reply_to))
