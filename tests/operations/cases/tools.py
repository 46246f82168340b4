"""Tool sources, and how providers are shown."""

from requests import Response

from tests.gateway import unique
from tests.operations.world import World


def _tool(w: World) -> str:
    return w.made("/tool-sources", {"name": unique("t"), "url": "https://tools.example/", "parameters": {"type": "object"}})  # fmt: skip


def _attached(w: World, room: str) -> str:
    tool = _tool(w)
    w.stage.admin("PUT", f"{room}/tool-sources/{tool}")
    return tool


def _provider(w: World) -> str:
    key = unique("p")
    w.stage.admin("POST", "/provider-display-configs", {"provider_key": key})
    return key


def list_tool_sources(w: World) -> Response:
    assert _tool(w)
    return w.ask()


def create_tool_source(w: World) -> Response:
    return w.ask(json={"name": unique("t"), "url": "https://tools.example/", "api_key": "k", "parameters": {"type": "object"}})  # fmt: skip


def get_tool_source(w: World) -> Response:
    return w.ask({"id": _tool(w)})


def update_tool_source(w: World) -> Response:
    return w.ask({"id": _tool(w)}, json={"timeout_secs": 5, "parameters": None})


def delete_tool_source(w: World) -> Response:
    return w.ask({"id": _tool(w)})


def list_tool_sources_of_model(w: World) -> Response:
    assert _attached(w, f"/deployments/{w.model}")
    return w.ask({"deployment_id": w.model})


def attach_tool_source_to_model(w: World) -> Response:
    return w.ask({"deployment_id": w.model, "id": _tool(w)})


def detach_tool_source_from_model(w: World) -> Response:
    return w.ask({"deployment_id": w.model, "id": _attached(w, f"/deployments/{w.model}")})


def list_tool_sources_of_group(w: World) -> Response:
    assert _attached(w, f"/groups/{w.group}")
    return w.ask({"group_id": w.group})


def attach_tool_source_to_group(w: World) -> Response:
    return w.ask({"group_id": w.group, "id": _tool(w)})


def detach_tool_source_from_group(w: World) -> Response:
    return w.ask({"group_id": w.group, "id": _attached(w, f"/groups/{w.group}")})


def list_providers(w: World) -> Response:
    assert _provider(w)
    return w.ask()


def create_provider(w: World) -> Response:
    return w.ask(json={"provider_key": unique("p"), "icon": "openai"})


def get_provider(w: World) -> Response:
    return w.ask({"provider_key": _provider(w)})


def update_provider(w: World) -> Response:
    return w.ask({"provider_key": _provider(w)}, json={"display_name": "Shown", "icon": ""})


def delete_provider(w: World) -> Response:
    return w.ask({"provider_key": _provider(w)})
