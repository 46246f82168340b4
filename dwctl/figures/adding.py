"""The sum over processes. Counters and histograms are added up, also those of processes that have ended; gauges are merged as they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from dwctl.figures.families import Family, Kind, Merge, Number


class Total:
    """Families of several processes, on their way to being one."""

    def __init__(self, pace: Callable[[], None] = lambda: None) -> None:
        """`pace` is called after each family, so that others have their turn."""
        self._pace = pace
        self._families: dict[str, Family] = {}
        self._rows: dict[str, dict[tuple[str, ...], Number | list[Number]]] = {}

    def add(self, families: Iterable[Family], *, alive: bool = True) -> None:
        """Those of one more process. Of one that has ended its gauges have ended, too."""
        for family in families:
            if alive or family.kind is not Kind.GAUGE:
                self._add(family)
            self._pace()

    def families(self) -> list[Family]:
        """The sums."""
        return [
            msgspec.structs.replace(family, rows=list(self._rows[name].items()))
            for name, family in self._families.items()
        ]

    def _add(self, family: Family) -> None:
        known = self._families.setdefault(family.name, family)
        if (known.kind, known.labels, known.bounds) != (family.kind, family.labels, family.bounds):
            return  # What another version of this program has left behind.
        rows = self._rows.setdefault(family.name, {})
        for labels, value in family.rows:
            before = rows.get(labels)
            rows[labels] = value if before is None else _merged(before, value, family.merge)


def _merged(
    one: Number | list[Number], other: Number | list[Number], merge: Merge
) -> Number | list[Number]:
    if isinstance(one, list) and isinstance(other, list):
        return [a + b for a, b in zip(one, other, strict=True)]
    assert not isinstance(one, list)
    assert not isinstance(other, list)
    return one + other if merge is Merge.SUM else max(one, other)
