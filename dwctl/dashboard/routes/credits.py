"""Credits: balances, and the ledger that makes them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from flask import Response, g, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl import clock
from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.billing import routes as ledger
from dwctl.billing.ledger import SourceUsed
from dwctl.dashboard import breakdowns, forms, operations, pages, ranges
from dwctl.dashboard.formatting import money
from dwctl.dashboard.forms import Form
from dwctl.errors import Conflict, Forbidden, Invalid, NotFound
from dwctl.identity.routes import users
from dwctl.web import cursors

blueprint = pages.screen("credits")

KINDS = {
    "usage": "Usage",
    "admin_grant": "Grant",
    "purchase": "Purchase",
    "admin_removal": "Removal",
}
_TAKES = frozenset({"usage", "admin_removal"})
_BURN_DAYS = 7
_BURN_RANGE = f"{_BURN_DAYS}d"


@blueprint.get("/credits")
def show() -> Response:
    """One account: its balance, how long that lasts, and the entries that add up to it; of everybody's for those who may, too."""
    caller = guard.identify()
    if request.args.get("of") == "accounts":
        return _accounts()
    whose = _id(request.args.get("user")) or caller.owner_id
    return _account(whose)


@blueprint.post("/credits/entries")
def add_entry() -> AnyResponse:
    """Grant or remove credit. The form's own id makes sending it twice one entry."""
    body = forms.body(operations.of(ledger.create_transaction).body)
    made, form = forms.submit(lambda: _written(body))
    whose = _id(request.form.get("user_id")) or guard.identify().owner_id
    if form.is_wrong:
        return _account(whose, form)
    verb = "granted" if made["transaction_type"] == "admin_grant" else "removed"
    return pages.done(url_for("ui_credits.show", user=whose), f"{money(made['amount'])} {verb}.")


def _written(body: dict[str, Any]) -> Any:
    """The entry. Raises Conflict where this very form has made one; it can be sent again with an id of its own."""
    try:
        return operations.run(ledger.create_transaction, body=body)
    except SourceUsed:
        g.was_sent_before = True
        raise Conflict("This form was sent before, and its entry is in the list. To write one more, send it again.") from None  # fmt: skip


@blueprint.get("/credits/<id:entry_id>")
def detail(entry_id: UUID) -> Response:
    """One entry of the ledger, and what it is for."""
    entry = operations.run(ledger.get_transaction, transaction_id=entry_id)
    return pages.render(
        "credits/entry.html",
        title=f"{KINDS.get(entry['transaction_type'], entry['transaction_type'])} of {money(entry['amount'])}",
        entry=entry,
        account=_shown_account(entry["user_id"]),
        takes=_TAKES,
        call=operations.snippet(ledger.get_transaction, transaction_id=entry_id),
    )


def _shown_account(id: str) -> dict[str, Any] | None:
    """Whose an entry is; None where the account is gone, or not the reader's to see."""
    try:
        found: dict[str, Any] = operations.run(users.get_user, user_id=UUID(id))
    except (Forbidden, NotFound):
        return None
    return found


def _account(whose: UUID, form: Form = Form()) -> Response:  # noqa: B008 - it is frozen
    caller = guard.identify()
    pages.stands_at(url_for("ui_credits.show"), user=str(whose))
    query = {
        "user_id": str(whose),
        "limit": "50",
        "transaction_types": request.args.get("kind"),
        "search": request.args.get("q"),
        # Lines of a batch are one entry, unless they are asked for.
        "group_batches": "false" if request.args.get("lines") else "true",
    }
    page = operations.run(ledger.list_transactions, query=query)
    further = cursors.further()
    account = operations.run(users.get_user, query={"include": "billing"}, user_id=whose)
    is_filtered = bool(query["transaction_types"] or query["search"])
    return pages.render(
        "credits/page.html",
        title="Credits" if whose == caller.owner_id else f"Credits of {account['username']}",
        fragment="credits/_entries.html",
        status=422 if form.is_wrong else 200,
        account=account,
        entries=page["data"] if is_filtered else list(_with_balances(page)),
        is_filtered=is_filtered,
        total=page["total_count"],
        further=further,
        burn=_burn(whose),
        burn_range=_BURN_RANGE,
        kinds=KINDS,
        takes=_TAKES,
        form=form,
        form_id=_form_id(),
        may_grant=operations.may(ledger.create_transaction),
        sees_all=may_all(caller, Resource.CREDITS, Operation.READ),
        call=operations.snippet(ledger.list_transactions, query=query),
    )


def _form_id() -> str:
    """That of the form which is shown again; a new one where it has made its entry."""
    sent = None if g.get("was_sent_before") else request.form.get("source_id")
    return sent or f"dashboard-{uuid4()}"


def _accounts() -> Response:
    query = {"limit": "50", "include": "billing", "search": request.args.get("q")}
    guard.insist(may_all(guard.identify(), Resource.CREDITS, Operation.READ), Resource.CREDITS, Operation.READ)  # fmt: skip
    page = operations.run(users.list_users, query=query)
    return pages.render(
        "credits/accounts.html",
        title="Balances",
        accounts=page["data"],
        total=page["total_count"],
        further=cursors.further(),
        call=operations.snippet(users.list_users, query=query),
    )


def _with_balances(page: dict[str, Any]) -> Any:
    """Each entry with the balance right after it: they add up from the oldest to the newest, to the last digit."""
    balance = Decimal(page["page_start_balance"])
    for entry in page["data"]:
        amount = Decimal(entry["amount"])
        signed = -amount if entry["transaction_type"] in _TAKES else amount
        yield {**entry, "signed": signed, "balance": balance}
        balance -= signed


def _burn(whose: UUID) -> Decimal | None:
    """What a day costs, by the last seven; None where the caller sees the account's ledger, and not its usage."""
    range = ranges.parsed(_BURN_RANGE, clock.now())
    try:
        # (Calls of every status: some that failed are charged, too.)
        spent = breakdowns.read(range, of=whose, **breakdowns.NO_SERIES)
    except (Forbidden, NotFound):
        return None
    return Decimal(spent["total"]["cost"]) / _BURN_DAYS


def _id(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise Invalid("user: an account's id is expected", param="user") from None
