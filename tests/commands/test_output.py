"""What commands print of names, models and errors that come from outside."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import click
import pytest
from flask import Flask
from psycopg.errors import OperationalError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dwctl.commands import output
from dwctl.db import db
from dwctl.errors import Invalid

ODD = "a\x1b[2J\x1b]0;t\x07\nb\r\u202ec\u2028\x9b\x00"
ROW = {
    "name": ODD,
    "names": [ODD, "plain"],
    "at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    "id": UUID(int=7),
    "amount": Decimal("1E-9"),
    "yes": True,
    "nothing": None,
}


@pytest.mark.parametrize(
    "value",
    [
        {"price": Decimal("0.50"), "until": None, "on": True},
        [{"id": UUID(int=7), "from": datetime(2026, 1, 2, tzinfo=UTC), "name": ODD}],
    ],
)
def test_objects_inside_a_row_are_json(value: object) -> None:
    """A program's own notation of them (None, Decimal(...)) says nothing to people, and no command takes it."""
    text = output.shown(value)
    assert text.isprintable()
    read = json.loads(text)
    assert read in (
        {"price": "0.50", "until": None, "on": True},
        [{"id": str(UUID(int=7)), "from": "2026-01-02T00:00:00Z", "name": ODD}],
    )


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "show",
    [
        lambda **more: output.show_list([ROW, ROW], **more),
        lambda **more: output.show_one(ROW, **more),
    ],
    ids=["list", "one"],
)
def test_nothing_moves_the_cursor(
    show: Callable[..., None], as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show(as_json=as_json)
    printed = capsys.readouterr().out
    assert all(line.isprintable() for line in printed.split("\n"))
    if as_json:
        read = json.loads(printed)
        row = read[0] if isinstance(read, list) else read
        assert (row["name"], row["amount"], row["nothing"]) == (ODD, "0.000000001", None)
    else:
        assert len(printed.splitlines()) == (
            3
            if "name  " in printed.splitlines()[0] and "names" in printed.splitlines()[0]
            else len(ROW)
        )


@pytest.mark.parametrize(
    "error",
    [
        Invalid(ODD),
        DBAPIError.instance("SELECT 1", {"a": ODD}, OperationalError(ODD), OperationalError),
    ],
    ids=["refused", "database"],
)
def test_an_error_is_one_line(error: Exception) -> None:
    @output.one_line_errors
    def fail() -> None:
        raise error

    with pytest.raises(click.ClickException) as raised:
        fail()
    assert raised.value.message.isprintable()


def test_nothing_is_held_while_somebody_thinks(app: Flask) -> None:
    with app.app_context():
        db.session.execute(text("SELECT 1"))
        output.confirm("Deleting it", yes=True)
        assert not db.session().in_transaction()
