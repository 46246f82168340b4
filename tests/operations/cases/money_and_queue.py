"""Transactions, what was used, and what operators see of the queue."""

from requests import Response

from tests.gateway import unique
from tests.operations.world import World


def _granted(w: World) -> dict[str, str]:
    return {"user_id": w.user, "transaction_type": "admin_grant", "amount": "2.50", "source_id": unique("s")}  # fmt: skip


def create_transaction(w: World) -> Response:
    return w.ask(json=_granted(w))


def list_transactions(w: World) -> Response:
    assert w.batch
    return w.ask(query={"all": "true", "limit": 100})


def get_transaction(w: World) -> Response:
    return w.ask({"transaction_id": w.made("/transactions", _granted(w))})


def aggregate_requests(w: World) -> Response:
    assert w.batch
    return w.ask()


def export_aggregate(w: World) -> Response:
    return w.ask(query={"by": "model,user,key,status", "format": "csv"})


def aggregate_requests_by_user(w: World) -> Response:
    assert w.batch
    return w.ask(query={"model": w.model})


def break_down_requests(w: World) -> Response:
    assert w.batch
    return w.ask(query={"by": "user", "time_zone": "Asia/Kolkata", "compare": "true"})


def break_down_usage(w: World) -> Response:
    assert w.batch
    return w.ask(query={"by": "key", "order": "tokens"}, by="alice")


def get_usage(w: World) -> Response:
    assert w.batch
    return w.ask(by="alice")


def export_usage(w: World) -> Response:
    return w.ask(by="alice")


def count_pending_requests(w: World) -> Response:
    assert w.new_batch()
    return w.ask()


def get_queue(w: World) -> Response:
    assert w.new_batch()
    return w.ask()


def list_batch_requests(w: World) -> Response:
    assert w.batch
    return w.ask(query={"limit": 100})


def get_batch_request(w: World) -> Response:
    assert w.batch
    listed = w.stage.admin("GET", "/batches/requests?status=completed&limit=1").json()["data"]
    return w.ask({"request_id": listed[0]["id"]})
