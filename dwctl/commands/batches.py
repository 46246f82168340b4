"""`dwctl batches`: everybody's batches, from the command line."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup

from dwctl import sql
from dwctl.audit import noting
from dwctl.batches import changes, listing, usage
from dwctl.batches.batch_object import batch_object, status_of
from dwctl.commands import output
from dwctl.commands.users import find
from dwctl.db import db
from dwctl.errors import Invalid, NotFound
from dwctl.identity import people
from dwctl.monitoring import progress
from dwctl.queue import identifiers
from dwctl.queue.tables import Batch
from dwctl.web import current
from dwctl.web.pagination import substring

_QUERIES = sql.load("dwctl.commands")

group = AppGroup("batches", help="Batches, whosever they are: list, show, cancel, retry.")


@group.command("list")
@click.option("--owner", metavar="EMAIL", help="Those of this account only.")
@click.option("--status", type=click.Choice(list(listing.STATUSES)))
@click.option("--search", help="Part of the id, the input file's name or the metadata.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1))
@output.as_json
@output.one_line_errors
def list_batches(
    owner: str | None, status: str | None, search: str | None, limit: int, as_json: bool
) -> None:
    """List batches, newest first."""
    session = db.session()
    criteria = listing.Criteria(
        owner=None if owner is None else str(find(session, owner).id),
        status=status,
        search=substring(search),
    )
    found = listing.page(session, criteria, after=None, limit=limit, active_first=False)
    output.show_list(_rows(found), as_json=as_json)


@group.command("show")
@click.argument("batch_id", metavar="ID")
@output.as_json
@output.one_line_errors
def show(batch_id: str, as_json: bool) -> None:
    """Show a batch: how far it is, what holds it up, what it has cost."""
    output.show_one(_described(_found(batch_id)), as_json=as_json)


@group.command("cancel")
@click.argument("batch_id", metavar="ID")
@output.as_json
@output.one_line_errors
def cancel(batch_id: str, as_json: bool) -> None:
    """Stop a batch. One that is over is left as it is."""
    batch = _found(batch_id)
    id, owner = batch.id, batch.created_by
    db.session.rollback()
    with current.parts().connections.transaction() as connection:
        changes.cancel(connection, id)
        if connection.execute(_QUERIES["is_cancelled_now"], {"id": id}).fetchone():
            noting.note(connection, "batch", "cancelled", str(id), related=owner)
    output.show_one(_rows([_found(batch_id)])[0], as_json=as_json)


@group.command("retry")
@click.argument("batch_id", metavar="ID")
@output.as_json
@output.one_line_errors
def retry(batch_id: str, as_json: bool) -> None:
    """Run the failed lines of a batch again."""
    batch = _found(batch_id)
    id, owner = batch.id, batch.created_by
    db.session.rollback()
    with current.parts().connections.transaction() as connection:
        retried = changes.retry(connection, id)
        if retried:
            noting.note(connection, "batch", "retried", str(id), related=owner, after={"requests": retried})  # fmt: skip
    if not retried:
        raise Invalid("No failed requests to retry in this batch")
    output.show_one({**_rows([_found(batch_id)])[0], "retried": retried}, as_json=as_json)


def _found(text: str) -> Batch:
    id = identifiers.parse("batch", text)
    found = db.session().get(Batch, id)
    if found is None or found.single or found.deleted_at is not None:
        raise _unknown(id)
    return found


def _unknown(id: UUID) -> NotFound:
    return NotFound(f"There is no batch with the ID {id}")


def _rows(batches: list[Batch]) -> list[dict[str, Any]]:
    known = people.behind(db.session(), (batch.created_by for batch in batches), ())
    return [
        {
            "id": batch.id,
            "status": status_of(batch).value,
            "total": batch.total_requests,
            "completed": batch.completed_requests,
            "failed": batch.failed_requests,
            "cancelled": batch.canceled_requests,
            "window": batch.completion_window,
            "created": batch.created_at,
            "due": batch.expires_at,
            "owner": owner.email if (owner := known.owner(batch.created_by)) else batch.created_by,
        }
        for batch in batches
    ]


def _described(batch: Batch) -> dict[str, Any]:
    far = _progress(batch.id)
    used = usage.of(db.session(), [batch.id])[batch.id]
    errors = batch_object(batch, {}, batch.created_at).get("errors", {"data": []})
    return {
        **_rows([batch])[0],
        "running": far["requests"]["running"],
        "limited_by": far["limited_by"],
        "models": [model["model"] for model in far["models"]],
        "tokens": used["total_tokens"],
        "cost": used["total_cost"],
        "input_file": batch.file_id,
        "output_file": batch.output_file_id,
        "error_file": batch.error_file_id,
        "errors": [error.get("message", error.get("code")) for error in errors["data"]],
    }


def _progress(id: UUID) -> dict[str, Any]:
    parts = current.parts()
    with parts.connections.transaction() as connection:
        found = progress.find(
            connection,
            id,
            dead_after_s=parts.settings.daemons.dead_after,
            default_cap=parts.settings.background_services.batch_daemon.default_model_concurrency,
        )
    if found is None:
        raise _unknown(id)
    return progress.described(*found)
