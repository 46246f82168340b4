"""The left bar: which screens there are, and who sees a link to them.

Members see what they come for every day; screens that they may open and seldom need (their models, their ledger) are linked where they are needed.
What a person may not see is refused by the page itself, whatever the bar shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

from flask import request, url_for

from dwctl.access.caller import MANAGERS, Caller
from dwctl.access.permissions import Operation, Resource, may_all, may_own

Sees = Callable[[Caller], bool]


@dataclass(frozen=True, slots=True)
class Item:
    """key: the second key of the shortcut `g …`. takes_range: whether a range goes along with a person who follows the link."""

    name: str
    label: str
    icon: str
    group: str
    key: str
    sees: Sees
    takes_range: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """An item as one caller sees it."""

    item: Item
    url: str
    is_here: bool


def _everybody(_caller: Caller) -> bool:
    return True


def _all(resource: Resource) -> Sees:
    return lambda caller: may_all(caller, resource, Operation.READ)


def _own(resource: Resource) -> Sees:
    return lambda caller: may_own(caller, resource, Operation.READ)


def _people(caller: Caller) -> bool:
    return may_all(caller, Resource.USERS, Operation.READ) or any(
        membership.role in MANAGERS for membership in caller.memberships
    )


ITEMS = (
    Item("overview", "Overview", "house", "", "o", _everybody, takes_range=True),
    Item("requests", "Requests", "list", "", "r", _everybody, takes_range=True),
    Item("playground", "Playground", "message-square", "", "p", _everybody),
    Item("batches", "Batches", "layers", "Work", "b", _own(Resource.BATCHES)),
    Item("files", "Files", "file", "Work", "f", _own(Resource.FILES)),
    Item("queue", "Queue", "hourglass", "Work", "q", _all(Resource.SYSTEM)),
    Item("models", "Models", "box", "Build", "m", _all(Resource.MODELS)),
    Item("endpoints", "Endpoints", "server", "Build", "e", _all(Resource.ENDPOINTS)),
    Item("keys", "API keys", "key-round", "Build", "k", _everybody),
    Item("usage", "Usage", "chart-line", "Account", "u", _everybody, takes_range=True),
    Item("credits", "Credits", "wallet", "Account", "c", _all(Resource.CREDITS)),
    Item("people", "People", "users", "Account", "i", _people),
    Item("settings", "Settings", "settings", "Account", "s", _all(Resource.SYSTEM)),
)


def visible(caller: Caller) -> list[tuple[str, list[Link]]]:
    """What the caller sees, by group."""
    seen = [_link(item) for item in ITEMS if item.sees(caller)]
    return [(group, list(links)) for group, links in groupby(seen, lambda link: link.item.group)]


def _link(item: Item) -> Link:
    endpoint = f"ui_{item.name}.show"
    range = request.args.get("range") if item.takes_range else None
    # (A large screen has several blueprints: `ui_models`, `ui_models_forms`.)
    here = (request.blueprint or "").startswith(f"ui_{item.name}")
    return Link(item, url_for(endpoint, range=range), here)
