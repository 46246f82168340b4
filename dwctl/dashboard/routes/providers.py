"""Providers: how those that models name are shown to people."""

from __future__ import annotations

from flask import Response, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.catalog.routes import providers as api
from dwctl.dashboard import forms, operations, pages
from dwctl.dashboard.forms import Form

blueprint = pages.screen("endpoints_providers")

_NOTHING_WRONG = Form()


@blueprint.get("/providers")
def show() -> Response:
    """Those that are configured, and those that a model names."""
    return _page(_NOTHING_WRONG)


@blueprint.post("/providers")
def make() -> AnyResponse:
    """Give one a name and an icon."""
    body = forms.body(operations.of(api.create_provider).body)
    _, form = forms.submit(lambda: operations.run(api.create_provider, body=body))
    return _page(form) if form.is_wrong else pages.done(url_for("ui_endpoints_providers.show"), "Provider saved.")  # fmt: skip


@blueprint.post("/providers/<path:key>/save")
def save(key: str) -> AnyResponse:
    """Change how it is shown."""
    body = forms.body(operations.of(api.update_provider).body)
    _, form = forms.submit(lambda: operations.run(api.update_provider, body=body, key=key))
    return _page(form, key) if form.is_wrong else pages.done(url_for("ui_endpoints_providers.show"), "Provider saved.")  # fmt: skip


@blueprint.post("/providers/<path:key>/forget")
def forget(key: str) -> AnyResponse:
    """Show it under its key again."""
    operations.run(api.delete_provider, key=key)
    return pages.done(url_for("ui_endpoints_providers.show"), "Shown under its key again.")


def _page(form: Form, wrong: str = "") -> Response:
    """wrong: the provider whose form was refused; blank for a new one's."""
    return pages.render(
        "endpoints/providers.html",
        title="Providers",
        status=422 if form.is_wrong else 200,
        providers=operations.run(api.list_providers),
        manages=operations.may(api.create_provider),
        form=form,
        nothing_wrong=_NOTHING_WRONG,
        wrong=wrong,
        call=operations.snippet(api.list_providers),
        make_call=operations.snippet(
            api.create_provider,
            body=getattr(operations.of(api.create_provider).body, "example", {}),
        ),
    )
