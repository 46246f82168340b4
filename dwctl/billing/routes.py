"""`/transactions`: grant and remove credit, and read the ledger."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.billing import ledger, statements
from dwctl.billing.schemas import (
    TransactionCreate,
    TransactionPage,
    TransactionQuery,
    TransactionSchema,
)
from dwctl.billing.statements import Place
from dwctl.billing.tables import Transaction
from dwctl.db import db
from dwctl.errors import Forbidden, NotFound
from dwctl.web import cursors
from dwctl.web.pagination import envelope, substring
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("transactions", __name__, description="Credits: the ledger of each account.")
guard.protect(blueprint)

_NEWEST_FIRST = "newest first, as of one moment"
_TYPES = frozenset({"purchase", "admin_grant", "admin_removal", "usage"})


@blueprint.route("/transactions", methods=["POST"])
@guard.requires(Resource.CREDITS, Operation.CREATE)
@blueprint.arguments(TransactionCreate)
@blueprint.response(201, TransactionSchema)
def create_transaction(new: dict[str, Any]) -> Transaction:
    """Grant or remove credit."""
    made = ledger.grant(db.session(), granted_by=guard.identify().user_id, **new)
    db.session.commit()
    return made


@blueprint.route("/transactions", methods=["GET"])
@blueprint.arguments(TransactionQuery, location="query")
@blueprint.response(200, TransactionPage)
def list_transactions(query: dict[str, Any]) -> dict[str, Any]:
    """List the entries of an account, newest first."""
    filters = statements.Filters(
        user_id=_whose(guard.identify(), query["user_id"], everybody=query["all"]),
        search=substring(query["search"]),
        types=_types(query["transaction_types"]),
        start=query["start_date"],
        end=query["end_date"],
        fold_batches=query["group_batches"] and not query["all"],
    )
    skip, limit = query["skip"], query["limit"]
    page = statements.read(db.session(), filters, skip=skip, limit=limit, after=_asked())
    if page.next:
        cursors.offer(_NEWEST_FIRST, [str(page.next.newest), str(page.next.last)])
    body = envelope(list(page.entries), page.total, skip=skip, limit=limit)
    return {**body, "page_start_balance": page.start_balance}


@blueprint.route("/transactions/<id:transaction_id>", methods=["GET"])
@blueprint.response(200, TransactionSchema)
def get_transaction(transaction_id: UUID) -> Transaction:
    """Read one entry."""
    found = db.session.get(Transaction, transaction_id)
    if found is None or not _may_read(guard.identify(), found.user_id):
        raise NotFound(f"Transaction with ID {transaction_id} not found")
    return found


def _asked() -> Place | None:
    position = cursors.asked(_NEWEST_FIRST)
    return None if position is None else Place(*(int(number or 0) for number in position))


def _whose(caller: Caller, user_id: UUID | None, *, everybody: bool) -> UUID | None:
    """The account to read; None for all of them. Forbidden where the caller may not."""
    if everybody:
        if not may_all(caller, Resource.CREDITS, Operation.READ):
            raise Forbidden("Insufficient permissions to Read all transactions")
        return None
    if user_id is None:
        return caller.user_id
    if not _may_read(caller, user_id):
        raise Forbidden("Insufficient permissions to Read transactions")
    return user_id


def _may_read(caller: Caller, user_id: UUID) -> bool:
    return (
        user_id == caller.user_id
        or caller.role_in(user_id) is not None
        or may_all(caller, Resource.CREDITS, Operation.READ)
    )


def _types(text: str | None) -> frozenset[str] | None:
    """The known names in a comma list; a list of unknown names only matches nothing."""
    names = {part.strip() for part in (text or "").split(",")} - {""}
    return frozenset(names & _TYPES) if names else None
