"""What may be changed of a person's account, and within which bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.errors import Invalid
from dwctl.identity import users
from dwctl.identity.tables import User

_BOUNDS: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "auto_topup_amount": (lambda v: v > 0, "Auto top-up amount must be positive"),
    "auto_topup_threshold": (lambda v: v >= 0, "Auto top-up threshold must not be negative"),
    "auto_topup_monthly_limit": (lambda v: v > 0, "Auto top-up monthly limit must be positive"),
}
_CLEARABLE = ("low_balance_threshold", "log_sample", *_BOUNDS)


def change(session: Session, user: User, changes: Mapping[str, Any]) -> None:
    """Set what is named. None clears a limit, and leaves everything else.

    Raises Invalid for one out of its range, and where nobody would be left who manages the platform; NotFound where the account was deleted meanwhile.
    """
    _check_bounds(changes)
    # What was scrubbed stays so.
    users.lock_account(session, user)
    wanted = {k: v for k, v in changes.items() if v is not None or k in _CLEARABLE}
    roles = wanted.pop("roles", None)
    if roles is not None:
        users.change_roles(session, user, roles)
    for name, value in wanted.items():
        setattr(user, name, value)
    # A new limit is a new occasion to be told.
    if "low_balance_threshold" in wanted:
        user.low_balance_notification_sent = False
    if "auto_topup_monthly_limit" in wanted:
        user.auto_topup_limit_notification_sent = False
    if wanted:
        user.updated_at = clock.now()


def _check_bounds(changes: Mapping[str, Any]) -> None:
    for name, (holds, text) in _BOUNDS.items():
        value = changes.get(name)
        if value is not None and not holds(value):
            raise Invalid(text, param=name)
