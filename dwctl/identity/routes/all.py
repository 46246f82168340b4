"""The room's blueprints, for `urls`."""

from __future__ import annotations

from dwctl.identity.routes import api_keys, groups, sessions, settings, support, users

AUTHENTICATION = (sessions.blueprint, sessions.account)
ADMIN = (
    users.blueprint,
    groups.blueprint,
    api_keys.blueprint,
    settings.blueprint,
    support.blueprint,
)
