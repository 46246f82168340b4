"""API keys: made, used, limited, rotated, revoked."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from flask import Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.catalog.routes.usable import list_usable_models
from dwctl.dashboard import (
    breakdowns,
    calls,
    first_call,
    forms,
    gone,
    keys,
    operations,
    pages,
    ranges,
    snippets,
)
from dwctl.dashboard.forms import Form
from dwctl.errors import Invalid, NotFound
from dwctl.identity.routes import api_keys, found_api_keys, users
from dwctl.web import cursors

blueprint = pages.screen("keys")

PURPOSES = {"realtime": "calls to models", "platform": "the admin API"}
_TAKEN = {"name": "A key of this account has this name already. Choose another."}
_FILTERS = {"q": "search", "purpose": "purpose", "state": "state", "user": "user_id"}
"""Parameters of the address, and the API's names of them."""


@blueprint.get("/keys")
def show() -> Response:
    """The keys that one may see, filtered by the address."""
    asked = {name: request.args.get(name) or None for name in _FILTERS}
    query = {_FILTERS[name]: value for name, value in asked.items()} | {"limit": "50"}
    found = operations.run(found_api_keys.find_api_keys, query=query)
    return pages.render(
        "keys/page.html",
        title="API keys",
        fragment="keys/_list.html",
        keys=found["data"],
        total=found["total_count"],
        further=cursors.further(),
        asked=asked,
        is_filtered=any(asked.values()),
        accounts=_accounts(asked["user"]),
        sees_all=may_all(guard.identify(), Resource.API_KEYS, Operation.READ),
        state_of=keys.state,
        share_of=keys.cap_share,
        limits_of=keys.limits,
        call=operations.snippet(found_api_keys.find_api_keys, query=query),
    )


@blueprint.get("/keys/new")
def new() -> Response:
    """The form of a key to be made, for `?user=`: oneself where it is not said."""
    return _making(request.args.get("user") or str(guard.identify().owner_id))


@blueprint.post("/keys/new")
def make() -> AnyResponse:
    """Make it, and show its secret: here and never again."""
    owner = request.form.get("user", "")
    _insist_on_id(owner)
    body = keys.body(operations.of(api_keys.create_api_key).body)
    made, form = forms.submit(
        lambda: operations.run(api_keys.create_api_key, body=body, user_id=UUID(owner)),
        taken=_TAKEN,
    )
    return _making(owner, form) if form.is_wrong else _secret(made, "Key created")


@blueprint.get("/keys/<id:key_id>")
def detail(key_id: UUID) -> Response:
    """One key; where the log still names one that is shown nowhere, where its calls are."""
    try:
        return _page(key_id)
    except NotFound:
        words = "No key with this id is shown to you. It was revoked; or it is somebody else's; or it is one of dwctl's own (“Internal …”), under which batches and the playground are counted, and whose secret nobody has."
        above = (url_for("ui_keys.show"), "API keys")
        return gone.page(str(key_id), words, above=above, key=str(key_id))


@blueprint.get("/keys/<id:key_id>/edit")
def edit(key_id: UUID) -> Response:
    """The form of its name, limits and end."""
    return _editing(_found(key_id))


@blueprint.post("/keys/<id:key_id>/edit")
def save(key_id: UUID) -> AnyResponse:
    """Change it."""
    key = _found(key_id)
    body = keys.change(operations.of(api_keys.update_api_key).body, key)
    _, form = forms.submit(
        lambda: operations.run(api_keys.update_api_key, body=body, **_path(key)),
        taken=_TAKEN,
        seen=forms.seen(operations.of(api_keys.update_api_key).body, key),
    )
    if form.is_wrong:
        return _editing(key, form)
    return pages.done(url_for("ui_keys.detail", key_id=key_id), "Key changed.")


@blueprint.post("/keys/<id:key_id>/rotate")
def rotate(key_id: UUID) -> AnyResponse:
    """Give it a new secret, and show that: here and never again.

    The form says which secret it replaces, so that a page that is sent twice does not rotate twice.
    """
    key = _found(key_id)
    if request.form.get("replaces") != key["key_prefix"]:
        return _page(key_id, Form(problem="Nothing was changed: the secret is another one already."))  # fmt: skip
    body = forms.body(operations.of(api_keys.rotate_api_key).body)
    rotated, form = forms.submit(
        lambda: operations.run(api_keys.rotate_api_key, body=body, **_path(key))
    )
    return _page(key_id, form) if form.is_wrong else _secret(rotated, "New secret")


@blueprint.post("/keys/<id:key_id>/end-old-secrets")
def end_old_secrets(key_id: UUID) -> AnyResponse:
    """End those that a rotation has left."""
    operations.run(api_keys.end_retired_secrets, **_path(_found(key_id)))
    return pages.done(url_for("ui_keys.detail", key_id=key_id), "Only the newest secret works now.")


@blueprint.post("/keys/<id:key_id>/revoke")
def revoke(key_id: UUID) -> AnyResponse:
    """Delete it, where its name was typed."""
    key = _found(key_id)
    form = forms.confirmed(key["name"])
    if form.is_wrong:
        return _page(key_id, form)
    operations.run(api_keys.delete_api_key, **_path(key))
    return pages.done(url_for("ui_keys.show"), f"Key {key['name']} revoked.")


def _found(key_id: UUID) -> dict[str, Any]:
    found: dict[str, Any] = operations.run(found_api_keys.find_api_key, key_id=key_id)
    return found


def _path(key: dict[str, Any]) -> dict[str, Any]:
    return {"user_id": UUID(key["user_id"]), "key_id": UUID(key["id"])}


def _page(key_id: UUID, form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    pages.stands_at(url_for("ui_keys.detail", key_id=key_id))
    key = _found(key_id)
    owner = UUID(key["user_id"])
    models = operations.run(list_usable_models, query={"limit": "20"}, user_id=owner)
    range, used = ranges.asked(), _used(key)
    return pages.render(
        "keys/detail.html",
        title=key["name"],
        status=422 if form.is_wrong else 200,
        form=form,
        key=key,
        range=range,
        used=used["total"],
        behind=partial(calls.behind, breakdowns.covered(used), of=owner),
        lists=calls.behind(range.text, of=owner, key=str(key_id)),
        models=models,
        state=keys.state(key),
        share=keys.cap_share(key),
        limits=keys.limits(key),
        purposes=PURPOSES,
        windows=keys.WINDOWS,
        overlaps=keys.OVERLAPS,
        call=operations.snippet(api_keys.get_api_key, **_path(key)),
    )


def _used(key: dict[str, Any]) -> breakdowns.Found:
    """The sums of its calls in the time that the page is about."""
    return breakdowns.read(
        ranges.asked(), of=UUID(key["user_id"]), api_key_id=key["id"], **breakdowns.NO_SERIES
    )


def _making(owner: str, form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    _insist_on_id(owner)
    operations.insist(api_keys.create_api_key, user_id=UUID(owner))
    return pages.render(
        "keys/new.html",
        title="Create an API key",
        status=422 if form.is_wrong else 200,
        form=form,
        owner=owner,
        accounts=_accounts(owner),
        values=keys.NEW,
        purposes=PURPOSES,
        windows=keys.WINDOWS,
        call=operations.snippet(
            api_keys.create_api_key,
            body={"name": "nightly evaluation", "requests_per_second": 2.5},
            user_id=UUID(owner),
        ),
    )


def _editing(key: dict[str, Any], form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    return pages.render(
        "keys/edit.html",
        title=f"Edit {key['name']}",
        status=422 if form.is_wrong else 200,
        form=form,
        key=key,
        values=keys.values(key),
        seen=forms.seen(operations.of(api_keys.update_api_key).body, key),
        windows=keys.WINDOWS,
        call=operations.snippet(
            api_keys.update_api_key, body={"requests_per_second": 2.5}, **_path(key)
        ),
    )


def _secret(key: dict[str, Any], title: str) -> Response:
    return pages.render(
        "keys/secret.html",
        title=title,
        key=key,
        variable=snippets.API_KEY,
        call=first_call.of(key),
        base=first_call.base(),
    )


def _accounts(asked: str | None) -> dict[str, str]:
    """Whose keys one can ask for, by id: one's own, those of one's organisations, and whoever the address names."""
    caller = guard.identify()
    found = {str(caller.user_id): "Yours"}
    found |= {str(m.organization_id): m.name for m in caller.memberships}
    if asked and asked not in found:
        account = operations.run(users.get_user, user_id=UUID(asked))
        found[asked] = account["display_name"] or account["username"]
    return found


def _insist_on_id(text: str) -> None:
    """What is no id names nobody."""
    try:
        UUID(text)
    except ValueError:
        raise Invalid("user: not the id of an account", param="user") from None
