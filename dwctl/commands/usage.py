"""`dwctl usage`: what was called and used, from the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup
from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.commands import output
from dwctl.commands.users import find
from dwctl.db import db
from dwctl.errors import Invalid
from dwctl.identity.tables import NIL, ApiKey, User
from dwctl.usage import exporting
from dwctl.usage.accounts import Accounts
from dwctl.usage.exporting import BY, Row, Wanted
from dwctl.web import current

group = AppGroup("usage", help="What was called and used: show.")

_DAY = timedelta(days=1)


@group.command("show")
@click.option("--by", default="model", show_default=True, help="Some of model,user,key,status.")
@click.option("--since", metavar="TIME", help="2026-01-31, or 2026-01-31T10:20Z; by default a day before the end.")  # fmt: skip
@click.option("--until", metavar="TIME", help="By default now.")
@click.option("--user", metavar="EMAIL|ID", help="Only calls of this account.")
@click.option("--model", metavar="ALIAS", help="Only calls on this model.")
@output.limit
@output.as_json
@output.one_line_errors
def show(
    by: str,
    since: str | None,
    until: str | None,
    user: str | None,
    model: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Add up calls of a time, the most called first.

    Of every status; whole minutes. An empty model stands for names that none has, and an empty user for nobody.

    \b
    dwctl usage show --by user --since 2026-01-01
    dwctl usage show --by key,model --user ada@example.com --json
    """
    wanted = Wanted(
        *_times(since, until),
        by=_by(by),
        model=model,
        accounts=None if user is None else Accounts((find(db.session(), user).id,)),
        one_point=True,
    )
    # Names are looked up on the same pool, when the sums have been read.
    db.session.rollback()
    found = list(chain.from_iterable(exporting.pages(current.parts().connections, wanted)))
    found.sort(key=lambda row: -row["requests"])
    output.show_list(_named(db.session(), found[:limit], wanted), as_json=as_json)


def _named(session: Session, rows: list[Row], wanted: Wanted) -> list[Row]:
    """Rows with the names of accounts and keys, where they have any, and without what all of them share."""
    emails = _names(session, User, User.email, {row.get("user_id") for row in rows})
    keys = _names(session, ApiKey, ApiKey.name, {row.get("api_key_id") for row in rows})
    return [
        {
            **{one: {"user": emails, "key": keys}.get(one, {}).get(row[BY[one]], _shown(row[BY[one]])) for one in wanted.by},
            **{name: row[name] for name in exporting.MEASURES},
        }
        for row in rows
    ]  # fmt: skip


def _names(session: Session, table: Any, name: Any, ids: set[Any]) -> dict[Any, str]:
    wanted = [id for id in ids if id is not None and id != NIL]
    rows = session.execute(select(table.id, name).where(table.id.in_(wanted)))
    return {row.id: row[1] for row in rows}


def _shown(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value) if value.int else ""
    return value


def _times(since: str | None, until: str | None) -> tuple[datetime, datetime]:
    end = _time(until) or clock.now()
    begin = _time(since) or end - _DAY
    if begin > end:
        raise Invalid("--since must not be after --until")
    return begin, end


def _time(text: str | None) -> datetime | None:
    """ISO 8601; without an offset it is UTC."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Invalid(f"{text} is no time such as 2026-01-31 or 2026-01-31T10:20Z") from None


def _by(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words or not set(words) <= set(BY):
        raise Invalid(f"--by takes some of {','.join(BY)}")
    return words
