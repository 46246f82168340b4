"""Where a name or a figure leads its reader: the address of a page that they may open; None where there is none, so that it is text alone.

Told from roles and memberships, without a look at rows: what is deleted meanwhile has a page that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import url_for

from dwctl.access import guard, ownership
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.batches.routes import get_batch
from dwctl.dashboard import calls, operations, ranges

Id = UUID | str


def person(id: Id) -> str | None:
    """The page of a person."""
    caller = guard.identify()
    is_open = str(id) == str(caller.user_id) or may_all(caller, Resource.USERS, Operation.READ)
    return url_for("ui_people.detail", user_id=id) if is_open else None


def key(id: Id, owner: Id | None) -> str | None:
    """The page of an API key of an account. Those of an organisation are for whoever made them, which is not told here."""
    return url_for("ui_keys.detail", key_id=id) if has_keys(owner) else None


def has_keys(owner: Id | None) -> bool:
    """Whether the keys of an account have pages for the reader."""
    caller = guard.identify()
    return may_all(caller, Resource.API_KEYS, Operation.READ) or str(owner) == str(caller.user_id)


def batch(id: Id, owner: Id | None) -> str | None:
    """The page of a batch, which belongs to the account of its calls."""
    return url_for("ui_batches.detail", batch_id=id) if has_batches(owner) else None


def has_batches(owner: Id | None) -> bool:
    """Whether the batches of an account have pages for the reader."""
    owner = None if owner is None else str(owner)
    return operations.may(get_batch, batch_id="") and ownership.may_reach(
        guard.identify(), Resource.BATCHES, Operation.READ, owner
    )


def entry(id: Id, account: Id) -> str | None:
    """The page of an entry of an account's ledger."""
    is_open = _is_of(account) or may_all(guard.identify(), Resource.CREDITS, Operation.READ)
    return url_for("ui_credits.detail", entry_id=id) if is_open else None


def requests(account: Id) -> str | None:
    """The list of an account's calls."""
    is_open = calls.reads_all() or calls.may_list(UUID(str(account)))
    return url_for("ui_requests.show", user=account) if is_open else None


def usage(account: Id) -> str | None:
    """What an account has used."""
    is_open = _is_of(account) or may_all(guard.identify(), Resource.ANALYTICS, Operation.READ)
    return url_for("ui_usage.show", user=account) if is_open else None


def row(by: str, row: Mapping[str, Any], of: Id | None = None) -> str | None:
    """What a row of sums is about (`breakdowns`). of: the account whose calls they are, where they are not everybody's.

    A key that has no page for the reader leads to the sums of its calls.
    """
    id = row["id"]
    if not row["name"]:
        return None
    if by == "key":
        range = ranges.asked().text
        return key(id, of) or url_for("ui_usage.show", range=range, key=id)
    if by == "user":
        return person(id)
    if by == "group":
        is_open = may_all(guard.identify(), Resource.GROUPS, Operation.READ)
        return url_for("ui_people.group", group_id=id) if is_open else None
    return url_for("ui_models.detail", alias=id)


def _is_of(account: Id) -> bool:
    """Whether it is the reader's own, or an organisation's of which they are a member."""
    caller, id = guard.identify(), UUID(str(account))
    return id == caller.user_id or caller.role_in(id) is not None
