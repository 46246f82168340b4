"""`dwctl credits`: balances and grants, from the command line."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal, InvalidOperation
from itertools import islice

import click
from flask.cli import AppGroup

from dwctl.billing import ledger, verification
from dwctl.billing.money import amount_text, short_text
from dwctl.commands import output
from dwctl.commands.users import find
from dwctl.db import connect, db
from dwctl.errors import Invalid
from dwctl.identity.tables import NIL
from dwctl.usage import verification as usage_verification
from dwctl.web import current

group = AppGroup("credits", help="Balances and grants: grant, balance, verify.")

_CHECKS = (*verification.CHECKS, *usage_verification.CHECKS)
"""What `verify` looks at: the checks of every room that has some."""


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


@group.command("verify")
@click.option("--repair", is_flag=True, help="Sum up anew what is wrong, where that can be done.")
@output.limit
@output.as_json
@output.one_line_errors
def verify(repair: bool, limit: int, as_json: bool) -> None:
    """Sum up all that is known of money, and compare. Exit code 1 where something does not add up; silent where everything does.

    Balances against the ledger, what is reserved against the reservations, what capped keys have spent, what batches have cost, each charge
    against the log of calls, and the sums of what was used against that. It reads the whole ledger, at one moment, and holds up nobody.
    """
    with closing(connect(current.settings())) as connection:
        found = list(islice(verification.findings(connection, _CHECKS), limit))
        left = [one for one in found if not (repair and verification.repair(connection, one))]
    rows = [
        {
            "check": one.check.name,
            "subject": one.subject,
            "expected": short_text(one.expected),
            "found": short_text(one.found),
            "repaired": one not in left,
        }
        for one in found
    ]
    output.show_list(rows, as_json=as_json)
    if left:
        raise click.exceptions.Exit(1)


def _amount(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise Invalid(f"{text} is not an amount") from None
