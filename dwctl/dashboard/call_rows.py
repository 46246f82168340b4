"""The rows of a list of calls, as HTML.

A page has fifty, of ten cells each. A template takes four times as long for them: it looks up each name anew, and escapes what it has escaped. Here each
text from outside is escaped once, where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any
from uuid import UUID

from flask import url_for
from markupsafe import Markup

from dwctl.clock import id_text
from dwctl.dashboard import call_columns, calls, doors
from dwctl.dashboard.assets import asset
from dwctl.dashboard.formatting import (
    NOTHING,
    Stamp,
    duration,
    exact_money,
    key_name,
    money,
    number,
    stamps,
)

Call = Mapping[str, Any]
"""As the log's operations have it, or as they show it: ids, times and money may be texts, and what is not known may be None or not there."""

_ANY = UUID(int=0)
"""Stands for ids in addresses that are made once for all."""
_NONE = f'<span class="muted">{NOTHING}</span>'
_WARNINGS = frozenset({402, 408, 409, 429, 499})

_Has = Callable[[doors.Id | None], bool]


@dataclass(frozen=True, slots=True)
class Rows:
    """How one reader sees them. everybodys: whether they see whose each is.

    call, key, batch, people: the addresses where cells lead, as what stands before the id and behind it; people: where anybody's page may be opened. models: addresses by alias; callers: their cells; open: where `doors` lead. Of these three, as
    far as they were asked for.
    """

    cells: tuple[Callable[[Rows, Call], str], ...]
    stamp: Callable[[datetime | str], Stamp]
    everybodys: bool
    call: tuple[str, str]
    models: dict[str, str]
    callers: dict[tuple[Any, ...], str]
    key: tuple[str, str]
    batch: tuple[str, str]
    people: tuple[str, str] | None
    open: dict[tuple[_Has, Any], bool]
    copy: str
    """The icon of a button that copies."""

    @classmethod
    def of(cls, columns: Iterable[call_columns.Column], kept: Mapping[str, Any]) -> Rows:
        """For the request at hand. kept: what a call's link takes along, so that its page knows its neighbours in this list."""
        people = doors.person(_ANY)
        return cls(
            tuple(_CELLS[column.name] for column in columns),
            stamps(),
            calls.reads_all(),
            call=_around(url_for("ui_requests.detail", request_id=_ANY, **kept)),
            models={},
            callers={},
            people=None if people is None else _around(people),
            key=_around(url_for("ui_keys.detail", key_id=_ANY)),
            batch=_around(url_for("ui_batches.detail", batch_id=_ANY)),
            open={},
            copy=f'<svg class="icon" aria-hidden="true"><use href="{asset("vendor/icons.svg")}#copy"/></svg>',
        )  # fmt: skip

    def written(self, calls: Iterable[Call]) -> Markup:
        """The rows."""
        return Markup("\n".join(map(self.row, calls)))

    def row(self, call: Call) -> str:
        """One of them."""
        # (Its id stands in several cells, and a UUID writes itself anew each time.)
        id = id_text(call["request_id"])
        written = {**call, "request_id": id}
        cells = "\n".join([write(self, written) for write in self.cells])
        return f'<tr data-row="{id}">\n{cells}\n</tr>'

    def model(self, alias: str) -> str:
        """The address of a model's page, escaped."""
        if alias not in self.models:
            self.models[alias] = escape(url_for("ui_models.detail", alias=alias))
        return self.models[alias]

    def leads(self, has: _Has, account: Any) -> bool:
        """Whether what an account has of a kind has pages for the reader. Asked once for everybody's, and where these have none once for each account."""
        if self._asked(has, None):
            return True
        return self._asked(has, account)

    def _asked(self, has: _Has, account: Any) -> bool:
        which = (has, account)
        if which not in self.open:
            self.open[which] = has(account)
        return self.open[which]


def _around(url: str) -> tuple[str, str]:
    before, _, behind = url.partition(str(_ANY))
    return escape(before), escape(behind)


def _time(rows: Rows, call: Call) -> str:
    at, (before, behind) = rows.stamp(call["timestamp"]), rows.call
    return (
        f'<td class="time"><a href="{before}{call["request_id"]}{behind}"><time datetime="{at.iso}" title="{at.iso}">'
        f'<span class="muted day">{at.day}</span> {at.clock}</time></a></td>'
    )


def _model(rows: Rows, call: Call) -> str:
    alias = call.get("model")
    shown = escape(alias) if alias else _NONE
    if alias and call.get("error_code") != "model_not_found":
        shown = f'<a href="{rows.model(alias)}">{shown}</a>'
    return f'<td class="model">{shown}</td>'


def _outcome(_rows: Rows, call: Call) -> str:
    status, why = call["status_code"], escape(call.get("error_code") or "")
    kind = "good" if status < 400 else "warn" if status in _WARNINGS else "bad"
    said = f' <span class="muted">{why}</span>' if why else ""
    return (
        f'<td class="outcome" title="{why}"><span class="status {kind}">{status}</span>{said}</td>'
    )


def _caller(rows: Rows, call: Call) -> str:
    # (A few callers make most calls.)
    who = (call.get("user_id"), call.get("api_key_id"), call.get("request_origin"))
    cell = rows.callers.get(who)
    if cell is None:
        cell = f'<td class="caller rare">{_person(rows, call)}{_way(rows, call)}</td>'
        rows.callers[who] = cell
    return cell


def _person(rows: Rows, call: Call) -> str:
    email = call.get("user_email")
    if not rows.everybodys or not email:
        return ""
    id, shown = call["user_id"], escape(email)
    if rows.people is not None:
        before, behind = rows.people
        return f'<a href="{before}{id_text(id)}{behind}">{shown}</a> '
    href = doors.person(id)
    return f"{shown} " if href is None else f'<a href="{escape(href)}">{shown}</a> '


def _way(rows: Rows, call: Call) -> str:
    """By which key, or by what else."""
    name, owner = call.get("api_key_name"), call.get("user_id")
    if name:
        shown, (before, behind) = escape(key_name(name)), rows.key
        if not rows.leads(doors.has_keys, owner):
            return f'<span class="muted">{shown}</span>'
        return f'<a class="muted" href="{before}{id_text(call["api_key_id"])}{behind}">{shown}</a>'
    if call.get("request_origin") == "frontend":
        return '<span class="tag">playground</span>'
    return "" if owner else '<span class="muted">nobody</span>'


def _tier(_rows: Rows, call: Call) -> str:
    tier = call["tier"]
    if tier == "realtime":
        return '<td class="tier rare"><span class="muted">realtime</span></td>'
    within = call.get("batch_sla")
    return f'<td class="tier rare"><span class="tag">{tier}{f" {escape(within)}" if within else ""}</span></td>'


def _input(_rows: Rows, call: Call) -> str:
    return f'<td class="num rare">{number(call.get("prompt_tokens"))}</td>'


def _output(_rows: Rows, call: Call) -> str:
    return f'<td class="num rare">{number(call.get("completion_tokens"))}</td>'


def _first(_rows: Rows, call: Call) -> str:
    return f'<td class="num rare">{duration(call.get("duration_to_first_byte_ms"))}</td>'


def _duration(_rows: Rows, call: Call) -> str:
    ms = call.get("duration_ms")
    kind = "bad" if call["status_code"] > 299 else ""
    return (
        f'<td class="num last"><span class="share"><svg class="share-bar {kind}" viewBox="0 0 40 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="40" height="6" class="ground"/><rect width="{round(40 * call_columns.length(ms), 2)}" height="6" class="filled"/></svg>'
        f"<span>{duration(ms)}</span></span></td>"
    )


def _cost(_rows: Rows, call: Call) -> str:
    cost = call.get("total_cost")
    shown = _NONE if cost is None else f'<span class="money" title="{exact_money(cost or 0)}">{money(cost)}</span>'  # fmt: skip
    return f'<td class="num last">{shown}</td>'


def _path(_rows: Rows, call: Call) -> str:
    uri = escape(call.get("uri") or "")
    return f'<td class="mono" title="{escape(call.get("method") or "")} {uri}">{uri}</td>'


def _finish(_rows: Rows, call: Call) -> str:
    return f"<td>{escape(call.get('finish_reason') or NOTHING)}</td>"


def _batch(rows: Rows, call: Call) -> str:
    id = call.get("fusillade_batch_id")
    if not id:
        return f"<td>{_NONE}</td>"
    shown, (before, behind) = escape(call.get("custom_id") or str(id)), rows.batch
    if not rows.leads(doors.has_batches, call.get("user_id")):
        return f'<td class="mono">{shown}</td>'
    return f'<td><a class="mono" href="{before}{id}{behind}">{shown}</a></td>'


def _served_by(_rows: Rows, call: Call) -> str:
    return f"<td>{escape(call.get('served_by') or NOTHING)}</td>"


def _id(rows: Rows, call: Call) -> str:
    id = call["request_id"]
    return f'<td><span class="id"><code>{id}</code><button type="button" class="bare" data-copy="{id}" aria-label="Copy {id}">{rows.copy}</button></span></td>'


_CELLS: Mapping[str, Callable[[Rows, Call], str]] = {
    "time": _time,
    "model": _model,
    "outcome": _outcome,
    "caller": _caller,
    "tier": _tier,
    "input": _input,
    "output": _output,
    "first": _first,
    "duration": _duration,
    "cost": _cost,
    "path": _path,
    "finish": _finish,
    "batch": _batch,
    "served_by": _served_by,
    "id": _id,
}
"""By the names of columns."""
