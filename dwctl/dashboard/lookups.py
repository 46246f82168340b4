"""What people type for a thing (a name, an alias, an e-mail), found as the thing itself: forms take names, the API takes ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from dwctl.catalog.routes import models
from dwctl.dashboard import operations
from dwctl.dashboard.operations import View
from dwctl.errors import NotFound
from dwctl.identity.routes import groups, users

_MOST_LOOKED_AT = "100"


def group(name: str) -> UUID:
    """The group with this name. Raises NotFound."""
    return _one(groups.list_groups, name, lambda found: found["name"] == name, "group")


def model(alias: str) -> UUID:
    """The model with this alias. Raises NotFound."""
    return _one(models.list_models, alias, lambda found: found["alias"] == alias, "alias")


def person(text: str) -> UUID:
    """Whoever has this e-mail or user name. Raises NotFound."""
    wanted = text.lower()

    def is_meant(found: dict[str, Any]) -> bool:
        return wanted in (found["email"].lower(), found["username"].lower())

    return _one(users.list_users, text, is_meant, "person")


def _one(view: View, text: str, is_meant: Callable[[dict[str, Any]], bool], field: str) -> UUID:
    found = operations.run(view, query={"search": text, "limit": _MOST_LOOKED_AT})["data"] if text else []  # fmt: skip
    for one in found:
        if is_meant(one):
            return UUID(one["id"])
    raise NotFound(f"There is none called “{text}”." if text else "Say which one.", param=field)
