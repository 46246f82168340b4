"""Transactions, and what operators see of the queue."""

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


def count_pending_requests(w: World) -> Response:
    assert w.new_batch()
    return w.ask()


def list_batch_requests(w: World) -> Response:
    assert w.batch
    return w.ask(query={"limit": 100})


def get_batch_request(w: World) -> Response:
    assert w.batch
    listed = w.stage.admin("GET", "/batches/requests?status=completed&limit=1").json()["data"]
    return w.ask({"request_id": listed[0]["id"]})
