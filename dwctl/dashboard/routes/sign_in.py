"""Signing in and out of doors: the pages for whoever is not signed in yet, or has forgotten how."""

from __future__ import annotations

from typing import Any

from flask import Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.access import guard
from dwctl.dashboard import forms, operations, pages
from dwctl.dashboard.forms import Form
from dwctl.errors import Unauthenticated
from dwctl.identity.routes import resets, sessions
from dwctl.web import current

blueprint = pages.screen("sign_in", open_because="whoever wants in is not signed in yet")


@blueprint.get("/sign-in")
def show() -> AnyResponse:
    """The form; whoever is signed in already (a proxy may do that) goes on to where they wanted."""
    if _is_signed_in():
        return pages.done(_next())
    return _form()


@blueprint.post("/sign-in")
def sign_in() -> AnyResponse:
    """Start a session, and go on."""
    given = {name: request.form.get(name, "") for name in ("email", "password")}
    _, form = forms.submit(lambda: operations.run(sessions.login, body=given))
    return _form(form) if form.is_wrong else pages.done(_next())


@blueprint.get("/register")
def show_registration() -> AnyResponse:
    """The form by which people make their own account, where they may."""
    return _registration()


@blueprint.post("/register")
def register() -> AnyResponse:
    """Make the account, sign in, and go on."""
    body = forms.body(operations.of(sessions.register).body)
    _, form = forms.submit(lambda: operations.run(sessions.register, body=body))
    return _registration(form) if form.is_wrong else pages.done(_next(), "Welcome. This is your account.")  # fmt: skip


@blueprint.get("/forgot-password")
def show_forgotten() -> Response:
    """The form that asks for a link."""
    return _forgotten()


@blueprint.post("/forgot-password")
def ask_for_link() -> Response:
    """Ask for it; the answer is the same for every address."""
    given = {"email": request.form.get("email", "")}
    answer, form = forms.submit(lambda: operations.run(resets.request_reset, body=given))
    return _forgotten(form, said="" if form.is_wrong else answer["message"])


@blueprint.get("/reset-password")
def show_reset() -> Response:
    """Where the link of the mail leads."""
    return _reset()


@blueprint.post("/reset-password")
def reset() -> Response:
    """Set the new password."""
    given = request.form
    if given.get("new_password") != given.get("again"):
        return _reset(Form(errors={"again": "The two passwords are different."}))
    _, form = forms.submit(
        lambda: resets.confirm_with(
            given.get("id", ""), given.get("token", "")[:200], given.get("new_password", "")
        )
    )
    return _reset(form, is_done=not form.is_wrong)


def _form(form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    native = current.settings().auth.native
    if form.is_wrong:
        form = _without_secrets(form)
    return pages.render(
        "sign_in/page.html",
        title="Sign in",
        status=401 if form.is_wrong else 200,
        form=form,
        by_password=native.enabled,
        by_proxy=current.settings().auth.proxy_header.enabled,
        may_register=native.enabled and native.allow_registration,
        is_over="over" in request.args,
        next=request.values.get("next", ""),
    )


def _registration(form: Form = Form()) -> Response:  # noqa: B008
    native = current.settings().auth.native
    return pages.render(
        "sign_in/register.html",
        title="Make an account",
        status=422 if form.is_wrong else 200,
        form=_without_secrets(form),
        may_register=native.enabled and native.allow_registration,
        password=native.password,
        next=request.values.get("next", ""),
    )


def _forgotten(form: Form = Form(), said: str = "") -> Response:  # noqa: B008
    return pages.render(
        "sign_in/forgotten.html",
        title="Forgotten password",
        status=422 if form.is_wrong else 200,
        form=form,
        said=said,
        by_password=current.settings().auth.native.enabled,
    )


def _reset(form: Form = Form(), *, is_done: bool = False) -> Response:  # noqa: B008
    return pages.render(
        "sign_in/reset.html",
        title="Your password is changed" if is_done else "Choose a new password",
        status=400 if form.is_wrong else 200,
        form=_without_secrets(form),
        is_done=is_done,
        id=request.values.get("id", ""),
        token=request.values.get("token", ""),
        password=current.settings().auth.native.password,
    )


def _without_secrets(form: Form) -> Form:
    """What was typed stays in the fields, but for passwords."""
    kept: dict[str, Any] = {
        name: value for name, value in form.values.items() if "password" not in name
    }
    return Form(kept, form.errors, form.problem)


def _is_signed_in() -> bool:
    try:
        guard.identify()
    except Unauthenticated:
        return False
    return True


def _next() -> str:
    """Where to go on: a page of ours alone, whatever the address says."""
    wanted = request.values.get("next", "")
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    if not is_ours or any(ord(letter) < 32 for letter in wanted):
        return url_for("ui_overview.show")
    return request.script_root + wanted
