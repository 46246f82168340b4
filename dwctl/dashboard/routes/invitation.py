"""The page behind the link of an invitation to an organisation."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.access import guard
from dwctl.dashboard import addresses, forms, operations, pages
from dwctl.dashboard.forms import Form
from dwctl.errors import DwctlError, Unauthenticated
from dwctl.identity.routes import sessions
from dwctl.organizations.routes import invitations
from dwctl.web import current

blueprint = pages.screen(
    "invitation", open_because="whoever is invited may have no account here yet"
)
answers = pages.screen("invitation_answer")

_LONGEST = 200
"""A token is shorter."""


@blueprint.get("/org-invite")
def show() -> Response:
    """Who invites whom, and what can be done about it."""
    token = request.args.get("token", "")[:_LONGEST]
    try:
        guard.identify()
    except Unauthenticated:
        return _at_the_door()
    return _page(token)


@answers.post("/org-invite/accept")
def accept() -> AnyResponse:
    """Become a member."""
    token = request.form.get("token", "")[:_LONGEST]
    found = _looked_up(token)
    _, form = forms.submit(lambda: operations.run(invitations.accept_invite, token=token))
    if form.is_wrong or isinstance(found, DwctlError):
        return _page(token, form)
    where = url_for("ui_people.organization", organization_id=UUID(found["organization_id"]))
    return pages.done(where, f"You are now a member of {found['org_name']}.")


@answers.post("/org-invite/decline")
def decline() -> AnyResponse:
    """Have the invitation end."""
    token = request.form.get("token", "")[:_LONGEST]
    _, form = forms.submit(lambda: operations.run(invitations.decline_invite, token=token))
    if form.is_wrong:
        return _page(token, form)
    return pages.done(url_for("ui_overview.show"), "Invitation declined.")


def _page(token: str, form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    found = _looked_up(token)
    is_refused = isinstance(found, DwctlError)
    return pages.render(
        "people/invitation.html",
        title="Invitation",
        status=found.status if isinstance(found, DwctlError) else 422 if form.is_wrong else 200,
        form=form,
        token=token,
        invitation=None if is_refused else found,
        refusal=found if is_refused else None,
    )


def _looked_up(token: str) -> dict[str, Any] | DwctlError:
    """The invitation, or why there is none."""
    try:
        found: dict[str, Any] = operations.run(invitations.get_invite, token=token)
        return found
    except DwctlError as refusal:
        if refusal.status >= 500:
            raise
        return refusal


def _at_the_door() -> Response:
    """For whoever is not signed in: what the link is, and the two ways in, which come back here."""
    native = current.settings().auth.native
    return pages.render(
        "people/invited.html",
        title="You are invited",
        back=addresses.asked(),
        may_register=operations.run(sessions.registration_status)["enabled"],
        by_password=native.enabled,
    )
