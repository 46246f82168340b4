"""The request log."""

from requests import Response

from tests.operations.world import World
from tests.processes import eventually


def _called(w: World) -> str:
    """The request id of a call of alice's that is in the log."""
    made = w.stage.chat(w.alias)
    id = made.headers["x-request-id"]
    eventually(lambda: w.stage.left(id).logs)
    return id


def list_requests(w: World) -> Response:
    assert _called(w)
    return w.ask(query={"limit": 100}, by="viewer")


def get_request(w: World) -> Response:
    return w.ask({"request_id": _called(w)}, by="viewer")


def get_request_neighbours(w: World) -> Response:
    assert _called(w)
    return w.ask({"request_id": _called(w)}, {"status_code": 200}, by="viewer")


def get_request_standing(w: World) -> Response:
    return w.ask({"request_id": _called(w)}, by="viewer")


def export_requests(w: World) -> Response:
    assert _called(w)
    return w.ask(query={"format": "jsonl"}, by="viewer")


def watch_requests(w: World) -> Response:
    return w.ask(query={"seconds": 1}, by="viewer")


def list_user_requests(w: World) -> Response:
    return w.ask({"user_id": w.stage.alice.id}, {"limit": 100}, by="viewer")


def get_user_request(w: World) -> Response:
    return w.ask({"user_id": w.stage.alice.id, "request_id": _called(w)}, by="viewer")


def get_user_request_neighbours(w: World) -> Response:
    path = {"user_id": w.stage.alice.id, "request_id": _called(w)}
    return w.ask(path, {"status_code": 200}, by="viewer")


def get_user_request_standing(w: World) -> Response:
    return w.ask({"user_id": w.stage.alice.id, "request_id": _called(w)}, by="viewer")


def export_user_requests(w: World) -> Response:
    return w.ask({"user_id": w.stage.alice.id}, {"format": "csv"}, by="viewer")


def watch_user_requests(w: World) -> Response:
    return w.ask({"user_id": w.stage.alice.id}, {"seconds": 1}, by="viewer")
