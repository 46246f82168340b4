"""Organisations: their members, whom they invite, their settings."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.access import guard
from dwctl.dashboard import forms, lookups, operations, pages
from dwctl.dashboard.forms import Form
from dwctl.dashboard.routes.people import blueprint
from dwctl.identity.routes import groups, users
from dwctl.organizations.routes import invitations, members
from dwctl.organizations.routes import organizations as api
from dwctl.web import cursors

ROLE_WORDS = {
    "member": "uses it",
    "admin": "manages members and settings",
    "owner": "manages owners too",
}
_TAKEN = {"name": "An account has this name already. Choose another."}


@blueprint.get("/people/organizations")
def organizations() -> Response:
    """All organisations, or one's own."""
    search = request.args.get("q") or None
    query = {"search": search, "limit": "50"}
    found = operations.run(api.list_organizations, query=query)
    return pages.render(
        "people/organizations.html",
        title="People",
        fragment="people/_organizations.html",
        search=search,
        organizations=found["data"],
        total=found["total_count"],
        further=cursors.further(),
        sees_users=operations.may(users.list_users),
        sees_groups=operations.may(groups.list_groups),
        call=operations.snippet(api.list_organizations, query=query),
    )


@blueprint.get("/people/organizations/new")
def new_organization() -> Response:
    """The form of an organisation to be made."""
    return _making()


@blueprint.post("/people/organizations/new")
def make_organization() -> AnyResponse:
    """Make it; who does that owns it."""
    body = forms.body(operations.of(api.create_organization).body)
    made, form = forms.submit(
        lambda: operations.run(api.create_organization, body=body), taken=_TAKEN
    )
    if form.is_wrong:
        return _making(form)
    return _back(UUID(made["id"]), "Organisation created. You are its owner.")


@blueprint.get("/people/organizations/<id:organization_id>")
def organization(organization_id: UUID) -> Response:
    """One organisation."""
    return _page(organization_id)


@blueprint.post("/people/organizations/<id:organization_id>/edit")
def save_organization(organization_id: UUID) -> AnyResponse:
    """Change its settings."""
    operations.insist(api.update_organization, organization_id=organization_id)
    account = operations.run(api.get_organization, organization_id=organization_id)
    schema = operations.of(api.update_organization).body
    body = forms.body(schema)
    forms.read_share(body, account["log_sample"])
    return _changed(
        organization_id,
        lambda: operations.run(api.update_organization, body=body, organization_id=organization_id),
        "Changed.",
        seen=forms.seen(schema, account),
    )


@blueprint.post("/people/organizations/<id:organization_id>/invitations")
def invite(organization_id: UUID) -> AnyResponse:
    """Invite somebody by mail."""
    body = forms.body(operations.of(invitations.create_invite).body)
    return _changed(
        organization_id,
        lambda: operations.run(
            invitations.create_invite, body=body, organization_id=organization_id
        ),
        "Invitation sent.",
    )


@blueprint.post("/people/organizations/<id:organization_id>/invitations/<id:invite_id>/resend")
def resend_invitation(organization_id: UUID, invite_id: UUID) -> AnyResponse:
    """Send it again, with a new link."""
    path: dict[str, Any] = {"organization_id": organization_id, "invite_id": invite_id}
    return _changed(
        organization_id,
        lambda: operations.run(invitations.resend_invite, **path),
        "Sent again. The earlier link works no more.",
    )


@blueprint.post("/people/organizations/<id:organization_id>/invitations/<id:invite_id>/withdraw")
def withdraw_invitation(organization_id: UUID, invite_id: UUID) -> AnyResponse:
    """Take it back."""
    path: dict[str, Any] = {"organization_id": organization_id, "invite_id": invite_id}
    return _changed(
        organization_id,
        lambda: operations.run(invitations.delete_invite, **path),
        "Invitation withdrawn.",
    )


@blueprint.post("/people/organizations/<id:organization_id>/members")
def add_to_organization(organization_id: UUID) -> AnyResponse:
    """Make somebody who has an account a member, without asking them."""

    def add() -> None:
        user_id = lookups.person(request.form.get("person", "").strip())
        body = {"user_id": str(user_id), "role": request.form.get("member_role", "member")}
        operations.run(members.add_member, body=body, organization_id=organization_id)

    return _changed(organization_id, add, "Member added.")


@blueprint.post("/people/organizations/<id:organization_id>/members/<id:user_id>/role")
def change_role(organization_id: UUID, user_id: UUID) -> AnyResponse:
    """Give a member another role."""
    path: dict[str, Any] = {"organization_id": organization_id, "user_id": user_id}
    body = {"role": request.form.get("role", "")}
    return _changed(
        organization_id,
        lambda: operations.run(members.change_member_role, body=body, **path),
        "Role changed.",
    )


@blueprint.post("/people/organizations/<id:organization_id>/members/<id:user_id>/remove")
def remove_from_organization(organization_id: UUID, user_id: UUID) -> AnyResponse:
    """End a membership."""
    path: dict[str, Any] = {"organization_id": organization_id, "user_id": user_id}
    return _changed(
        organization_id,
        lambda: operations.run(members.remove_member, **path),
        "Member removed. The keys that they made for it are refused.",
    )


@blueprint.post("/people/organizations/<id:organization_id>/leave")
def leave_organization(organization_id: UUID) -> AnyResponse:
    """End one's own membership."""
    _, form = forms.submit(
        lambda: operations.run(members.leave_organization, organization_id=organization_id)
    )
    if form.is_wrong:
        return _page(organization_id, form)
    return pages.done(url_for("ui_account.show"), "You have left the organisation.")


@blueprint.post("/people/organizations/<id:organization_id>/delete")
def delete_organization(organization_id: UUID) -> AnyResponse:
    """Delete it, where its name was typed."""
    operations.insist(api.delete_organization, organization_id=organization_id)
    found = operations.run(api.get_organization, organization_id=organization_id)
    form = forms.confirmed(found["username"])
    if not form.is_wrong:
        _, form = forms.submit(
            lambda: operations.run(api.delete_organization, organization_id=organization_id)
        )
    if form.is_wrong:
        return _page(organization_id, form)
    return pages.done(url_for("ui_people.organizations"), f"{found['username']} deleted.")


def _changed(
    organization_id: UUID, change: Any, said: str, *, seen: str | None = None
) -> AnyResponse:
    _, form = forms.submit(change, seen=seen)
    return _page(organization_id, form) if form.is_wrong else _back(organization_id, said)


def _back(organization_id: UUID, said: str) -> AnyResponse:
    return pages.done(url_for("ui_people.organization", organization_id=organization_id), said)


def _page(organization_id: UUID, form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    path: dict[str, Any] = {"organization_id": organization_id}
    pages.stands_at(url_for("ui_people.organization", **path))
    found = operations.run(api.get_organization, **path)
    listed = operations.run(members.list_members, query={"limit": "50"}, **path)
    manages = operations.may(api.update_organization, **path)
    return pages.render(
        "people/organization.html",
        title=found["display_name"] or found["username"],
        status=422 if form.is_wrong else 200,
        form=form,
        account=found,
        seen=forms.seen(operations.of(api.update_organization).body, found),
        share=forms.shown_share(found["log_sample"]),
        members=[one for one in listed if one["status"] == "active"],
        invitations=[one for one in listed if one["status"] != "active"],
        further=cursors.further(),
        own_role=guard.identify().role_in(organization_id),
        roles=ROLE_WORDS,
        manages=manages,
        may_delete=operations.may(api.delete_organization, **path),
        may_find_people=operations.may(users.list_users),
        call=operations.snippet(members.list_members, **path),
    )


def _making(form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    operations.insist(api.create_organization)
    body = {"name": "acme.example", "email": "office@acme.example"}
    return pages.render(
        "people/new_organization.html",
        title="Create an organisation",
        status=422 if form.is_wrong else 200,
        form=form,
        call=operations.snippet(api.create_organization, body=body),
    )
