"""Connections to sources of files; the source itself is away."""

from requests import Response

from tests.gateway import unique
from tests.operations.world import World, refused
from tests.processes import free_port


def _connection(w: World) -> str:
    return w.made("/connections", _body())


def _body() -> dict[str, object]:
    config = {"bucket": "b", "region": "eu-1", "access_key_id": "a", "secret_access_key": "s", "endpoint_url": f"http://127.0.0.1:{free_port()}"}  # fmt: skip
    return {"provider": "s3", "name": unique("c"), "config": config}


def _sync(w: World, connection: str) -> str:
    return w.made(f"/connections/{connection}/sync", {})


def create_connection(w: World) -> Response:
    return w.ask(json=_body())


def list_connections(w: World) -> Response:
    assert _connection(w)
    return w.ask()


def get_connection(w: World) -> Response:
    return w.ask({"id": _connection(w)})


def delete_connection(w: World) -> Response:
    return w.ask({"id": _connection(w)})


def try_connection(w: World) -> Response:
    return w.ask({"id": _connection(w)})


@refused(502)
def list_files_of_connection(w: World) -> Response:
    return w.ask({"id": _connection(w)}, {"limit": 5})


def list_synced_keys(w: World) -> Response:
    return w.ask({"id": _connection(w)})


def start_sync(w: World) -> Response:
    return w.ask({"id": _connection(w)}, json={"strategy": "select", "file_keys": ["a.jsonl"]})


def list_syncs(w: World) -> Response:
    connection = _connection(w)
    assert _sync(w, connection)
    return w.ask({"id": connection})


def get_sync(w: World) -> Response:
    connection = _connection(w)
    return w.ask({"id": connection, "sync_id": _sync(w, connection)})


def list_sync_entries(w: World) -> Response:
    connection = _connection(w)
    return w.ask({"id": connection, "sync_id": _sync(w, connection)})
