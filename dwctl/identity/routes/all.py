"""The room's blueprints, for `urls`."""

from __future__ import annotations

from dwctl.identity.routes import (
    api_keys,
    command_line,
    found_api_keys,
    groups,
    login_sessions,
    resets,
    sessions,
    settings,
    support,
    users,
)

AUTHENTICATION = (
    sessions.blueprint,
    sessions.account,
    resets.blueprint,
    command_line.exchange,
)
ADMIN = (
    users.blueprint,
    groups.blueprint,
    api_keys.blueprint,
    found_api_keys.blueprint,
    settings.blueprint,
    support.blueprint,
    login_sessions.blueprint,
    command_line.blueprint,
)
