"""The columns of a list of calls: which there are, and which the viewer has chosen (`columns=`, in their order)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from flask import request


@dataclass(frozen=True, slots=True)
class Column:
    """for_operators: it tells how calls were served, which owners are not told. is_usual: shown unless others are chosen."""

    name: str
    label: str
    is_number: bool = False
    is_usual: bool = True
    for_operators: bool = False
    title: str = ""


ALL: Final = (
    Column("time", "Time"),
    Column("model", "Model"),
    Column("outcome", "Outcome"),
    Column("caller", "Caller"),
    Column("tier", "Tier"),
    Column("input", "In", is_number=True, title="Input tokens"),
    Column("output", "Out", is_number=True, title="Output tokens"),
    Column("first", "First token", is_number=True, title="Until the first byte of the answer"),
    Column("duration", "Duration", is_number=True, title="The bar is logarithmic, from 10 ms to 10 min"),
    Column("cost", "Cost", is_number=True),
    Column("path", "Path", is_usual=False),
    Column("finish", "Finish", is_usual=False, title="Why the model stopped"),
    Column("batch", "Batch", is_usual=False),
    Column("served_by", "Endpoint", is_usual=False, for_operators=True),
    Column("id", "Request id", is_usual=False),
)  # fmt: skip
_FIXED = frozenset({"time", "outcome"})
"""Without these a row says nothing."""
_SHORTEST_MS, _LONGEST_MS = 10.0, 600_000.0


def offered(*, operator: bool) -> list[Column]:
    """Those that the viewer can choose from."""
    return [column for column in ALL if operator or not column.for_operators]


def chosen(*, operator: bool) -> list[Column]:
    """Those that the address names, else the usual ones; what is none is left out."""
    names = _FIXED | set(",".join(request.args.getlist("columns")).split(","))
    found = [column for column in offered(operator=operator) if column.name in names]
    if len(found) > len(_FIXED):
        return found
    return [column for column in ALL if column.is_usual]


def length(ms: float | None) -> float:
    """How long the bar of a duration is, 0 to 1: the same on every page, whatever else is on it."""
    if not ms or ms <= _SHORTEST_MS:
        return 0.02
    return min(1.0, math.log(ms / _SHORTEST_MS) / math.log(_LONGEST_MS / _SHORTEST_MS))
