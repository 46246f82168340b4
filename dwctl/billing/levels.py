"""How much money an account has, as roughly as routing knows it: the levels of `funds_level` (functions.sql). Pure.

A process hears of another level, and of no other change of a balance: so what it knows of an account is a lower bound, as of the last second.
"""

from __future__ import annotations

from decimal import Decimal

from dwctl.billing.money import units

_LEAST = (Decimal(0), Decimal(0), *(Decimal(10) ** n for n in range(7)))
_LEAST_UNITS = tuple(map(units, _LEAST))


def least(level: int) -> Decimal:
    """What an account of that level has at least, in USD; level 0 has nothing, level 1 something."""
    return _LEAST[level]


def least_units(level: int) -> int:
    """The same in `money.units`."""
    return _LEAST_UNITS[level]


HIGHEST = len(_LEAST) - 1
