"""Overview: whether it works, what it costs, what broke, what waits."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Any

from flask import Response, current_app, request

from dwctl.access import guard
from dwctl.dashboard import (
    breakdowns,
    charts,
    doors,
    first_call,
    first_run,
    operations,
    pages,
    panels,
    ranges,
)
from dwctl.dashboard.calls import behind, listing, usual_account
from dwctl.identity.routes.users import get_user
from dwctl.monitoring.routes import count_pending_requests, list_daemons
from dwctl.operations import health
from dwctl.request_log.routes import list_requests

blueprint = pages.screen("overview")

_TOP = 6
_LAST = 6
_DAY_S = 86400


@blueprint.get("/")
def show() -> Response:
    """The screen."""
    range = ranges.asked()
    by = "user" if breakdowns.is_everybodys() else "key"
    with breakdowns.one_moment():
        calls = breakdowns.read(range, order="requests", limit=_TOP, compare="true")
        spenders = panels.attempt(
            lambda: breakdowns.read(
                range, by=by, order="cost", **breakdowns.NO_SERIES | {"limit": _TOP}
            )
        )
    total = calls["total"]
    is_new = total["requests"] == total["errors"] and not first_run.is_over()
    target = first_call.target_of(guard.identify().owner_id) if is_new else None
    return pages.render(
        "overview/page.html",
        title="Overview",
        steps=first_run.steps(target) if is_new else [],
        target=target,
        chart=breakdowns.chart(calls, by="model", order="requests"),
        spenders=spenders,
        spend_by=by,
        door=partial(doors.row, of=None if by == "user" else guard.identify().owner_id),
        named=breakdowns.named,
        colors=breakdowns.colors(calls),
        api=operations.snippet(breakdowns.view(), query=breakdowns.query(range, order="requests", compare="true")),
        **_now(range, calls),
    )  # fmt: skip


@blueprint.get("/overview/now")
def show_now() -> Response:
    """The figures at the top, for when the page asks again."""
    range = ranges.asked()
    calls = breakdowns.read(range, compare="true", **breakdowns.NO_SERIES)
    return pages.render(
        "overview/now.html", title="Now", fragment="overview/_now.html", **_now(range, calls)
    )


@blueprint.get("/overview/calls.json")
def show_chart() -> Response:
    """The calls of the chart, for when it asks again."""
    calls = breakdowns.read(ranges.asked(), order="requests", limit=_TOP)
    return charts.answer(breakdowns.chart(calls, by="model", order="requests"))


@blueprint.get("/overview/failed")
def show_failed() -> Response:
    """The last calls that failed; the page asks for them when it stands, since only they are read from the log."""
    range = ranges.asked()
    query = {"status_code_min": 300, "timestamp_after": range.since.isoformat(), "timestamp_before": range.until.isoformat(), "limit": _LAST}  # fmt: skip
    path: dict[str, Any] = {} if operations.may(list_requests) else {"user_id": usual_account()}
    found = operations.run(listing(), query=query, **path)
    return pages.render(
        "overview/failed.html",
        title="Last failed calls",
        fragment="overview/_failed.html",
        range=range,
        failed=found["entries"],
    )


@blueprint.get("/overview/first-run")
def show_first_run() -> Response:
    """The steps as they stand; once nothing is left to do, the page begins anew.

    It is asked for every few seconds, and says again which model the page has found to be called.
    """
    named = first_call.target_named(request.args.get("model"), request.args.get("path"))
    left = first_run.steps(named or first_call.target_of(guard.identify().owner_id))
    response = pages.render(
        "overview/first_run.html",
        title="First steps",
        fragment="overview/_first_run.html",
        steps=left,
    )
    if pages.is_partial() and all(step.is_done for step in left):
        response.headers["HX-Refresh"] = "true"
    return response


def _now(range: ranges.Range, calls: breakdowns.Found) -> dict[str, Any]:
    runs_the_place = operations.may(count_pending_requests)
    return {
        "range": range,
        "calls": calls,
        "behind": partial(behind, breakdowns.covered(calls)),
        "is_everybodys": breakdowns.is_everybodys(),
        "balance": _balance(range, calls["total"]),
        "queue": panels.attempt(_queue) if runs_the_place else None,
        "problems": _problems() if runs_the_place else [],
    }


def _balance(range: ranges.Range, total: Any) -> dict[str, Any] | None:
    """What is left on the reader's account, and for how many days at the spend of this range; of those who see everybody's there is none to show."""
    if breakdowns.is_everybodys():
        return None
    account = operations.run(get_user, query={"include": "billing"}, user_id=guard.identify().owner_id)  # fmt: skip
    left = account.get("credit_balance_exact")
    if left is None:
        return None
    days = (range.until - range.since).total_seconds() / _DAY_S
    a_day = Decimal(total["cost"]) / Decimal(days)
    return {"left": left, "days": Decimal(left) / a_day if a_day > 0 else None}


def _queue() -> dict[str, Any]:
    """What is not over, and who works on it."""
    waiting = operations.run(count_pending_requests)
    daemons = operations.run(list_daemons, query={"status": "running"})["daemons"]
    models = sorted(((max(windows.values()), model) for model, windows in waiting.items()), reverse=True)  # fmt: skip
    return {
        "total": sum(requests for requests, _ in models),
        "models": models[:_TOP],
        "processes": daemons,
        "in_flight": sum(one["stats"]["requests_in_flight"] for one in daemons),
    }


def _problems() -> list[str]:
    """What readiness has to say, in its own words."""
    checks = health.look(current_app.extensions["dwctl.gateway"])
    return [check.problem for check in checks.values() if check.problem]
