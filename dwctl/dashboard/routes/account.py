"""One's own account: the password, where one is signed in, and in whose name one acts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.access import guard
from dwctl.dashboard import forms, operations, pages
from dwctl.dashboard.forms import Form
from dwctl.identity.routes import login_sessions, sessions, settings, users
from dwctl.web import current, cursors

blueprint = pages.screen("account")


@blueprint.get("/account")
def show() -> Response:
    """Who one is here, and where one is signed in."""
    return _page()


@blueprint.post("/account/password")
def change_password() -> AnyResponse:
    """Change it; every other sign-in ends."""
    given = request.form
    if given.get("new_password") != given.get("again"):
        return _page(Form(errors={"again": "The two passwords are different."}))
    body = {name: given.get(name, "") for name in ("current_password", "new_password")}
    _, form = forms.submit(lambda: operations.run(sessions.change_password, body=body))
    if form.is_wrong:
        return _page(Form(errors=form.errors, problem=form.problem))
    return pages.done(url_for("ui_account.show"), "Password changed. You are signed out everywhere else.")  # fmt: skip


@blueprint.post("/account/sessions/<id:session_id>/end")
def end_session(session_id: UUID) -> AnyResponse:
    """Sign out in one browser."""
    operations.run(login_sessions.end_session, user_id="current", session_id=session_id)
    return pages.done(url_for("ui_account.show"), "Signed out there.")


@blueprint.post("/account/sessions/end-others")
def end_others() -> AnyResponse:
    """Sign out everywhere but here."""
    operations.run(login_sessions.end_sessions, query={"others": "true"}, user_id="current")
    return pages.done(url_for("ui_account.show"), "Signed out everywhere else.")


@blueprint.post("/account/act-as")
def act_as() -> AnyResponse:
    """Act in the name of an organisation, or of oneself again."""
    chosen = request.form.get("organization_id") or None
    operations.run(settings.choose_organization, body={"organization_id": chosen})
    return pages.done(url_for("ui_overview.show"))


@blueprint.post("/account/sign-out")
def sign_out() -> AnyResponse:
    """End this sign-in."""
    operations.run(sessions.logout)
    return pages.done(url_for("ui_sign_in.show"))


def _page(form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    has_password = current.settings().auth.native.enabled
    found: dict[str, Any] = {"data": []}
    if has_password:
        found = operations.run(
            login_sessions.list_sessions, query={"limit": "50"}, user_id="current"
        )
    return pages.render(
        "account/page.html",
        title="Your account",
        status=422 if form.is_wrong else 200,
        form=form,
        me=operations.run(users.get_user, user_id="current"),
        signed_in_by=guard.identify().source,
        has_password=has_password,
        rule=current.settings().auth.native.password,
        sessions=found["data"],
        further=cursors.further(),
        call=operations.snippet(users.get_user, user_id="current"),
    )
