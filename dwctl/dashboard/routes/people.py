"""People: users, and who has access to what and why. Groups and organisations are modules of their own on the same blueprint."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.access import guard
from dwctl.catalog.routes.usable import list_usable_models
from dwctl.dashboard import forms, gone, keys, lookups, operations, pages, seen_as
from dwctl.dashboard.forms import Form
from dwctl.errors import NotFound
from dwctl.identity.routes import api_keys, groups, login_sessions, users
from dwctl.roles import ROLES
from dwctl.web import cursors

blueprint = pages.screen("people")

ROLE_WORDS = {
    "PlatformManager": "manages everything but raw request logs",
    "StandardUser": "the base role, which everybody has",
    "RequestViewer": "reads the request log and analytics",
    "BillingManager": "credits, and the people to grant them to",
    "BatchAPIUser": "own files and batches",
    "ConnectionsUser": "own connections to sources",
}


@blueprint.get("/people")
def show() -> AnyResponse:
    """Users. Whoever manages an organisation and may not read users comes to their organisations."""
    if not operations.may(users.list_users) and guard.identify().memberships:
        return pages.done(url_for("ui_people.organizations"))
    search = request.args.get("q") or None
    query = {"search": search, "limit": "50", "include": "groups,billing"}
    found = operations.run(users.list_users, query=query)
    return pages.render(
        "people/page.html",
        title="People",
        fragment="people/_users.html",
        search=search,
        users=found["data"],
        total=found["total_count"],
        further=cursors.further(),
        may_make=operations.may(users.create_user),
        call=operations.snippet(users.list_users, query=query),
    )


@blueprint.get("/people/new")
def new() -> Response:
    """The form of a person to be made."""
    return _making()


@blueprint.post("/people/new")
def make() -> AnyResponse:
    """Make them."""
    body = forms.body(operations.of(users.create_user).body)
    made, form = forms.submit(lambda: operations.run(users.create_user, body=body))
    if form.is_wrong:
        return _making(form)
    return pages.done(url_for("ui_people.detail", user_id=made["id"]), "User created.")


@blueprint.get("/people/<id:user_id>")
def detail(user_id: UUID) -> Response:
    """One person: who they are, what they may call and why, where they are signed in."""
    try:
        return _page(user_id)
    except NotFound:
        above = (url_for("ui_people.show"), "People")
        return gone.page(
            str(user_id), "There is no account with this id any more.", above=above, of=user_id
        )


@blueprint.get("/people/<id:user_id>/access")
def access(user_id: UUID) -> Response:
    """All models that an account may call, and why; on request those that it may not."""
    asked = {"search": request.args.get("q"), "all": request.args.get("all")}
    query = {"limit": "50", **{name: value or None for name, value in asked.items()}}
    account = operations.run(users.get_user, user_id=user_id)
    found = operations.run(list_usable_models, query=query, user_id=user_id)
    return pages.render(
        "people/access.html",
        title=f"What {_name(account)} may call",
        fragment="people/_access.html",
        account=account,
        asked=asked,
        models=found["data"],
        total=found["total_count"],
        further=cursors.further(),
        limits_of=keys.limits,
        sees_others=operations.may(groups.list_groups),
        call=operations.snippet(list_usable_models, query=query, user_id=user_id),
    )


@blueprint.get("/people/<id:user_id>/see-as")
def see_as(user_id: UUID) -> Response:
    """What this person finds here. It only tells: nothing is done in their name."""
    operations.insist(users.list_users)
    account = operations.run(
        users.get_user, query={"include": "groups,organizations"}, user_id=user_id
    )
    somebody = seen_as.caller(account)
    found = operations.run(list_usable_models, query={"limit": "50"}, user_id=user_id)
    return pages.render(
        "people/see_as.html",
        title=f"As {_name(account)} sees it",
        account=account,
        screens=seen_as.screens(somebody),
        reach=seen_as.reach(somebody),
        models=found["data"],
        total=found["total_count"],
        limits_of=keys.limits,
    )


@blueprint.get("/people/<id:user_id>/edit")
def edit(user_id: UUID) -> Response:
    """The form of a person's details and roles."""
    return _editing(user_id)


@blueprint.post("/people/<id:user_id>/edit")
def save(user_id: UUID) -> AnyResponse:
    """Change them."""
    operations.insist(users.update_user, user_id=user_id)
    account = operations.run(users.get_user, user_id=user_id)
    schema = operations.of(users.update_user).body
    body = forms.body(schema)
    forms.read_share(body, account["log_sample"])
    _, form = forms.submit(
        lambda: operations.run(users.update_user, body=body, user_id=user_id),
        seen=forms.seen(schema, account),
    )
    if form.is_wrong:
        return _editing(user_id, form)
    return pages.done(url_for("ui_people.detail", user_id=user_id), "Changed.")


@blueprint.post("/people/<id:user_id>/groups")
def join_group(user_id: UUID) -> AnyResponse:
    """Put them into a group, by its name."""
    operations.insist(users.add_user_group, user_id=user_id)

    def join() -> None:
        group_id = lookups.group(request.form.get("group", "").strip())
        operations.run(users.add_user_group, user_id=user_id, group_id=group_id)

    _, form = forms.submit(join)
    return _page(user_id, form) if form.is_wrong else _back(user_id, "Added to the group.")


@blueprint.post("/people/<id:user_id>/groups/<id:group_id>/leave")
def leave_group(user_id: UUID, group_id: UUID) -> AnyResponse:
    """Take them out of a group."""
    _, form = forms.submit(
        lambda: operations.run(users.remove_user_group, user_id=user_id, group_id=group_id)
    )
    return _page(user_id, form) if form.is_wrong else _back(user_id, "Removed from the group.")


@blueprint.post("/people/<id:user_id>/sessions/end")
def end_sessions(user_id: UUID) -> AnyResponse:
    """Sign them out everywhere."""
    operations.run(login_sessions.end_sessions, user_id=user_id)
    return _back(user_id, "Signed out everywhere.")


@blueprint.post("/people/<id:user_id>/sessions/<id:session_id>/end")
def end_session(user_id: UUID, session_id: UUID) -> AnyResponse:
    """Sign them out in one browser."""
    operations.run(login_sessions.end_session, user_id=user_id, session_id=session_id)
    return _back(user_id, "Signed out there.")


@blueprint.post("/people/<id:user_id>/delete")
def delete(user_id: UUID) -> AnyResponse:
    """Delete the account, where its name was typed."""
    operations.insist(users.delete_user, user_id=user_id)
    account = operations.run(users.get_user, user_id=user_id)
    form = forms.confirmed(account["username"])
    if not form.is_wrong:
        _, form = forms.submit(lambda: operations.run(users.delete_user, user_id=user_id))
    if form.is_wrong:
        return _page(user_id, form)
    return pages.done(url_for("ui_people.show"), f"{account['username']} deleted.")


def _page(user_id: UUID, form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    pages.stands_at(url_for("ui_people.detail", user_id=user_id))
    account = operations.run(
        users.get_user, query={"include": "groups,billing,organizations"}, user_id=user_id
    )
    sessions = None
    if operations.may(login_sessions.list_sessions, user_id=user_id):
        sessions = operations.run(
            login_sessions.list_sessions, query={"limit": "20"}, user_id=user_id
        )
    may_manage = operations.may(users.add_user_group, user_id=user_id)
    models = operations.run(list_usable_models, query={"limit": "20"}, user_id=user_id)
    return pages.render(
        "people/detail.html",
        title=_name(account),
        status=422 if form.is_wrong else 200,
        form=form,
        account=account,
        role_words=ROLE_WORDS,
        sessions=sessions,
        models=models["data"],
        total_models=models["total_count"],
        may_manage=may_manage,
        may_update=operations.may(users.update_user, user_id=user_id),
        may_see_keys=operations.may(api_keys.list_api_keys, user_id=user_id),
        groups=_group_names() if may_manage else [],
        limits_of=keys.limits,
        call=operations.snippet(
            users.get_user, query={"include": "groups,billing"}, user_id=user_id
        ),
    )


def _making(form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    operations.insist(users.create_user)
    body = {"username": "ada", "email": "ada@example.org", "roles": ["StandardUser"]}
    return pages.render(
        "people/new.html",
        title="Create a user",
        status=422 if form.is_wrong else 200,
        form=form,
        roles=ROLES,
        role_words=ROLE_WORDS,
        chosen=request.form.getlist("roles") or ["StandardUser"],
        call=operations.snippet(users.create_user, body=body),
    )


def _editing(user_id: UUID, form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    operations.insist(users.update_user, user_id=user_id)
    account = operations.run(users.get_user, user_id=user_id)
    return pages.render(
        "people/edit.html",
        title=f"Edit {_name(account)}",
        status=422 if form.is_wrong else 200,
        form=form,
        account=account,
        seen=forms.seen(operations.of(users.update_user).body, account),
        share=forms.shown_share(account["log_sample"]),
        roles=ROLES,
        role_words=ROLE_WORDS,
        chosen=request.form.getlist("roles") if form.is_wrong else account["roles"],
        may_give_roles=operations.may(users.create_user),
        may_find_people=operations.may(users.list_users),
        call=operations.snippet(users.update_user, body={"display_name": "Ada"}, user_id=user_id),
    )


def _back(user_id: UUID, said: str) -> AnyResponse:
    return pages.done(url_for("ui_people.detail", user_id=user_id), said)


def _name(account: dict[str, Any]) -> str:
    name: str = account["display_name"] or account["username"]
    return name


def _group_names() -> list[str]:
    """What the field for a group offers; any other name can be typed."""
    found = operations.run(groups.list_groups, query={"limit": "100"})["data"]
    return [group["name"] for group in found]
