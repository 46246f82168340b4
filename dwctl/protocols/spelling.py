"""Names of members that some decoder takes for others: `Model` for `model`. Pure.

Go's encoding/json takes names in any case (by Unicode's folding: `ſ` is an s, the Kelvin sign a k), and of several the last; its second version
can be told to overlook `_` and `-` too. What was judged by one name must not be said anew by another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


class Names:
    """A set of names, with what else is read as one of them."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._folded = {_folded(name) for name in self.names}

    def misspelt(self, given: Collection[str]) -> list[str]:
        """Those of `given` that are one of ours to some decoder, and not to us."""
        if self.names.issuperset(given):
            return []
        return [name for name in given if name not in self.names and _folded(name) in self._folded]


def _folded(name: str) -> str:
    # Upper case first: that is what makes an i of a dotless one. The dot is what folding leaves of a dotted capital.
    return name.upper().casefold().replace("\u0307", "").replace("_", "").replace("-", "")
