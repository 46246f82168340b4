"""Organisations, their members, invitations."""

from __future__ import annotations

from requests import Response

from dwctl.identity.tokens import fingerprint
from tests.cast import Cast
from tests.gateway import unique
from tests.operations.world import World


def _new(w: World) -> str:
    """An organisation of somebody new."""
    name = f"{unique('o')}.example"
    body = {"name": name, "email": f"x@{name}", "owner_id": w.new_user()}
    return w.made("/organizations", body)


def _member(w: World, organization: str) -> str:
    user = w.new_user()
    w.stage.admin("POST", f"/organizations/{organization}/members", {"user_id": user})
    return user


def _invite(w: World, organization: str, email: str | None = None) -> str:
    body = {"email": email or f"{unique('i')}@x.example"}
    return w.made(f"/organizations/{organization}/invites", body)


def _token(w: World) -> str:
    """Of a new invitation for bob. (The mail may have been sent by now.)"""
    invite, token = _invite(w, _new(w), "bob@cast.example"), unique("token")
    known = "UPDATE user_organizations SET invite_token_hash = %s WHERE id = %s"
    w.stage.execute(known, fingerprint(token), invite)
    return token


def create_organization(w: World) -> Response:
    name = f"{unique('o')}.example"
    return w.ask(json={"name": name, "email": f"x@{name}", "owner_id": w.new_user()})


def list_organizations(w: World) -> Response:
    _new(w)
    return w.ask(query={"limit": 2})


def get_organization(w: World) -> Response:
    return w.ask({"organization_id": _new(w)})


def update_organization(w: World) -> Response:
    return w.ask({"organization_id": _new(w)}, json={"display_name": None})


def delete_organization(w: World) -> Response:
    return w.ask({"organization_id": _new(w)})


def list_user_organizations(w: World) -> Response:
    owner = w.new_user()
    name = f"{unique('o')}.example"
    w.made("/organizations", {"name": name, "email": f"x@{name}", "owner_id": owner})
    return w.ask({"user_id": owner})


def list_members(w: World) -> Response:
    organization = _new(w)
    _member(w, organization)
    _invite(w, organization)
    return w.ask({"organization_id": organization})


def add_member(w: World) -> Response:
    return w.ask({"organization_id": _new(w)}, json={"user_id": w.new_user(), "role": "admin"})


def change_member_role(w: World) -> Response:
    organization = _new(w)
    path = {"organization_id": organization, "user_id": _member(w, organization)}
    return w.ask(path, json={"role": "admin"})


def remove_member(w: World) -> Response:
    organization = _new(w)
    return w.ask({"organization_id": organization, "user_id": _member(w, organization)})


def leave_organization(w: World) -> Response:
    organization = _new(w)
    me = w.stage.session.get(f"{w.stage.url}/admin/api/v1/users/current", headers=Cast.headers("bob"), timeout=20)  # fmt: skip
    w.stage.admin("POST", f"/organizations/{organization}/members", {"user_id": me.json()["id"]})
    return w.ask({"organization_id": organization}, by="bob")


def create_invite(w: World) -> Response:
    return w.ask({"organization_id": _new(w)}, json={"email": f"{unique('i')}@x.example"})


def resend_invite(w: World) -> Response:
    organization = _new(w)
    return w.ask({"organization_id": organization, "invite_id": _invite(w, organization)})


def delete_invite(w: World) -> Response:
    organization = _new(w)
    return w.ask({"organization_id": organization, "invite_id": _invite(w, organization)})


def get_invite(w: World) -> Response:
    return w.ask({"token": _token(w)}, by="bob")


def accept_invite(w: World) -> Response:
    return w.ask({"token": _token(w)}, by="bob")


def decline_invite(w: World) -> Response:
    return w.ask({"token": _token(w)}, by="bob")
