"""Families as Prometheus's text (format 0.0.4). By hand, because a library's takes a second for what this writes in some 50 ms
(docs/decisions/0043), and in turns, because a page of a thousand models is written on the loop that serves calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from dwctl.figures.families import Family, Kind, Number, Row
from dwctl.printable import printable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def written(families: Iterable[Family], pace: Callable[[], None] = lambda: None) -> bytes:
    """The page. `pace` is called after each series."""
    lines: list[str] = []
    for family in families:
        lines += (
            f"# HELP {family.name} {_escaped(family.text)}\n",
            f"# TYPE {family.name} {family.kind}\n",
        )
        row_lines = _histogram(family) if family.kind is Kind.HISTOGRAM else _plain(family)
        for text in row_lines:
            lines.append(text)
            pace()
    return "".join(lines).encode()


def _plain(family: Family) -> Iterator[str]:
    for labels, value in family.rows:
        assert not isinstance(value, list)
        shown = ",".join(_labels(family.labels, labels))
        yield (
            f"{family.name}{{{shown}}} {_number(value)}\n"
            if shown
            else f"{family.name} {_number(value)}\n"
        )


def _histogram(family: Family) -> Iterator[str]:
    bounds = [_number(float(bound)) for bound in family.bounds] + ["+Inf"]
    for row in family.rows:
        yield _series(family.name, family.labels, bounds, row)


def _series(name: str, names: tuple[str, ...], bounds: list[str], row: Row) -> str:
    labels, figures = row
    assert isinstance(figures, list)
    *buckets, total = figures
    counts = list(accumulate(buckets))
    shown = "".join(f"{label}," for label in _labels(names, labels))
    head = f'{name}_bucket{{{shown}le="'
    body = "".join(
        [f'{head}{bound}"}} {count}\n' for bound, count in zip(bounds, counts, strict=True)]
    )
    whole = f"{{{shown[:-1]}}}" if shown else ""
    return f"{body}{name}_count{whole} {counts[-1]}\n{name}_sum{whole} {_number(total)}\n"


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> list[str]:
    return [f'{name}="{_quoted(value)}"' for name, value in zip(names, values, strict=True)]


def _quoted(value: str) -> str:
    return _escaped(printable(value)).replace('"', '\\"')


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: Number) -> str:
    """As Go reads it."""
    if isinstance(value, float) and value == float("inf"):
        return "+Inf"
    return repr(value)
