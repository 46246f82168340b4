"""Who owns files and batches, and whose a caller may see. Owners are stored as text: an organisation's id or a person's."""

from __future__ import annotations

from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource, may_all


def owners_of(caller: Caller) -> frozenset[str]:
    """The owners whose things are the caller's: the person, and the active organisation."""
    return frozenset({str(caller.user_id), str(caller.owner_id)})


def may_reach(caller: Caller, resource: Resource, operation: Operation, owner: str | None) -> bool:
    """Whether one row is the caller's, or they may do this to everybody's. To others it does not exist (404)."""
    return owner in owners_of(caller) or may_all(caller, resource, operation)


def listed_owner(caller: Caller, resource: Resource) -> str | None:
    """Whose rows a list shows: the active organisation's, else everybody's (None) for those who may read all, else the person's own."""
    if caller.active_organization_id is not None:
        return str(caller.active_organization_id)
    if may_all(caller, resource, Operation.READ):
        return None
    return str(caller.user_id)
