"""`/requests/aggregate`, `/requests/aggregate-by-user` and `/usage`: what was called and used, added up."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import Response

from dwctl import clock
from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource
from dwctl.db import db
from dwctl.errors import Invalid
from dwctl.usage import accounts, aggregates, breakdown, spans
from dwctl.usage import exporting as rows
from dwctl.usage.aggregates import Asked
from dwctl.usage.exporting import BY, Wanted
from dwctl.usage.reading import moment
from dwctl.usage.schemas import (
    AccountUsageSchema,
    AggregateExportQuery,
    AggregateQuery,
    AggregateSchema,
    BreakdownQuery,
    BreakdownSchema,
    ByUserQuery,
    ByUserSchema,
    UsageBreakdownQuery,
    UsageExportQuery,
    UsageQuery,
)
from dwctl.web import current, described, exporting
from dwctl.web.exporting import CONTENT_TYPES
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("usage", __name__, description="Calls, tokens, cost and times, added up.")
guard.protect(blueprint)

_DAY = timedelta(days=1)
_DOWNLOAD: dict[str, Any] = {
    "also_as": ("text/csv",),
    "headers": {"Content-Disposition": "A name for the file."},
}


@blueprint.route("/requests/aggregate", methods=["GET"])
@guard.requires(Resource.ANALYTICS, Operation.READ)
@blueprint.arguments(AggregateQuery, location="query")
@blueprint.response(200, AggregateSchema)
def aggregate_requests(query: dict[str, Any]) -> dict[str, Any]:
    """Add up calls by status, by model and over time

    Every log row is counted once, as soon as its call is answered. Names that no model has are counted, and not listed.
    """
    since, until = _times(query["timestamp_after"], query["timestamp_before"])
    asked = Asked(since, until, query["model"] or None, query["duration_minutes"])
    db.session.rollback()
    with moment(current.parts().connections) as connection:
        return aggregates.aggregate(connection, asked)


@blueprint.route("/requests/aggregate/export", methods=["GET"])
@guard.requires(Resource.ANALYTICS, Operation.READ)
@blueprint.arguments(AggregateExportQuery, location="query")
@blueprint.response(200, content_type=CONTENT_TYPES["jsonl"])
@described.says(**_DOWNLOAD)
def export_aggregate(query: dict[str, Any]) -> Response:
    """Download sums of calls as JSON lines or CSV

    A row for each point of time, and within it for each model, account, key or status, as `by` says.
    """
    since, until = _times(query["timestamp_after"], query["timestamp_before"])
    wanted = Wanted(
        since,
        until,
        _by(query["by"], BY),
        model=query["model"] or None,
        minutes=query["duration_minutes"],
    )
    return _download(wanted, name="requests", format=query["format"])


@blueprint.route("/requests/aggregate-by-user", methods=["GET"])
@guard.requires(Resource.ANALYTICS, Operation.READ)
@blueprint.arguments(ByUserQuery, location="query")
@blueprint.response(200, ByUserSchema)
def aggregate_requests_by_user(query: dict[str, Any]) -> dict[str, Any]:
    """Add up calls on a model by the account that made them"""
    since, until = _times(query["start_date"], query["end_date"])
    db.session.rollback()
    with moment(current.parts().connections) as connection:
        return aggregates.by_user(connection, Asked(since, until, query["model"]))


@blueprint.route("/requests/breakdown", methods=["GET"])
@guard.requires(Resource.ANALYTICS, Operation.READ)
@blueprint.arguments(BreakdownQuery, location="query")
@blueprint.response(200, BreakdownSchema)
def break_down_requests(query: dict[str, Any]) -> dict[str, Any]:
    """Tell calls apart by model, account, key, group or status, and over time

    Of everybody. Every log row is counted once, as soon as its call is answered, so that what was charged for them is what the ledger says.
    """
    db.session.rollback()
    with moment(current.parts().connections) as connection:
        asked, key_id = _broken_down(query), query["api_key_id"]
        if key_id is not None:
            asked = replace(asked, accounts=accounts.of_key(connection, key_id))
        return breakdown.read(connection, asked)


@blueprint.route("/usage/breakdown", methods=["GET"])
@blueprint.arguments(UsageBreakdownQuery, location="query")
@blueprint.response(200, BreakdownSchema)
def break_down_usage(query: dict[str, Any]) -> dict[str, Any]:
    """Tell an account's calls apart by model, key or status, and over time

    Calls of every status: what was charged for them is what the account's ledger says. Whose they are is asked for as in `/usage`.
    """
    caller = guard.identify()
    db.session.rollback()
    with moment(current.parts().connections) as connection:
        whose = accounts.of(connection, caller, query["user_id"]).with_key(query["api_key_id"])
        return breakdown.read(connection, replace(_broken_down(query), accounts=whose))


@blueprint.route("/usage", methods=["GET"])
@blueprint.arguments(UsageQuery, location="query")
@blueprint.response(200, AccountUsageSchema)
def get_usage(query: dict[str, Any]) -> dict[str, Any]:
    """Show what an account has used

    Calls that succeeded, of one's own or of an organisation. Without dates of all time.
    """
    caller = guard.identify()
    db.session.rollback()
    with moment(current.parts().connections) as connection:
        whose = accounts.of(connection, caller, query["user_id"])
        return accounts.read(connection, whose, query["start_date"], query["end_date"])


@blueprint.route("/usage/export", methods=["GET"])
@blueprint.arguments(UsageExportQuery, location="query")
@blueprint.response(200, content_type=CONTENT_TYPES["jsonl"])
@described.says(**_DOWNLOAD)
def export_usage(query: dict[str, Any]) -> Response:
    """Download what an account has used as JSON lines or CSV

    A row for each point of time, and within it for each model, key or status, as `by` says. By default of the last 24 hours.
    """
    since, until = _times(query["start_date"], query["end_date"])
    caller = guard.identify()
    db.session.rollback()
    with moment(current.parts().connections) as connection:
        whose = accounts.of(connection, caller, query["user_id"]).with_key(query["api_key_id"])
    wanted = Wanted(
        since,
        until,
        _by(query["by"], ("model", "key", "status")),
        model=query["model"] or None,
        accounts=whose,
        succeeded=not query["all_statuses"],
        minutes=query["duration_minutes"],
    )
    return _download(wanted, name="usage", format=query["format"])


def _download(wanted: Wanted, *, name: str, format: str) -> Response:
    db.session.rollback()
    pages = rows.pages(current.parts().connections, wanted)
    lines = exporting.lines(pages, wanted.columns, format=format)
    return exporting.answer(lines, name=name, format=format)


def _times(since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    """Both ends; by default the 24 hours before the end, which is now."""
    until = until or max(clock.now(), since or spans.EPOCH)
    return since or max(until, spans.EPOCH + _DAY) - _DAY, until


def _broken_down(query: dict[str, Any]) -> breakdown.Asked:
    since, until = _times(query["start_date"], query["end_date"])
    return breakdown.Asked(
        since,
        until,
        by=query["by"],
        order=query["order"],
        model=query["model"] or None,
        zone=ZoneInfo(query["time_zone"]),
        minutes=query["duration_minutes"],
        most=query["limit"],
        lines=query["lines"],
        compared=query["compare"],
    )


def _by(text: str, known: Any) -> tuple[str, ...]:
    """The known words of a comma list, each once."""
    words = dict.fromkeys(word.strip() for word in text.split(",") if word.strip())
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        raise Invalid(f"by: some of {', '.join(known)} are expected", param="by")
    return tuple(words)
