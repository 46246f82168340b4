"""Invitations: made, sent again, taken back by who manages the organisation; looked at and answered by who has the link."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from flask import request

from dwctl.access import guard
from dwctl.db import db
from dwctl.errors import Invalid, NotFound
from dwctl.identity import throttle, users
from dwctl.identity.tables import OrganizationMembership
from dwctl.organizations import accounts, invitations, locks, members, rights
from dwctl.organizations.schemas import InviteAnswer, InviteCreate, InviteDetails, InviteSchema
from dwctl.settings.mail_addresses import is_address
from dwctl.web import current, described
from dwctl.web.dumping import Extended
from dwctl.web.schemas import Blueprint

blueprint = Blueprint(
    "organization_invitations", __name__, description="Invitations to organizations"
)
guard.protect(blueprint)


@blueprint.route("/organizations/<id:organization_id>/invites", methods=["POST"])
@guard.checks(rights.may_manage_members)
@blueprint.arguments(InviteCreate)
@blueprint.response(201, InviteSchema)
def create_invite(wanted: dict[str, str], organization_id: UUID) -> OrganizationMembership:
    """Invite somebody by mail

    The answer is the same whether the address has an account or not. An address that is a member's, or invited already, is 409; an invitation that has run out is replaced.
    """
    email, role = wanted["email"], members.check_role(wanted["role"])
    if not is_address(email) or "." not in email:
        raise Invalid("Invalid email address", param="email")
    session, caller = db.session(), guard.identify()
    _admit()
    organization = locks.organization(session, organization_id)
    rights.confirm(session, caller, organization_id, owners=role == "owner")
    made = invitations.invite(
        session,
        current.settings(),
        organization=organization,
        email=email,
        role=role,
        inviter=users.get(session, caller.user_id),
    )
    session.commit()
    return made


@blueprint.route(
    "/organizations/<id:organization_id>/invites/<id:invite_id>/resend", methods=["POST"]
)
@guard.checks(rights.may_manage_members)
@blueprint.response(200, InviteSchema)
def resend_invite(organization_id: UUID, invite_id: UUID) -> OrganizationMembership:
    """Send an invitation again

    With a new link, which works for its full time; the earlier one works no more. Also for an invitation that has run out.
    """
    session, caller = db.session(), guard.identify()
    _admit()
    organization = locks.organization(session, organization_id)
    invitation = invitations.get(session, organization_id, invite_id)
    rights.confirm(session, caller, organization_id, owners=invitation.role == "owner")
    inviter = users.get(session, caller.user_id)
    invitations.send(session, current.settings(), invitation, organization, inviter)
    session.commit()
    return invitation


@blueprint.route("/organizations/<id:organization_id>/invites/<id:invite_id>", methods=["DELETE"])
@guard.checks(rights.may_manage_members)
@blueprint.response(204)
def delete_invite(organization_id: UUID, invite_id: UUID) -> None:
    """Take an invitation back

    Its link works no more.
    """
    session = db.session()
    locks.organization(session, organization_id)
    rights.confirm(session, guard.identify(), organization_id)
    session.delete(invitations.get(session, organization_id, invite_id))
    session.commit()


@blueprint.route("/organizations/invites/<token>", methods=["GET"])
@guard.checks(rights.may_answer_invitations)
@described.says(refusals=(429,))
@blueprint.response(200, InviteDetails)
def get_invite(token: str) -> Extended:
    """Show the invitation behind a link

    404 for a link that leads nowhere (any more), 400 for one that has run out.
    """
    with _guess():
        found = invitations.by_token(db.session(), token)
    return Extended(found, for_you=invitations.is_for(found, guard.identify().email))


@blueprint.route("/organizations/invites/<token>/accept", methods=["POST"])
@guard.checks(rights.may_answer_invitations)
@described.says(refusals=(429,))
@blueprint.response(200, InviteAnswer)
def accept_invite(token: str) -> dict[str, str]:
    """Accept the invitation behind a link

    Only with the e-mail address that was invited, in any spelling of its case.
    """
    session, caller = db.session(), guard.identify()
    invitation = _for_caller(token)
    members.refuse_member(session, invitation.organization_id, caller.user_id)
    person = locks.person(session, caller.user_id)
    accounts.insist_on_room(session, person.id, current.settings())
    invitations.accept(session, invitation, person.id)
    session.commit()
    return {"message": "Invite accepted"}


@blueprint.route("/organizations/invites/<token>/decline", methods=["POST"])
@guard.checks(rights.may_answer_invitations)
@described.says(refusals=(429,))
@blueprint.response(200, InviteAnswer)
def decline_invite(token: str) -> dict[str, str]:
    """Decline the invitation behind a link

    Only with the e-mail address that was invited.
    """
    session = db.session()
    session.delete(_for_caller(token))
    session.commit()
    return {"message": "Invite declined"}


def _for_caller(token: str) -> OrganizationMembership:
    """The invitation, with its organisation locked. It is read again after that: others may have answered it meanwhile."""
    session, caller = db.session(), guard.identify()
    with _guess():
        found = invitations.by_token(session, token)
        invitations.check_address(found, caller.email)
    locks.organization(session, found.organization_id)
    again = invitations.by_token(session, token)
    return invitations.get(session, again.organization_id, again.id)


def _admit() -> None:
    """So many mails of invitation from one address, and no more."""
    limit = current.settings().organizations.invitations_per_minute
    throttle.admit(db.session(), "invite", throttle.address_of(request), limit)


@contextmanager
def _guess() -> Iterator[None]:
    """Count an unknown token as a wrong guess of this person; what leads somewhere is taken back."""
    session, caller = db.session(), guard.identify()
    rule = current.settings().auth.native.throttle
    account = f"invitations for {caller.user_id}"
    guess = throttle.begin_guess(session, account, throttle.address_of(request), rule)
    try:
        yield
    except NotFound:
        raise
    except Invalid:
        _forgive(guess)
        raise
    else:
        _forgive(guess)


def _forgive(guess: throttle.Guess) -> None:
    throttle.was_right(db.session(), guess)
    db.session.commit()
