"""The audit log."""

from requests import Response

from tests.operations.world import World


def list_audit_entries(w: World) -> Response:
    assert w.group
    return w.ask(query={"limit": 100})


def get_audit_entry(w: World) -> Response:
    assert w.group
    listed = w.stage.admin("GET", "/audit-log?limit=1").json()["data"]
    return w.ask({"entry_id": listed[0]["id"]})


def export_audit_log(w: World) -> Response:
    assert w.group
    return w.ask(query={"format": "jsonl", "resource_type": "group"})
