"""Groups: who is in them, and which models they open."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.catalog.routes import grants, models
from dwctl.dashboard import forms, lookups, operations, pages
from dwctl.dashboard.forms import Form
from dwctl.dashboard.routes.people import blueprint
from dwctl.identity.routes import groups as api
from dwctl.identity.tables import NIL
from dwctl.web import cursors

_TAKEN = {"name": "There is a group with this name already."}


@blueprint.get("/people/groups")
def groups() -> Response:
    """All groups."""
    search = request.args.get("q") or None
    query = {"search": search, "limit": "50"}
    found = operations.run(api.list_groups, query=query)
    return pages.render(
        "people/groups.html",
        title="People",
        fragment="people/_groups.html",
        search=search,
        groups=found["data"],
        total=found["total_count"],
        everyone=str(NIL),
        further=cursors.further(),
        call=operations.snippet(api.list_groups, query=query),
    )


@blueprint.get("/people/groups/new")
def new_group() -> Response:
    """The form of a group to be made."""
    return _making()


@blueprint.post("/people/groups/new")
def make_group() -> AnyResponse:
    """Make it."""
    body = forms.body(operations.of(api.create_group).body)
    made, form = forms.submit(lambda: operations.run(api.create_group, body=body), taken=_TAKEN)
    if form.is_wrong:
        return _making(form)
    return pages.done(url_for("ui_people.group", group_id=made["id"]), "Group created.")


@blueprint.get("/people/groups/<id:group_id>")
def group(group_id: UUID) -> Response:
    """One group: its members, or with `?show=models` the models that it opens."""
    return _page(group_id)


@blueprint.post("/people/groups/<id:group_id>/edit")
def save_group(group_id: UUID) -> AnyResponse:
    """Rename or describe it."""
    body = forms.body(operations.of(api.update_group).body)
    found = operations.run(api.get_group, group_id=group_id)
    # Emptied: the API takes null for "unchanged".
    for name in ("name", "description"):
        if name in request.form and request.form[name] != (found[name] or ""):
            body[name] = request.form[name]
    return _changed(
        group_id,
        lambda: operations.run(api.update_group, body=body, group_id=group_id),
        "Changed.",
        seen=_seen(found),
    )


@blueprint.post("/people/groups/<id:group_id>/members")
def add_member(group_id: UUID) -> AnyResponse:
    """Put somebody into it, by e-mail or name."""

    def add() -> None:
        user_id = lookups.person(request.form.get("person", "").strip())
        operations.run(api.add_group_user, group_id=group_id, user_id=user_id)

    return _changed(group_id, add, "Added to the group.")


@blueprint.post("/people/groups/<id:group_id>/members/<id:user_id>/remove")
def remove_member(group_id: UUID, user_id: UUID) -> AnyResponse:
    """Take somebody out of it."""

    def remove() -> None:
        operations.run(api.remove_group_user, group_id=group_id, user_id=user_id)

    return _changed(group_id, remove, "Removed from the group.")


@blueprint.post("/people/groups/<id:group_id>/models")
def open_model(group_id: UUID) -> AnyResponse:
    """Open a model to it, by alias."""

    def grant() -> None:
        model_id = lookups.model(request.form.get("alias", "").strip())
        operations.run(grants.grant_model, group_id=group_id, deployment_id=model_id)

    return _changed(group_id, grant, "Opened to the group.", show="models")


@blueprint.post("/people/groups/<id:group_id>/models/<id:model_id>/close")
def close_model(group_id: UUID, model_id: UUID) -> AnyResponse:
    """Take a model from it."""

    def revoke() -> None:
        operations.run(grants.revoke_model, group_id=group_id, deployment_id=model_id)

    return _changed(group_id, revoke, "Taken from the group.", show="models")


@blueprint.post("/people/groups/<id:group_id>/delete")
def delete_group(group_id: UUID) -> AnyResponse:
    """Delete it, where its name was typed."""
    found = operations.run(api.get_group, group_id=group_id)
    form = forms.confirmed(found["name"])
    if not form.is_wrong:
        _, form = forms.submit(lambda: operations.run(api.delete_group, group_id=group_id))
    if form.is_wrong:
        return _page(group_id, form)
    return pages.done(url_for("ui_people.groups"), f"Group {found['name']} deleted.")


def _changed(
    group_id: UUID, change: Any, said: str, *, show: str | None = None, seen: str | None = None
) -> AnyResponse:
    _, form = forms.submit(change, seen=seen)
    if form.is_wrong:
        return _page(group_id, form, show=show)
    return pages.done(url_for("ui_people.group", group_id=group_id, show=show), said)


def _page(group_id: UUID, form: Form = Form(), *, show: str | None = None) -> Response:  # noqa: B008 - it is frozen
    pages.stands_at(url_for("ui_people.group", group_id=group_id), show=show)
    found = operations.run(api.get_group, group_id=group_id)
    search = request.args.get("q") or None
    shows_models = (show or request.args.get("show")) == "models"
    if shows_models:
        query = {"group": str(group_id), "search": search, "limit": "50", "sort": "alias"}
        listed = operations.run(models.list_models, query=query)
        call = operations.snippet(grants.list_models_of_group, group_id=group_id)
    else:
        query = {"search": search, "limit": "50"}
        listed = operations.run(api.list_group_members, query=query, group_id=group_id)
        call = operations.snippet(api.list_group_members, group_id=group_id)
    return pages.render(
        "people/group.html",
        title=found["name"],
        status=422 if form.is_wrong else 200,
        form=form,
        group=found,
        seen=_seen(found),
        is_everyone=group_id == NIL,
        shows_models=shows_models,
        listed=listed["data"],
        total=listed["total_count"],
        further=cursors.further(),
        search=search,
        call=call,
    )


def _seen(group: dict[str, Any]) -> str:
    return forms.seen(operations.of(api.update_group).body, group)


def _making(form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    operations.insist(api.create_group)
    return pages.render(
        "people/new_group.html",
        title="Create a group",
        status=422 if form.is_wrong else 200,
        form=form,
        call=operations.snippet(api.create_group, body={"name": "research"}),
    )
