"""`dwctl credits`: balances and grants, from the command line."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import click
from flask.cli import AppGroup

from dwctl.billing import ledger
from dwctl.billing.money import amount_text
from dwctl.commands import output
from dwctl.commands.users import find
from dwctl.db import db
from dwctl.errors import Invalid
from dwctl.identity.tables import NIL

group = AppGroup("credits", help="Balances and grants: grant, balance, reconcile.")


@group.command("grant")
@click.argument("email")
@click.argument("amount")
@click.option("--description")
@click.option(
    "--source",
    help="An id of your own for this grant: with it, running the command twice grants once.",
)
@output.as_json
@output.one_line_errors
def grant(
    email: str, amount: str, description: str | None, source: str | None, as_json: bool
) -> None:
    """Grant AMOUNT credits (1 credit is 1 USD) to a user."""
    session = db.session()
    user = find(session, email)
    made = ledger.grant(
        session,
        user_id=user.id,
        amount=_amount(amount),
        source_id=source or ledger.internal_source(NIL),
        description=description,
        granted_by=None,
    )
    session.commit()
    shown = {"id": made.id, "user": user.email, "amount": amount_text(made.amount)}
    balance = ledger.balances(session, [user.id])[user.id]
    output.show_one({**shown, "balance": amount_text(balance)}, as_json=as_json)


@group.command("balance")
@click.argument("email")
@output.as_json
@output.one_line_errors
def balance(email: str, as_json: bool) -> None:
    """Show the balance of a user."""
    session = db.session()
    user = find(session, email)
    held = ledger.balances(session, [user.id])[user.id]
    output.show_one({"user": user.email, "balance": amount_text(held)}, as_json=as_json)


@group.command("reconcile")
@output.as_json
@output.one_line_errors
def reconcile(as_json: bool) -> None:
    """Compare every balance with the sum of its ledger entries. Exit code 1 where one is off."""
    found = ledger.reconcile(db.session())
    rows = [
        {
            "user_id": one.user_id,
            "ledger": amount_text(one.ledger),
            "balance": amount_text(one.balance),
        }
        for one in found
    ]
    output.show_list(rows, as_json=as_json)
    if found:
        raise click.exceptions.Exit(1)
    if not as_json:
        click.echo("Every balance is the sum of its ledger entries.")


def _amount(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise Invalid(f"{text} is not an amount") from None
