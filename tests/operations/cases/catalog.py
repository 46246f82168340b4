"""Endpoints, models, components, access."""

from requests import Response

from tests.gateway import tariff, unique
from tests.operations.world import World

EVERYTHING = "groups,metrics,calls,status,pricing,endpoints,components,facets"


def list_endpoints(w: World) -> Response:
    assert w.model
    return w.ask(query={"limit": 5, "include": "models"})


def create_endpoint(w: World) -> Response:
    return w.ask(json={"name": unique("e"), "url": w.stage.upstream.url, "model_filter": ["ok"], "skip_fetch": True, "alias_mapping": {"ok": unique("a")}})  # fmt: skip


def validate_endpoint(w: World) -> Response:
    return w.ask(json={"type": "new", "url": w.stage.upstream.url})


def get_endpoint(w: World) -> Response:
    return w.ask({"id": w.stage.endpoint()})


def update_endpoint(w: World) -> Response:
    return w.ask({"id": w.new_endpoint()}, json={"description": "x", "alias_mapping": {}})


def delete_endpoint(w: World) -> Response:
    return w.ask({"id": w.new_endpoint()})


def synchronize_endpoint(w: World) -> Response:
    url = f"{w.stage.upstream.url.removesuffix('/v1')}/as/models-{unique('a')},{unique('b')}/v1"
    body = {"name": unique("e"), "url": url, "sync": False}
    return w.ask({"id": w.made("/endpoints", body)})


def compare_endpoint(w: World) -> Response:
    url = f"{w.stage.upstream.url.removesuffix('/v1')}/as/models-{unique('a')},{unique('b')}/v1"
    body = {"name": unique("e"), "url": url, "sync": False}
    return w.ask({"id": w.made("/endpoints", body)})


def list_models(w: World) -> Response:
    assert w.composite
    return w.ask(query={"include": EVERYTHING, "limit": 100, "since": "2026-01-01T00:00:00Z"})


def create_model(w: World) -> Response:
    return w.ask(json={
        "type": "standard", "model_name": "ok", "alias": unique("m"), "hosted_on": w.stage.endpoint(),
        "tariffs": [tariff("0.1", "0.2"), tariff("0.1", "0.2", api_key_purpose="batch", completion_window="24h")],
        "metadata": {"provider": "p", "context_window": 4096, "extra": {"a": 1}}, "provider_pricing": {"mode": "per_token", "input_price_per_token": "0.1"},
        "traffic_routing_rules": [{"api_key_purpose": "batch", "action": {"type": "deny"}}], "requests_per_second": 5, "capabilities": ["vision"],
    })  # fmt: skip


def get_model(w: World) -> Response:
    return w.ask({"id": w.composite}, {"include": EVERYTHING})


def update_model(w: World) -> Response:
    return w.ask({"id": w.new_model()}, json={"description": "d", "requests_per_second": None})


def list_tariffs(w: World) -> Response:
    return w.ask({"id": w.model})


def add_tariff(w: World) -> Response:
    return w.ask({"id": w.new_model()}, json=tariff("0.1", "0.2"))


def withdraw_tariff(w: World) -> Response:
    model = w.new_model()
    w.stage.admin("POST", f"/models/{model}/tariffs", tariff("0.1", "0.2"))
    found = w.stage.admin("GET", f"/models/{model}/tariffs").json()["data"]
    return w.ask({"id": model, "tariff_id": found[0]["id"]})


def delete_model(w: World) -> Response:
    return w.ask({"id": w.new_model()})


def list_components(w: World) -> Response:
    return w.ask({"id": w.composite})


def add_component(w: World) -> Response:
    return w.ask({"id": w.composite, "component_id": w.new_model()}, json={"weight": 10})


def update_component(w: World) -> Response:
    return w.ask({"id": w.composite, "component_id": w.model}, json={"enabled": True})


def remove_component(w: World) -> Response:
    model = w.new_model()
    w.stage.admin("POST", f"/models/{w.composite}/components/{model}", {})
    return w.ask({"id": w.composite, "component_id": model})


def list_models_of_group(w: World) -> Response:
    return w.ask({"group_id": w.group})


def grant_model(w: World) -> Response:
    return w.ask({"group_id": w.new_group(), "deployment_id": w.model})


def revoke_model(w: World) -> Response:
    group = w.new_group()
    w.stage.admin("POST", f"/groups/{group}/models/{w.model}")
    return w.ask({"group_id": group, "deployment_id": w.model})


def list_groups_of_model(w: World) -> Response:
    assert w.group
    return w.ask({"deployment_id": w.model})


def list_usable_models(w: World) -> Response:
    return w.ask({"user_id": w.user}, {"all": "true", "limit": 100})
