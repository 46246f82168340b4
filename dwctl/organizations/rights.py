"""Who may do what to an organisation: a permission for all of them, or a role in this one. Each rule of a route is a function here.

A role that was read when the request came in may be gone by now: changes ask `confirm` again once the organisation is locked.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from dwctl.access.caller import MANAGERS, Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.errors import Forbidden, NotFound
from dwctl.identity import organizations


def may_see(caller: Caller, organization_id: UUID, **_path: Any) -> None:
    """Members see an organisation, and who may read all of them; to others it does not exist (404)."""
    if not (_may(caller, Operation.READ) or caller.role_in(organization_id)):
        raise NotFound(f"Organization with ID {organization_id} not found")


def may_change(caller: Caller, organization_id: UUID, **_path: Any) -> None:
    """Owners and admins change an organisation, and who may change all of them."""
    _insist(manages(caller, organization_id), f"Update Organization {organization_id}")


def may_manage_members(caller: Caller, organization_id: UUID, **_path: Any) -> None:
    """Owners and admins manage members and invitations, and who may change all organisations."""
    _insist(manages(caller, organization_id), f"Update Organization {organization_id} members")


def may_delete(caller: Caller, organization_id: UUID, **_path: Any) -> None:
    """Who may delete all organisations deletes one: no role in it is enough."""
    _insist(_may(caller, Operation.DELETE), f"Delete Organization {organization_id}")


def may_leave(caller: Caller, organization_id: UUID, **_path: Any) -> None:
    """Members leave; others have nothing to leave (404)."""
    if caller.role_in(organization_id) is None:
        raise no_member(organization_id, caller.user_id)


def may_list_of_user(caller: Caller, user_id: UUID | str, **_path: Any) -> None:
    """One's own organisations, or anybody's for who may read all users."""
    if user_id not in ("current", caller.user_id):
        allowed = may_all(caller, Resource.USERS, Operation.READ)
        _insist(allowed, f"Read organizations of user {user_id}")


def may_answer_invitations(_caller: Caller, **_path: Any) -> None:
    """Anybody who is signed in: the token in the link is what counts, and for an answer the address to which it was sent."""


def may_list(_caller: Caller, **_path: Any) -> None:
    """Everybody lists the organisations of which they are a member, who may read all of them lists those."""


def administers(caller: Caller) -> bool:
    """Whether the caller may change all organisations."""
    return _may(caller, Operation.UPDATE)


def manages(caller: Caller, organization_id: UUID) -> bool:
    """Whether the caller may change this organisation and its members."""
    return administers(caller) or caller.role_in(organization_id) in MANAGERS


def confirm(
    session: Session, caller: Caller, organization_id: UUID, *, owners: bool = False
) -> None:
    """Look at the caller's role in a locked organisation again. `owners`: what is to be done makes or unmakes an owner, which admins may not.

    Raises Forbidden.
    """
    if administers(caller):
        return
    role = organizations.role_of(session, caller.user_id, organization_id)
    _insist(role in MANAGERS, f"Update Organization {organization_id} members")
    if owners and role != "owner":
        raise Forbidden(
            f"Insufficient permissions to Update Organization {organization_id} owners: only an owner makes, changes or removes owners"
        )


def no_member(organization_id: UUID, user_id: UUID) -> NotFound:
    """The refusal for somebody who is no member."""
    return NotFound(
        f"Organization membership with ID {user_id} in organization {organization_id} not found"
    )


def _may(caller: Caller, operation: Operation) -> bool:
    return may_all(caller, Resource.ORGANIZATIONS, operation)


def _insist(allowed: bool, what: str) -> None:
    if not allowed:
        raise Forbidden(f"Insufficient permissions to {what}")
