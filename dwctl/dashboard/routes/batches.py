"""Batches: listed, watched, retried, stopped, downloaded. How they are made: `batch_making`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from flask import Response, abort, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl import clock
from dwctl.access import guard
from dwctl.batches import routes as batches
from dwctl.dashboard import calls, forms, operations, pages, panels, ranges
from dwctl.dashboard.formatting import moment
from dwctl.downloads import routes as downloads
from dwctl.errors import NotFound
from dwctl.files.routes import files
from dwctl.monitoring import routes as monitoring
from dwctl.web import current, cursors

blueprint = pages.screen("batches")

PAGE = 50
OVER = frozenset({"completed", "failed", "expired", "cancelled"})
STATES = {
    "in_progress": "Unfinished",
    "completed": "Completed",
    "failed": "Failed",
    "expired": "Expired or late",
    "cancelled": "Cancelled",
}
LINE_STATES = ("waiting", "running", "completed", "failed", "cancelled")


@blueprint.before_request
def insist_on_batches() -> None:
    """Without the API of batches there is nothing to show."""
    if not current.settings().batches.enabled:
        raise NotFound("Batches are switched off here (batches.enabled).")


@blueprint.get("/batches")
def show() -> Response:
    """The list, what is not over first."""
    query = {
        "limit": PAGE,
        "active_first": "true",
        "include": "analytics,summary",
        "status": request.args.get("status") or None,
        "search": request.args.get("q") or None,
        "completion_window": request.args.get("window") or None,
        "after": request.args.get("after") or None,
    }
    found = operations.run(batches.list_batches, query=query)
    return pages.render(
        "batches/page.html",
        title="Batches",
        fragment="batches/_rows.html",
        batches=found["data"],
        further=pages.here(after=found["last_id"]) if found["has_more"] else None,
        is_live=any(one["status"] not in OVER for one in found["data"]),
        is_filtered=any(request.args.get(name) for name in ("q", "status", "window")),
        windows=current.settings().batches.allowed_completion_windows,
        states=STATES,
        may_make=operations.may(batches.create_batch),
        snippet=operations.snippet(batches.list_batches, query=query),
    )


@blueprint.get("/batches/<batch_id>")
def detail(batch_id: str) -> Response:
    """One batch: how far, at what cost, what went wrong, and its lines."""
    status = request.args.get("status") or None
    lines = panels.attempt(
        lambda: operations.run(
            monitoring.list_batch_lines,
            query={"status": status, "limit": PAGE},
            batch_id=batch_id,
        )
    )
    shown = _progress(batch_id)
    batch = shown["batch"]
    input_file_id = batch["input_file_id"]
    file = panels.attempt(lambda: operations.run(files.get_file, file_id=input_file_id))
    name = file.value["filename"] if file.value else f"Batch {batch['id']}"
    return pages.render(
        "batches/detail.html",
        title=name,
        file=file,
        lines=lines,
        failures=panels.attempt(
            lambda: operations.run(monitoring.group_batch_failures, batch_id=batch_id)
        ),
        line_state=status,
        further=cursors.further(),
        line_states=LINE_STATES,
        may_change=operations.may(batches.cancel_batch, batch_id=batch_id),
        snippet=operations.snippet(batches.get_batch, batch_id=batch_id),
        **shown,
    )


@blueprint.get("/batches/<batch_id>/progress")
def progress(batch_id: str) -> Response:
    """The part of a batch's page that moves."""
    return pages.render("batches/_progress.html", title="", is_part=True, **_progress(batch_id))


@blueprint.post("/batches/<batch_id>/cancel")
def cancel(batch_id: str) -> AnyResponse:
    """Stop it."""
    operations.run(batches.cancel_batch, batch_id=batch_id)
    return pages.done(url_for(".detail", batch_id=batch_id), "Batch is being cancelled.")


@blueprint.post("/batches/<batch_id>/retry")
def retry(batch_id: str) -> AnyResponse:
    """Run failed lines again: those that were chosen, or all of them."""
    chosen = request.form.getlist("request_ids")
    run = operations.run
    if request.form.get("which") == "chosen":
        made, form = forms.submit(
            lambda: run(batches.retry_requests, body={"request_ids": chosen}, batch_id=batch_id)
        )
    else:
        made, form = forms.submit(lambda: run(batches.retry_batch, batch_id=batch_id))
    where = url_for(".detail", batch_id=batch_id)
    if form.is_wrong:
        return pages.done(where, _why_not(form, chosen))
    return pages.done(where, _retried(made["retry"]))


@blueprint.post("/batches/<batch_id>/delete")
def delete(batch_id: str) -> AnyResponse:
    """Delete it; its files stay."""
    if request.form.get("confirm") != "delete":
        return pages.done(url_for(".detail", batch_id=batch_id), "Not deleted: type “delete”.")
    operations.run(batches.delete_batch, batch_id=batch_id)
    return pages.done(url_for(".show"), "Batch deleted.")


@blueprint.get("/batches/<batch_id>/results")
def results(batch_id: str) -> Any:
    """All lines with what they were asked and answered, as JSON lines to be saved."""
    answer = operations.run(
        downloads.get_batch_results,
        query={"status": request.args.get("status") or None},
        batch_id=batch_id,
    )
    return to_be_saved(answer, f"batch-{batch_id[:60]}-results.jsonl")


def to_be_saved(answer: Response, name: str) -> Response:
    """A download under this name; never shown by the browser, whatever is in it."""
    if not isinstance(answer, Response):
        abort(500)
    answer.headers.set("Content-Disposition", "attachment", filename=name)
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _progress(batch_id: str) -> dict[str, Any]:
    """What the part that moves shows."""
    batch = operations.run(batches.get_batch, batch_id=batch_id)
    end = next((batch[name] for name in _ENDS if name in batch), None)
    since, until = moment(batch["created_at"]), moment(end + 1 if end else clock.now())
    assert since is not None
    assert until is not None
    return {
        "batch": batch,
        "is_over": batch["status"] in OVER,
        "progress": panels.attempt(
            lambda: operations.run(monitoring.get_batch_progress, batch_id=batch_id)
        ),
        "used": panels.attempt(lambda: operations.run(batches.get_usage, batch_id=batch_id)),
        # (It may have begun before any usual range.)
        "in_log": calls.behind(
            ranges.absolute(since, until + timedelta(seconds=1)).text,
            of=_owner_if_own(batch),
            batch=batch_id,
        ),
        "steps": [(label, batch[name]) for name, label in _STEPS.items() if name in batch],
    }


def _owner_if_own(batch: dict[str, Any]) -> UUID | None:
    caller = guard.identify()
    by = (batch.get("metadata") or {}).get("created_by_email")
    return caller.owner_id if by == caller.email else None


_STEPS = {
    "created_at": "Created",
    "in_progress_at": "First line begun",
    "cancelling_at": "Cancelled by its owner",
    "finalizing_at": "All lines ended",
    "completed_at": "Completed",
    "failed_at": "Failed",
    "expired_at": "Window over",
    "cancelled_at": "All stopped",
}
_ENDS = ("completed_at", "failed_at", "cancelled_at", "expired_at")


def _why_not(form: forms.Form, chosen: list[str]) -> str:
    if request.form.get("which") == "chosen" and not chosen:
        return "Nothing was retried: choose failed requests first."
    return f"Nothing was retried: {form.problem or next(iter(form.errors.values()))}"


def _retried(retry: dict[str, Any]) -> str:
    count, refused = retry["retried"], len(retry["refused"])
    said = f"{count:,} {'request runs' if count == 1 else 'requests run'} again."
    return f"{said} {refused:,} had not failed any more." if refused else said
