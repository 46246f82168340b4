"""Making, changing and deleting models."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

import orjson
from flask import Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.catalog.routes import models as api
from dwctl.catalog.routing import Strategy
from dwctl.catalog.schemas import MODEL_TYPES
from dwctl.dashboard import forms, model_paths, model_words, operations, pages
from dwctl.dashboard.forms import Form
from dwctl.dashboard.routes import model_page
from dwctl.errors import Invalid
from dwctl.web import current

blueprint = pages.screen("models_forms")

_ONE = f"/models/{model_paths.OURS}/<id:model_id>"
_RATES = ("requests_per_second", "throughput")
_KINDS = ("standard", "composite")


@blueprint.route(f"/models/{model_paths.OURS}/new", methods=["GET", "POST"])
def make() -> AnyResponse:
    """A new model; `?type=composite` one that is made of others, `?endpoint_id=` on that server."""
    kind = request.args.get("type", "standard")
    if kind not in _KINDS:
        raise Invalid(f"type: one of {', '.join(_KINDS)}", param="type")
    form = Form()
    if request.method == "POST":
        body = {"type": kind, **_body(api.create_model)}
        made, form = forms.submit(lambda: operations.run(api.create_model, body=body))
        if not form.is_wrong:
            tab = "routing" if kind == "composite" else "prices"
            return pages.done(model_page.address(made, tab), _made(kind))
    example = {"type": kind, "model_name": "server/model", "alias": "my-model"}
    given = {"hosted_on": request.args.get("endpoint_id")}
    return _page(f"Create {kind} model", kind, given, form, operations.snippet(api.create_model, body=example))  # fmt: skip


@blueprint.route(f"{_ONE}/edit", methods=["GET", "POST"])
def edit(model_id: UUID) -> AnyResponse:
    """Everything of a model but its prices, components, rules and groups."""
    form = Form()
    if request.method == "POST":
        operations.insist(api.update_model)
        found = model_page.by_id(model_id, "")
        body = _body(api.update_model, found)
        changed, form = forms.submit(
            lambda: operations.run(api.update_model, body=body, id=model_id), seen=_seen(found)
        )
        if not form.is_wrong:
            return pages.done(model_page.address(changed), "Model saved.")
    model = model_page.by_id(model_id, "")
    kind = "composite" if model.get("is_composite") else "standard"
    example = {"description": model["description"]}
    call = operations.snippet(api.update_model, body=example, id=model_id)
    return _page(f"Edit {model['alias']}", kind, model, form, call, model)


@blueprint.post(f"{_ONE}/delete")
def delete(model_id: UUID) -> AnyResponse:
    """Delete it; the alias must be typed."""
    model = model_page.by_id(model_id, "")
    if not forms.is_typed(model["alias"]):
        form = Form(problem="Nothing was deleted: what was typed is not the model's alias.")
        return model_page.show(model, "", form, of="delete")
    operations.run(api.delete_model, id=model_id)
    return pages.done(url_for("ui_models.show"), f"{model['alias']} is deleted, and its alias is free.")  # fmt: skip


def _page(
    title: str,
    kind: str,
    given: Mapping[str, Any],
    form: Form,
    call: operations.Snippet,
    model: Mapping[str, Any] | None = None,
) -> Response:
    operations.insist(api.update_model if model else api.create_model)
    return pages.render(
        "models/form.html",
        title=title,
        status=422 if form.is_wrong else 200,
        kind=kind,
        model=model,
        given=given,
        form=form,
        call=call,
        endpoints=model_page.endpoint_choices() if kind == "standard" and not model else {},
        windows=current.settings().batches.allowed_completion_windows,
        types=MODEL_TYPES,
        strategies=[each.value for each in Strategy],
        seen=_seen(given),
        shown_rate=model_words.rate_field,
        units=list(model_words.UNITS),
        extra=_pretty((given.get("metadata") or {}).get("extra")),
    )


def _seen(model: Mapping[str, Any]) -> str:
    return forms.seen(operations.of(api.update_model).body, model)


def _body(view: Any, model: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """The form as the API takes it: rates by the second, windows as they were chosen, free members as JSON, what one pays only with its mode.

    A rate that stands as it was shown of the model was rounded for the eye, and stays as it is.
    """
    body = forms.body(operations.of(view).body)
    for name in _RATES:
        if isinstance(body.get(name), float):
            unit = request.form.get(f"{name}.per", "second")
            if (request.form[name], unit) == model_words.rate_field(model.get(name)):
                del body[name]
            else:
                body[name] /= model_words.UNITS.get(unit, 1)
    if not body.get("capabilities") and not model.get("capabilities"):
        body.pop("capabilities", None)
    if "windows" in request.form:
        body["allowed_batch_completion_windows"] = _windows()
    if "metadata.extra" in request.form:
        body.setdefault("metadata", {})["extra"] = forms.json_of(request.form["metadata.extra"])
    _settle_pricing(body)
    return body


def _settle_pricing(body: dict[str, Any]) -> None:
    """What one pays goes with its mode only; in the form prices are for a million tokens."""
    pricing = body.pop("provider_pricing", None)
    if not pricing or not pricing.get("mode"):
        return
    body["provider_pricing"] = {
        name: forms.price_of_one(value) if value and name.endswith("_per_token") else value
        for name, value in pricing.items()
    }


def _windows() -> list[str] | None:
    if request.form["windows"] == "all":
        return None
    return [] if request.form["windows"] == "none" else request.form.getlist("window")


def _pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() if value else ""


def _made(kind: str) -> str:
    if kind == "composite":
        return "Model made. Next: say which models serve it."
    return "Model made. Next: say what it costs, and who may use it."
