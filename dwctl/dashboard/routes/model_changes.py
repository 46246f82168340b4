"""What is changed on a model's own page: its prices, who may use it, where its calls go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from flask import request
from werkzeug.wrappers import Response as AnyResponse

from dwctl.catalog.components import WEIGHTS
from dwctl.catalog.routes import components, grants
from dwctl.catalog.routes import models as api
from dwctl.catalog.schemas import PURPOSES
from dwctl.dashboard import forms, model_paths, operations, pages, zones
from dwctl.dashboard.forms import Form
from dwctl.dashboard.routes import model_page
from dwctl.errors import Invalid
from dwctl.identity.routes import groups
from dwctl.tools import routes as tools

blueprint = pages.screen("models_changes")

_ONE = f"/models/{model_paths.OURS}/<id:model_id>"
_PRICES = (
    "input_price_per_token",
    "output_price_per_token",
    "cached_input_price_per_token",
    "reasoning_price_per_token",
)

_WITH_FIELDS = frozenset({"price", "grant", "add"})
"""Forms that show what is wrong beside their fields."""


@blueprint.post(f"{_ONE}/prices")
def add_price(model_id: UUID) -> AnyResponse:
    """Set one price; in the form for a million tokens, in the API for one."""
    body = forms.body(operations.of(api.add_tariff).body)
    for name in _PRICES:
        if name in body and body[name] is not None:
            body[name] = forms.price_of_one(body[name])
    if body.get("valid_from"):
        body["valid_from"] = _with_zone(body["valid_from"])
    if body.get("api_key_purpose") != "batch":
        body.pop("completion_window", None)
    return _changed(
        model_id,
        "prices",
        lambda: operations.run(api.add_tariff, body=body, id=model_id),
        "Price set.",
        of="price",
    )


@blueprint.post(f"{_ONE}/prices/<id:tariff_id>/withdraw")
def withdraw_price(model_id: UUID, tariff_id: UUID) -> AnyResponse:
    """End a price, or take back one that is to come."""
    return _changed(
        model_id,
        "prices",
        lambda: operations.run(api.withdraw_tariff, id=model_id, tariff_id=tariff_id),
        "The price is ended. What calls have cost stays as it is.",
    )


@blueprint.post(f"{_ONE}/groups")
def grant(model_id: UUID) -> AnyResponse:
    """Open it to a group, which is named or chosen."""
    return _changed(model_id, "access", lambda: _grant(model_id), "Access granted.", of="grant")


@blueprint.post(f"{_ONE}/groups/<id:group_id>/revoke")
def revoke(model_id: UUID, group_id: UUID) -> AnyResponse:
    """Take it from a group."""
    return _changed(
        model_id,
        "access",
        lambda: operations.run(grants.revoke_model, group_id=group_id, deployment_id=model_id),
        "Access taken away.",
    )


@blueprint.post(f"{_ONE}/hide")
def hide(model_id: UUID) -> AnyResponse:
    """Take it from every group: nobody sees or calls it any more, and all else stays."""
    return _changed(
        model_id, "access", lambda: _hide(model_id), "Nobody but managers sees this model now."
    )


@blueprint.post(f"{_ONE}/tools")
def attach_tool(model_id: UUID) -> AnyResponse:
    """Offer it a tool."""
    return _changed(
        model_id,
        "access",
        lambda: operations.run(
            tools.attach_tool_source_to_model, deployment_id=model_id, id=_id("tool")
        ),
        "Tool attached.",
        of="tool",
    )


@blueprint.post(f"{_ONE}/tools/<id:tool_id>/detach")
def detach_tool(model_id: UUID, tool_id: UUID) -> AnyResponse:
    """Offer it that tool no more."""
    return _changed(
        model_id,
        "access",
        lambda: operations.run(
            tools.detach_tool_source_from_model, deployment_id=model_id, id=tool_id
        ),
        "Tool detached.",
    )


@blueprint.post(f"{_ONE}/components")
def save_components(model_id: UUID) -> AnyResponse:
    """Weights, order and switches of all components; those that stay the same are not written."""
    return _changed(
        model_id,
        "routing",
        lambda: _save_components(model_id),
        "Components saved.",
        of="components",
    )


@blueprint.post(f"{_ONE}/components/add")
def add_component(model_id: UUID) -> AnyResponse:
    """One more, by its alias."""
    return _changed(
        model_id, "routing", lambda: _add_component(model_id), "Component added.", of="add"
    )


@blueprint.post(f"{_ONE}/components/<id:component_id>/remove")
def remove_component(model_id: UUID, component_id: UUID) -> AnyResponse:
    """One less."""
    return _changed(
        model_id,
        "routing",
        lambda: operations.run(components.remove_component, id=model_id, model_id=component_id),
        "Component removed.",
    )


@blueprint.post(f"{_ONE}/rules")
def save_rules(model_id: UUID) -> AnyResponse:
    """What happens to calls by keys of each purpose."""
    body = {"traffic_routing_rules": list(_rules())}
    return _changed(
        model_id,
        "routing",
        lambda: operations.run(api.update_model, body=body, id=model_id),
        "Traffic rules saved.",
        of="rules",
    )


def _changed(
    model_id: UUID, tab: str, change: Callable[[], Any], said: str, *, of: str = ""
) -> AnyResponse:
    """Do it, and go back to the tab that it was asked on; with the form, where it was refused."""
    _, form = forms.submit(change)
    model = model_page.by_id(model_id, tab)
    if form.is_wrong:
        return model_page.show(model, tab, form if of in _WITH_FIELDS else _told_at_once(form), of=of or "row")  # fmt: skip
    return pages.done(model_page.address(model, tab), said)


def _with_zone(text: str) -> str:
    """A moment as `<input type=datetime-local>` sends it is one of the reader's own zone."""
    try:
        return forms.local_moment(text, zones.zone())
    except ValueError:
        return text


def _told_at_once(form: Form) -> Form:
    """For forms without a place for errors beside their fields."""
    return Form(form.values, {}, form.problem or next(iter(form.errors.values())))


def _id(name: str) -> UUID:
    try:
        return UUID(request.form.get(name, ""))
    except ValueError:
        raise Invalid("Choose one first.", param=name) from None


def _grant(model_id: UUID) -> None:
    group_id = _group(request.form.get("group", "").strip())
    operations.run(grants.grant_model, group_id=group_id, deployment_id=model_id)


def _group(name: str) -> str:
    """The id of the group that has the name."""
    if not name:
        raise Invalid("Name a group.", param="group")
    found = operations.beside(groups.list_groups, query={"search": name[:255], "limit": "101"})
    for group in found["data"]:
        if group["name"] == name:
            return str(group["id"])
    raise Invalid(f"There is no group called {name!r}.", param="group")


def _hide(model_id: UUID) -> None:
    for group_id in operations.run(grants.list_groups_of_model, deployment_id=model_id):
        operations.run(grants.revoke_model, group_id=group_id, deployment_id=model_id)


def _save_components(model_id: UUID) -> None:
    # All are judged before the first is written.
    changed = list(_changed_components(operations.run(components.list_components, id=model_id)))
    for id, changes in changed:
        operations.run(components.update_component, body=changes, id=model_id, model_id=id)


def _changed_components(
    present: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[UUID, dict[str, Any]]]:
    schema = operations.of(components.update_component).body
    assert schema is not None
    for one in present:
        id = one["model"]["id"]
        names = [name for name in ("weight", "sort_order") if f"{name}-{id}" in request.form]
        if not names:
            continue
        sent = forms.fields_of({name: request.form[f"{name}-{id}"] for name in names})
        changes = schema.load(forms.body(schema, sent))
        if changes.get("weight", 1) not in WEIGHTS:
            raise Invalid(f"{one['model']['alias']}: the weight must be between {WEIGHTS[0]} and {WEIGHTS[-1]}")  # fmt: skip
        changes["enabled"] = f"enabled-{id}" in request.form
        if any(one[name] != value for name, value in changes.items()):
            yield UUID(id), changes


def _add_component(model_id: UUID) -> None:
    alias = request.form.get("alias", "").strip()
    found = operations.beside(api.list_models, query={"alias": alias, "limit": "1"})["data"] if alias else []  # fmt: skip
    if not found:
        raise Invalid(f"There is no model called {alias!r}." if alias else "Name a model.", param="alias")  # fmt: skip
    body = forms.body(operations.of(components.add_component).body)
    operations.run(components.add_component, body=body, id=model_id, model_id=UUID(found[0]["id"]))


def _rules() -> Any:
    for purpose in PURPOSES:
        action = request.form.get(f"action-{purpose}")
        if action in ("deny", "redirect"):
            yield {"api_key_purpose": purpose, "action": _action(purpose, action)}


def _action(purpose: str, kind: str) -> Mapping[str, str]:
    if kind == "deny":
        return {"type": kind}
    return {"type": kind, "target": request.form.get(f"target-{purpose}", "")}
