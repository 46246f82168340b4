"""What the audit log says of organisations: each change, by whom, without what lets anybody in."""

import psycopg
from flask import Flask

from dwctl.identity.tokens import fingerprint
from tests.identity.doors import Doors, unique
from tests.organizations.company import person, token_for


def test_each_change_is_written_down(call: Doors, app: Flask, sql: psycopg.Connection) -> None:
    ann, ben, cy = (person(app, sql) for _ in range(3))
    id = ann("POST", "/organizations", {"name": unique("o"), "email": "x@y.example"}).json["id"]
    path = f"/organizations/{id}"
    ann("PATCH", path, {"display_name": "O"})
    invite = ann("POST", f"{path}/invites", {"email": ben.email}).json["id"]
    ann("POST", f"{path}/invites/{invite}/resend")
    token = token_for(sql, ben.email)
    ben("POST", f"/organizations/invites/{token}/accept")
    ann("POST", f"{path}/members", {"user_id": str(cy.id)})
    ann("PATCH", f"{path}/members/{cy.id}", {"role": "admin"})
    ann("DELETE", f"{path}/members/{cy.id}")
    ben("POST", f"{path}/leave")
    call("admin", "DELETE", path)
    rows = sql.execute(
        "SELECT action, actor_name, coalesce(before::text, '') || coalesce(after::text, '') FROM audit_log"
        " WHERE organization_id = %s AND action NOT LIKE '%%role%%' ORDER BY id",
        (id,),
    ).fetchall()
    by = {name: sql.execute("SELECT username FROM users WHERE id = %s", (who.id,)).fetchone()[0] for name, who in (("ann", ann), ("ben", ben))}  # type: ignore[index]  # fmt: skip
    assert [(action.partition(".")[2], actor) for action, actor, _ in rows] == [
        ("created", by["ann"]),
        ("member_added", by["ann"]),
        ("updated", by["ann"]),
        ("invited", by["ann"]),
        ("invitation_changed", by["ann"]),
        ("member_added", by["ben"]),
        ("member_added", by["ann"]),
        ("member_changed", by["ann"]),
        ("member_changed", by["ann"]),
        ("member_removed", by["ann"]),
        ("member_removed", by["ben"]),
        ("member_removed", "admin"),
        ("deleted", "admin"),
    ]
    assert not any(fingerprint(token) in said for *_, said in rows)
