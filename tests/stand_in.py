"""Signs in by the trusted header while the identity room has no authentication yet."""

from flask import Flask, Request
from sqlalchemy import text

from dwctl.access import guard
from dwctl.access.caller import Caller, Membership
from dwctl.db import db

WIRE = {
    "PLATFORMMANAGER": "PlatformManager",
    "STANDARDUSER": "StandardUser",
    "REQUESTVIEWER": "RequestViewer",
    "BILLINGMANAGER": "BillingManager",
    "BATCHAPIUSER": "BatchAPIUser",
}


def install(app: Flask) -> None:
    if "dwctl.resolver" not in app.extensions:
        guard.init_app(app, resolve)


def resolve(request: Request) -> Caller | None:
    row = db.session.execute(
        text("SELECT id, username, email, is_admin FROM users WHERE external_user_id = :x"),
        {"x": request.headers.get("x-doubleword-user")},
    ).first()
    if row is None:
        return None
    roles = db.session.execute(
        text("SELECT role::text FROM user_roles WHERE user_id = :id"), {"id": row.id}
    ).scalars()
    member = db.session.execute(
        text(
            "SELECT organization_id, role FROM user_organizations WHERE user_id = :id AND status = 'active'"
        ),
        {"id": row.id},
    ).all()
    active = request.headers.get("x-organization-id")
    memberships = tuple(Membership(m.organization_id, "org", m.role) for m in member)
    return Caller(
        row.id,
        row.username,
        row.email,
        frozenset(WIRE[r] for r in roles),
        row.is_admin,
        "header",
        memberships,
        next((m.organization_id for m in memberships if str(m.organization_id) == active), None),
    )
