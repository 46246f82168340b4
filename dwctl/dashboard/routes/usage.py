"""Usage: who and what spends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from flask import Response, request

from dwctl.access import guard
from dwctl.dashboard import breakdowns, calls, doors, formatting, operations, pages, panels, ranges
from dwctl.errors import Invalid
from dwctl.identity.routes.found_api_keys import find_api_key
from dwctl.identity.routes.users import get_user
from dwctl.usage.routes import export_aggregate, export_usage

blueprint = pages.screen("usage")

EVERYBODYS_WAYS = {"model": "Model", "user": "Person", "key": "API key", "group": "Group", "status": "Status"}  # fmt: skip
OWN_WAYS = {"model": "Model", "key": "API key", "status": "Status"}
MEASURES = {"cost": "Spend", "requests": "Calls", "tokens": "Tokens"}
KINDS = {"stack": "Stacked", "line": "Lines"}
_EXPORTED = frozenset({"model", "user", "key", "status"})
_ROWS = 50


@blueprint.get("/usage")
def show() -> Response:
    """The screen."""
    range, of, key = ranges.asked(), _id("user"), _id("key")
    is_everybodys = of is None and breakdowns.is_everybodys()
    ways = EVERYBODYS_WAYS if is_everybodys else OWN_WAYS
    by, order = _one_of("by", ways), _one_of("order", MEASURES)
    # What a call may be in twice does not stack.
    kind = "line" if by == "group" else _one_of("kind", KINDS)
    asked = {"by": by, "order": order, "limit": _ROWS, "compare": "true", "model": request.args.get("model") or None, "api_key_id": key and str(key)}  # fmt: skip
    found = breakdowns.read(range, of=of, **asked)
    return pages.render(
        "usage/page.html",
        title="Usage",
        range=range,
        found=found,
        behind=partial(calls.behind, breakdowns.covered(found), of=of),
        ways=ways,
        by=by,
        measures=MEASURES,
        order=order,
        kinds=KINDS,
        kind=kind,
        only={"model": asked["model"], "key": key and str(key)},
        of=of,
        chips=list(_chips(of, key)),
        is_everybodys=is_everybodys,
        # Sums by key and time of everybody's calls are in no download.
        can_export=by in _EXPORTED and not (is_everybodys and key),
        chart=breakdowns.chart(found, by=by, order=order),
        colors=breakdowns.colors(found),
        named=breakdowns.named,
        door=partial(doors.row, of=None if is_everybodys else of or guard.identify().owner_id),
        api=operations.snippet(breakdowns.view(of), query=breakdowns.query(range, of=of, **asked)),
    )


@blueprint.get("/usage/export")
def export() -> Response:
    """The same rows by point of time, as a file: what the export of the API gives."""
    range, of, key = ranges.asked(), _id("user"), _id("key")
    by, format = request.args.get("by", "model"), request.args.get("format", "csv")
    more: dict[str, Any] = {"model": request.args.get("model") or None}
    if of is None and key is None and operations.may(export_aggregate):
        query = {"timestamp_after": range.since.isoformat(), "timestamp_before": range.until.isoformat()}  # fmt: skip
        view = export_aggregate
    else:
        query = {"start_date": range.since.isoformat(), "end_date": range.until.isoformat()}
        view = export_usage
        more |= {"all_statuses": "true", "user_id": of and str(of), "api_key_id": key and str(key)}
    answer: Response = operations.run(view, query={**query, **more, "by": by, "format": format})
    return answer


def _chips(of: UUID | None, key: UUID | None) -> Iterator[calls.Filter]:
    """Of whom and with what the calls are, where the address says it, for chips that take that off."""
    if of is not None:
        account = panels.attempt(lambda: operations.run(get_user, user_id=of)).value
        yield calls.Filter("user", "Account", account["email"] if account else str(of))
    if key is not None:
        found = panels.attempt(lambda: operations.run(find_api_key, key_id=key)).value
        yield calls.Filter("key", "Key", formatting.key_name(found["name"]) if found else str(key))


def _id(name: str) -> UUID | None:
    """An id that the address may have. Raises Invalid."""
    text = request.args.get(name)
    try:
        return UUID(text) if text else None
    except ValueError:
        raise Invalid(f"{name}: an id is expected", param=name) from None


def _one_of(name: str, choices: Mapping[str, str]) -> str:
    """What the address says of one of the page's choices; the first where it says nothing. Raises Invalid."""
    first = next(iter(choices))
    chosen = request.args.get(name) or first
    if chosen not in choices:
        raise Invalid(f"{name}: one of {', '.join(choices)}", param=name)
    return chosen
