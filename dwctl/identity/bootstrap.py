"""The first administrator, and what else a new deployment begins with. The Everyone group and the system user come with the migrations."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from dwctl.config import Settings
from dwctl.db import db
from dwctl.identity import passwords, users
from dwctl.identity.tables import User

ADMINISTRATOR_ROLES = ("PlatformManager", "StandardUser")


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What was done. `password` is there only when it was invented here; nobody can show it again."""

    created: bool
    email: str
    password: str | None


BootstrapHook = Callable[[Session, Settings, UUID], None]

_HOOKS: list[BootstrapHook] = []


def on_bootstrap(hook: BootstrapHook) -> BootstrapHook:
    """Have `hook(session, settings, administrator's id)` run in the bootstrap's transaction, at each release."""
    _HOOKS.append(hook)
    return hook


def bootstrap(settings: Settings, *, invent_password: bool = False) -> Bootstrap:
    """Make sure that the first administrator exists; commits. Needs an application context, no secret key.

    A password is set only where there is none: `admin_password`, else an invented one if asked for, else none (`dwctl users set-password`).
    """
    session = db.session()
    users.lock(session, "first administrator")
    found = users.with_email(session, settings.admin_email)
    admin = found[0] if found else _create(session, settings)
    password = invented = None
    # Somebody who merely has this e-mail is not handed a password to an account of theirs.
    if admin.is_admin and admin.password_hash is None:
        invented = secrets.token_urlsafe(12) if invent_password else None
        password = settings.admin_password or invented
    if password:
        admin.password_hash = passwords.hash_password(password, settings.auth.native.password)
    for hook in _HOOKS:
        hook(session, settings, admin.id)
    session.commit()
    shown = invented if password == invented else None
    return Bootstrap(created=not found, email=settings.admin_email, password=shown)


def _create(session: Session, settings: Settings) -> User:
    admin = users.create(
        session,
        username=settings.admin_email,
        email=settings.admin_email,
        roles=ADMINISTRATOR_ROLES,
        auth_source="system",
    )
    admin.is_admin = True
    return admin
