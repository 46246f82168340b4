"""What somebody else would find here, told from their roles and memberships: nothing is done in their name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from dwctl.access.caller import Caller, Membership
from dwctl.access.permissions import Operation, Resource, may_all, may_own
from dwctl.dashboard import navigation


@dataclass(frozen=True, slots=True)
class Reach:
    """What one may do to one kind of thing, in words: to everybody's, and to one's own."""

    resource: str
    everybodys: str
    own: str


def caller(account: Mapping[str, Any]) -> Caller:
    """An account, as the API shows it with its organisations, as if it called."""
    return Caller(
        UUID(account["id"]),
        account["username"],
        account["email"],
        frozenset(account["roles"]),
        account["is_admin"],
        "preview",
        tuple(
            Membership(UUID(one["id"]), one["name"], one["role"])
            for one in account.get("organizations", ())
        ),
    )


def screens(somebody: Caller) -> list[navigation.Item]:
    """The links in their bar."""
    return [item for item in navigation.ITEMS if item.sees(somebody)]


def reach(somebody: Caller) -> list[Reach]:
    """What their roles allow, kind by kind; kinds of which they may do nothing are left out."""
    found = []
    for resource in Resource:
        everybodys = [o for o in Operation if may_all(somebody, resource, o)]
        own = [o for o in Operation if may_own(somebody, resource, o) and o not in everybodys]
        if everybodys or own:
            found.append(Reach(resource, _words(everybodys), _words(own)))
    return found


def _words(operations: list[Operation]) -> str:
    return ", ".join(operations).lower()
