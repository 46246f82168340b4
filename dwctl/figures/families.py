"""A family is one name on the metrics page with all its series. Plain values: they travel between processes as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

import msgspec

from dwctl.figures.spreads import Spreads


class Kind(StrEnum):
    """As Prometheus calls it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """What a gauge of several processes is. (Counters and histograms are always sums.)"""

    SUM = "sum"
    LARGEST = "largest"
    SAME = "same"
    """It is of the deployment, and every process says the same of it."""


Number = int | float
Row = tuple[tuple[str, ...], Number | list[Number]]
"""Label values, and the number; of a histogram its buckets, each by itself, and at the end the total of its figures."""


class Family(msgspec.Struct, frozen=True, array_like=True):
    """`name` as it stands on the page (a counter's ends in `_total`). `bounds`: the upper ends of a histogram's buckets but the last."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...]
    rows: list[Row]
    bounds: tuple[float, ...] = ()
    merge: Merge = Merge.SUM


Labels = TypeVar("Labels", bound=tuple[str, ...])
Values = Mapping[Labels, Number] | Number
"""By the values of the labels; a family without labels has one number."""


def counter(name: str, text: str, labels: Sequence[str], values: Values[Labels]) -> Family:
    """What only grows while its process lives."""
    return Family(name, Kind.COUNTER, text, tuple(labels), _rows(values))


def gauge(
    name: str, text: str, labels: Sequence[str], values: Values[Labels], merge: Merge = Merge.SUM
) -> Family:
    """What goes up and down; it ends with its process."""
    return Family(name, Kind.GAUGE, text, tuple(labels), _rows(values), merge=merge)


def info(name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Family:
    """What is said of the deployment by labels: each row is 1."""
    return gauge(name, text, labels, dict.fromkeys(rows, 1), Merge.SAME)


def histogram(name: str, text: str, labels: Sequence[str], spreads: Spreads) -> Family:
    """How large figures were."""
    rows: list[Row] = [
        (values, [*spread.buckets, spread.total])
        for values, spread in list(spreads.by_labels.items())
    ]
    return Family(name, Kind.HISTOGRAM, text, tuple(labels), rows, spreads.bounds)


def _rows(values: Values[Labels]) -> list[Row]:
    if isinstance(values, Mapping):
        return list(values.items())
    return [((), values)]
