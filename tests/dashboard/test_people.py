"""Users, groups and organisations as pages: who sees them, what their forms do, and why a model may be called."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dwctl.identity.tables import NIL
from tests.cast import Cast
from tests.dashboard import forms
from tests.identity.doors import insert_organization, insert_user, unique
from tests.organizations.company import token_for

HOSTILE = '"><img src=x onerror=alert(1)> (a) [b]'
Sql = psycopg.Connection[Any]


def api(client: FlaskClient, who: str, method: str, path: str, body: Any = None) -> Any:
    answer = client.open(f"/admin/api/v1{path}", method=method, json=body, headers=Cast.headers(who))  # fmt: skip
    assert answer.status_code < 300, answer.text
    return answer.json


def send(client: FlaskClient, who: str, page: str, action: str, **fields: str) -> TestResponse:
    return forms.submit(client, who, page, f"{page}/{action}", fields)


@pytest.fixture
def group(client: FlaskClient, cast: Cast) -> dict[str, Any]:
    made: dict[str, Any] = api(client, "admin", "POST", "/groups", {"name": unique("group")})
    return made


@pytest.fixture
def model(cast: Cast, sql: Sql) -> tuple[UUID, str]:
    alias = unique("model")
    row = sql.execute("INSERT INTO deployed_models (model_name, alias, type, created_by, is_composite) VALUES ('m', %s, 'CHAT', %s, true) RETURNING id", (alias, cast["admin"])).fetchone()  # fmt: skip
    assert row
    return row[0], alias


@pytest.fixture
def organization(cast: Cast, sql: Sql) -> UUID:
    """Bob owns it, Alice is a member."""
    return insert_organization(sql, owner=cast["bob"], member=cast["alice"])


# --- who comes in


@pytest.mark.parametrize(
    ("path", "may"),
    [
        ("/people", {"admin", "biller"}),
        ("/people/new", {"admin"}),
        ("/people/{alice}", {"admin", "biller", "alice"}),
        ("/people/{alice}/access", {"admin", "biller", "alice"}),
        ("/people/{alice}/see-as", {"admin", "biller"}),
        ("/people/{alice}/edit", {"admin", "alice"}),
        ("/people/groups", {"admin"}),
        ("/people/groups/new", {"admin"}),
        (f"/people/groups/{NIL}", {"admin"}),
        (f"/people/groups/{NIL}?show=models", {"admin"}),
    ],
)
def test_who_may_open_a_page(client: FlaskClient, cast: Cast, path: str, may: set[str]) -> None:
    for who in ("admin", "biller", "viewer", "alice", "bob"):
        answer = forms.get(client, who, path.format(alice=cast["alice"]))
        assert answer.status_code == (200 if who in may else 403), who


def test_an_organisation_is_its_members_and_its_managers_to_change(client: FlaskClient, cast: Cast, organization: UUID) -> None:  # fmt: skip
    page = f"/people/organizations/{organization}"
    for who, status in (("admin", 200), ("bob", 200), ("alice", 200), ("viewer", 404)):
        assert forms.get(client, who, page).status_code == status
    for who, sees in (("admin", True), ("bob", True), ("alice", False)):
        assert ("Send invitation" in forms.get(client, who, page).text) == sees
    assert send(client, "alice", page, "edit", display_name="Mine").status_code == 403
    assert send(client, "bob", page, "edit", display_name="Ours").status_code == 303
    assert "<h1>Ours</h1>" in forms.get(client, "bob", page).text


def test_whoever_manages_an_organisation_comes_to_it_by_the_bar(client: FlaskClient, cast: Cast, organization: UUID) -> None:  # fmt: skip
    came = forms.get(client, "bob", "/people")
    assert (came.status_code, came.headers["Location"]) == (303, "/people/organizations")
    page = forms.get(client, "bob", "/people/organizations").text
    assert str(organization) in page
    assert 'href="/people/groups"' not in page


@pytest.mark.parametrize("action", ["groups", "delete", "sessions/end", "edit"])
def test_changes_of_others_are_refused_by_address(client: FlaskClient, cast: Cast, group: dict[str, Any], action: str) -> None:  # fmt: skip
    fields = {"group": group["name"], "confirm": "bob", "display_name": "x", "_token": forms.token(forms.get(client, "alice", "/keys/new").text)}  # fmt: skip
    answer = client.post(f"/people/{cast['bob']}/{action}", data=fields, headers=Cast.headers("alice"))  # fmt: skip
    assert answer.status_code == 403
    assert api(client, "admin", "GET", f"/users/{cast['bob']}")["display_name"] is None


# --- users


def test_users_are_found_with_their_groups_and_balance(client: FlaskClient, cast: Cast, group: dict[str, Any]) -> None:  # fmt: skip
    client.post(f"/admin/api/v1/groups/{group['id']}/users/{cast['alice']}", headers=Cast.headers("admin"))  # fmt: skip
    page = forms.get(client, "admin", "/people?q=ALICE@").text
    assert "alice@cast.example" in page
    assert "bob@cast.example" not in page
    assert f'href="/people/groups/{group["id"]}"' in page
    assert f'href="/credits?user={cast["alice"]}"' in page
    assert "Nobody has that" in forms.get(client, "admin", "/people?q=%25nobody").text


def test_a_person_is_made_changed_and_deleted(client: FlaskClient, cast: Cast) -> None:
    name = unique("person")
    fields = {"username": name, "email": f"{name}@x.example", "display_name": HOSTILE, "roles.shown": "1", "roles": "BatchAPIUser"}  # fmt: skip
    made = forms.submit(client, "admin", "/people/new", "/people/new", fields)
    assert made.status_code == 303
    page = made.headers["Location"]
    id = page.rpartition("/")[2]
    assert "<img src=x" not in forms.get(client, "admin", page).text
    again = forms.submit(client, "admin", "/people/new", "/people/new", fields)
    assert again.status_code == 422
    assert "already taken" in again.text
    changed = send(client, "admin", page, "edit", **{"display_name": "Ann", "roles.shown": "1", "roles": "RequestViewer", "log_sample": "12.5"})  # fmt: skip
    assert changed.status_code == 303
    now = api(client, "admin", "GET", f"/users/{id}")
    assert (now["display_name"], set(now["roles"]), now["log_sample"]) == ("Ann", {"RequestViewer", "StandardUser"}, 0.125)  # fmt: skip
    assert send(client, "admin", page, "delete", confirm="Ann").status_code == 422
    assert send(client, "admin", page, "delete", confirm=name).status_code == 303
    assert forms.get(client, "admin", page).status_code == 404


def test_one_changes_oneself_but_not_ones_roles(client: FlaskClient, cast: Cast) -> None:
    page = f"/people/{cast['alice']}"
    assert 'name="roles"' not in forms.get(client, "alice", f"{page}/edit").text
    assert send(client, "alice", page, "edit", display_name="Alice").status_code == 303
    assert send(client, "alice", page, "edit", **{"roles": "PlatformManager"}).status_code == 403
    assert "PlatformManager" not in api(client, "admin", "GET", f"/users/{cast['alice']}")["roles"]


def test_why_a_model_may_be_called_is_said_and_why_not(client: FlaskClient, cast: Cast, group: dict[str, Any], model: tuple[UUID, str]) -> None:  # fmt: skip
    id, alias = model
    page = f"/people/{cast['bob']}"
    shown = forms.get(client, "admin", f"{page}/access?all=true&q={alias}").text
    assert "may not call it" in shown
    assert "No model matches" in forms.get(client, "admin", f"{page}/access?q={alias}").text
    # Both ways of putting somebody into a group, and of opening a model.
    of_group = f"/people/groups/{group['id']}"
    assert send(client, "admin", of_group, "models", alias=alias).status_code == 303
    assert send(client, "admin", page, "groups", group=group["name"]).status_code == 303
    for who in ("admin", "bob"):
        text = re.sub(r"<[^>]+>", "", forms.get(client, who, f"{page}/access?q={alias}").text)
        assert f"through group {group['name']}" in text
    assert alias in forms.get(client, "admin", f"{of_group}?show=models").text
    assert "bob@cast.example" in forms.get(client, "admin", of_group).text
    assert send(client, "admin", page, f"groups/{group['id']}/leave").status_code == 303
    assert "may not call it" in forms.get(client, "admin", f"{page}/access?all=true&q={alias}").text
    client.post(f"/admin/api/v1/groups/{NIL}/models/{id}", headers=Cast.headers("admin"))
    assert "which everybody is in" in forms.get(client, "bob", f"{page}/access?q={alias}").text


def test_who_may_not_read_all_models_does_not_learn_of_others(client: FlaskClient, cast: Cast, model: tuple[UUID, str]) -> None:  # fmt: skip
    for who in ("alice", "biller"):
        page = forms.get(client, who, f"/people/{cast['alice']}/access?all=true&q={model[1]}").text
        assert "may not call it" not in page
        assert "No model matches" in page


def test_seeing_as_somebody_tells_what_they_find_and_acts_as_nobody(client: FlaskClient, cast: Cast, organization: UUID) -> None:  # fmt: skip
    theirs = {link.strip() for link in re.findall(r"</svg>\s*([A-Z][^<]+)</li>", forms.get(client, "admin", f"/people/{cast['alice']}/see-as").text)}  # fmt: skip
    own = forms.get(client, "alice", "/keys").text
    bar = set(re.findall(r"data-go=.*?<span>([^<]+)</span>", own))
    assert theirs == bar
    page = forms.get(client, "admin", f"/people/{cast['alice']}/see-as").text
    assert "nothing is done in their name" in page
    assert str(organization) in page
    assert 'method="post" action="/people' not in page


def test_sign_ins_are_ended(client: FlaskClient, cast: Cast, sql: Sql) -> None:
    id = insert_user(sql)
    for browser in ("Firefox <b>", "Chrome"):
        sql.execute("INSERT INTO login_sessions (user_id, token_hash, expires_at, user_agent) VALUES (%s, sha256(%s::bytea), now() + interval '1 hour', %s)", (id, unique(), browser))  # fmt: skip
    page = f"/people/{id}"
    shown = forms.get(client, "admin", page).text
    assert "Firefox &lt;b&gt;" in shown
    one = re.findall(rf'action="{page}/(sessions/[0-9a-f-]+/end)"', shown)[0]
    assert send(client, "admin", page, one).status_code == 303
    assert len(re.findall(rf'action="{page}/sessions/[0-9a-f-]+/end"', forms.get(client, "admin", page).text)) == 1  # fmt: skip
    assert send(client, "admin", page, "sessions/end").status_code == 303
    assert "No browser is signed in" in forms.get(client, "admin", page).text


# --- groups


def test_a_group_is_made_renamed_filled_and_deleted(client: FlaskClient, cast: Cast) -> None:
    name = unique(HOSTILE)
    made = forms.submit(client, "admin", "/people/groups/new", "/people/groups/new", {"name": name})
    assert made.status_code == 303
    page = made.headers["Location"]
    again = forms.submit(client, "admin", "/people/groups/new", "/people/groups/new", {"name": name})  # fmt: skip
    assert "with this name already" in again.text
    assert "<img src=x" not in forms.get(client, "admin", page).text
    assert send(client, "admin", page, "members", person="nobody@x.example").status_code == 422
    assert send(client, "admin", page, "members", person="ALICE@cast.example").status_code == 303
    assert "alice@cast.example" in forms.get(client, "admin", f"{page}?q=alice").text
    assert send(client, "admin", page, f"members/{cast['alice']}/remove").status_code == 303
    assert "Nobody is in this group" in forms.get(client, "admin", page).text
    renamed = unique("renamed")
    assert send(client, "admin", page, "edit", name=renamed, description="d").status_code == 303
    assert send(client, "admin", page, "edit", name="", description="").status_code == 422
    assert send(client, "admin", page, "delete", confirm=name).status_code == 422
    assert send(client, "admin", page, "delete", confirm=renamed).status_code == 303
    assert forms.get(client, "admin", page).status_code == 404


def test_everyone_is_explained_and_cannot_be_left(client: FlaskClient, cast: Cast) -> None:
    page = f"/people/groups/{NIL}"
    shown = forms.get(client, "admin", page).text
    assert "Everybody is in Everyone" in shown
    assert "alice@cast.example" in shown
    assert "/remove" not in shown
    fields = {"_token": forms.token(forms.get(client, "admin", "/people/new").text)}
    refused = client.post(f"{page}/members/{cast['alice']}/remove", data=fields, headers=Cast.headers("admin"))  # fmt: skip
    assert refused.status_code == 403


# --- organisations


def test_members_are_given_roles_and_removed(client: FlaskClient, cast: Cast, organization: UUID) -> None:  # fmt: skip
    page = f"/people/organizations/{organization}"
    assert send(client, "bob", page, f"members/{cast['alice']}/role", role="admin").status_code == 303  # fmt: skip
    last = send(client, "bob", page, f"members/{cast['bob']}/role", role="member")
    assert last.status_code == 422
    assert "Cannot demote the last owner" in last.text
    assert send(client, "admin", page, "members", person="viewer@cast.example", member_role="member").status_code == 303  # fmt: skip
    assert "viewer@cast.example" in forms.get(client, "bob", page).text
    assert send(client, "bob", page, f"members/{cast['viewer']}/remove").status_code == 303
    assert send(client, "alice", page, "leave").status_code == 303
    members = api(client, "bob", "GET", f"/organizations/{organization}/members")
    assert [member["user"]["id"] for member in members] == [str(cast["bob"])]


def test_an_organisation_is_made_and_deleted(client: FlaskClient, cast: Cast) -> None:
    name = f"{unique('org')}.example"
    fields = {"name": name, "email": "office@x.example"}
    made = forms.submit(client, "viewer", "/people/organizations/new", "/people/organizations/new", fields)  # fmt: skip
    assert made.status_code == 303
    page = made.headers["Location"]
    assert send(client, "viewer", page, "delete", confirm=name).status_code == 403
    assert send(client, "admin", page, "delete", confirm="x").status_code == 422
    assert send(client, "admin", page, "delete", confirm=name).status_code == 303
    assert forms.get(client, "viewer", page).status_code == 404


# --- invitations


def invited(client: FlaskClient, sql: Sql, organization: UUID, email: str) -> str:
    page = f"/people/organizations/{organization}"
    sent = send(client, "bob", page, "invitations", email=email, role="member")
    assert sent.status_code == 303
    return token_for(sql, email)


def answer(client: FlaskClient, who: str, token: str, how: str) -> TestResponse:
    return forms.submit(client, who, "/keys/new", f"/org-invite/{how}", {"token": token})


def test_an_invitation_is_sent_seen_and_accepted(client: FlaskClient, cast: Cast, sql: Sql, organization: UUID) -> None:  # fmt: skip
    token = invited(client, sql, organization, "viewer@cast.example")
    of_it = forms.get(client, "bob", f"/people/organizations/{organization}").text
    assert "viewer@cast.example" in of_it
    assert "not answered yet" in of_it
    page = forms.get(client, "viewer", f"/org-invite?token={token}")
    assert page.status_code == 200
    assert "bob invites you to" in page.text
    done = answer(client, "viewer", token, "accept")
    assert done.headers["Location"] == f"/people/organizations/{organization}"
    assert forms.get(client, "viewer", done.headers["Location"]).status_code == 200
    used = forms.get(client, "viewer", f"/org-invite?token={token}")
    assert used.status_code == 404
    assert "answered already" in used.text
    assert answer(client, "viewer", token, "accept").status_code == 404


def test_an_invitation_is_declined(client: FlaskClient, cast: Cast, sql: Sql, organization: UUID) -> None:  # fmt: skip
    token = invited(client, sql, organization, "viewer@cast.example")
    assert answer(client, "viewer", token, "decline").status_code == 303
    assert forms.get(client, "viewer", f"/people/organizations/{organization}").status_code == 404


def test_somebody_else_is_told_so_and_cannot_answer(client: FlaskClient, cast: Cast, sql: Sql, organization: UUID) -> None:  # fmt: skip
    token = invited(client, sql, organization, "viewer@cast.example")
    page = forms.get(client, "biller", f"/org-invite?token={token}").text
    assert "sent to another e-mail address than yours (biller@cast.example)" in page
    assert "viewer@" not in page
    assert "/org-invite/accept" not in page
    refused = answer(client, "biller", token, "accept")
    assert refused.status_code == 422
    assert "sent to another e-mail address" in refused.text


def test_an_invitation_that_ran_out_says_what_to_do(client: FlaskClient, cast: Cast, sql: Sql, organization: UUID) -> None:  # fmt: skip
    token = invited(client, sql, organization, "viewer@cast.example")
    sql.execute("UPDATE user_organizations SET expires_at = now() - interval '1 hour' WHERE organization_id = %s AND status = 'pending'", [organization])  # fmt: skip
    page = forms.get(client, "viewer", f"/org-invite?token={token}")
    assert page.status_code == 400
    assert "has run out" in page.text
    of_it = f"/people/organizations/{organization}"
    shown = forms.get(client, "bob", of_it).text
    assert "expired" in shown
    again = re.findall(rf'action="{of_it}/(invitations/[0-9a-f-]+/resend)"', shown)[0]
    assert send(client, "bob", of_it, again).status_code == 303
    assert forms.get(client, "viewer", f"/org-invite?token={token}").status_code == 404
    assert forms.get(client, "viewer", f"/org-invite?token={token_for(sql, 'viewer@cast.example')}").status_code == 200  # fmt: skip
    assert send(client, "bob", of_it, again.replace("resend", "withdraw")).status_code == 303
    assert "Nobody is invited" in forms.get(client, "bob", of_it).text


def test_who_is_not_signed_in_is_sent_in_and_comes_back(client: FlaskClient, cast: Cast) -> None:
    page = client.get("/org-invite?token=a%26b")
    assert page.status_code == 200
    assert 'href="/sign-in?next=' in page.text
    assert 'href="/register?next=' in page.text
    assert "token%3Da%2526b" in page.text
    assert client.post("/org-invite/accept", data={"token": "x"}).status_code in (303, 403)


@pytest.mark.parametrize("token", ["", "x", "%00", "a" * 5000, "%F0%9F%98%80"])
def test_a_link_that_leads_nowhere_says_so(client: FlaskClient, cast: Cast, token: str) -> None:
    page = forms.get(client, "alice", f"/org-invite?token={token}")
    assert page.status_code in (400, 404)
    assert "leads to no invitation" in page.text or "cannot be used" in page.text
